# SPDX-License-Identifier: Apache-2.0
"""Variational diffusion models: training, likelihoods with error bars, samples and compression.

Public names are imported on first use, so importing `vdmkit` does not load JAX.
"""

import importlib
import pkgutil
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vdmkit.errors import VdmkitError
    from vdmkit.experiments.load import Run
    from vdmkit.experiments.run import load, train
    from vdmkit.likelihood.comparison import compare
    from vdmkit.likelihood.log_likelihood import log_likelihood
    from vdmkit.losses.training_loss import loss
    from vdmkit.model import DiffusionModel
    from vdmkit.registry import register
    from vdmkit.sampling.sample import sample

__version__ = "0.1.0"
__all__ = [
    "DiffusionModel",
    "Run",
    "VdmkitError",
    "__version__",
    "compare",
    "load",
    "log_likelihood",
    "loss",
    "register",
    "sample",
    "train",
]

_MODULE_OF = {
    "DiffusionModel": "model",
    "Run": "experiments.load",
    "VdmkitError": "errors",
    "compare": "likelihood.comparison",
    "load": "experiments.run",
    "log_likelihood": "likelihood.log_likelihood",
    "loss": "losses.training_loss",
    "register": "registry",
    "sample": "sampling.sample",
    "train": "experiments.run",
}


def __getattr__(name: str) -> Any:
    if name in _MODULE_OF:
        return getattr(importlib.import_module(f"vdmkit.{_MODULE_OF[name]}"), name)
    if not name.startswith("_"):
        try:
            return importlib.import_module(f"vdmkit.{name}")
        except ModuleNotFoundError as error:
            if error.name != f"vdmkit.{name}":
                raise
    raise AttributeError(f"module 'vdmkit' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*__all__, *(module.name for module in pkgutil.iter_modules(__path__) if module.name[0] != "_")})
