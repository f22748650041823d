# SPDX-License-Identifier: Apache-2.0
"""A fingerprint, 16 hexadecimal digits, of everything that the numbers of a measurement depend on."""

import hashlib
import json
from dataclasses import asdict

import numpy as np
from jaxtyping import Int

from vdmkit import __version__
from vdmkit.checkpoint import sha256_of_arrays
from vdmkit.data import Images
from vdmkit.devices import arithmetic, packages
from vdmkit.recipe import Recipe, flat
from vdmkit.registry import Choice
from vdmkit.run._load import Run

_MEASURED_BY = ("seed", "model.", "objective.", "likelihood.")  # keys of the recipe


def fingerprint_of(run: Run, test: Images, stage: object = 0, labels: Int[np.ndarray, " n"] | None = None) -> str:
    """Returns the fingerprint for a run and its test images.

    Args:
        run: The run.
        test: The test images.
        stage: A JSON value that identifies the measurement among those of the run.
        labels: The label that the network is told of each image, if it is told any.
    """
    facts = [
        {key: value for key, value in flat(run.recipe).items() if key.startswith(_MEASURED_BY)},
        run.plugins,
        packages(_packages_of(run.recipe)),
        run.step,
        sha256_of_arrays(run.weighted(run.recipe.likelihood.weights)),
        [test.identity.sha256, test.pixels.shape, test.levels],
        stage,
        asdict(arithmetic()),
        __version__,
        *([] if labels is None else [labels.tolist()]),
    ]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def _packages_of(recipe: Recipe) -> set[str]:
    """Returns the plugin packages of the measured components; others that are installed change no number."""
    parts = (*vars(recipe.model).values(), *vars(recipe.objective).values(), recipe.likelihood.estimator)
    chosen = [one.component for part in parts if isinstance(part, Choice) for one in part.nested()]
    return {component.origin for component in chosen if component.is_of_package}
