# SPDX-License-Identifier: Apache-2.0
"""Classification of images by their likelihoods given each label, with accuracy, calibration and errors.

    found = vdmkit_classification.classify(run.model, images, frequencies=counts, key=run.key)
    found.predicted, found.log_posterior, found.undecided
    scores = vdmkit_classification.score(found, labels)

Importing it does not load JAX: names are imported on first use.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vdmkit_classification.bayes import Classification, classify
    from vdmkit_classification.scores import ClassificationScores, score

__all__ = ["Classification", "ClassificationScores", "classify", "score"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        module = "bayes" if name in ("Classification", "classify") else "scores"
        return getattr(importlib.import_module(f"vdmkit_classification.{module}"), name)
    raise AttributeError(f"module 'vdmkit_classification' has no attribute {name!r}")
