# SPDX-License-Identifier: Apache-2.0
"""Variational diffusion models: training, likelihoods with error bars, samples and compression.

Importing it does not load JAX: public names are imported on first use.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vdmkit.errors import VdmkitError
    from vdmkit.likelihood import compare, log_likelihood
    from vdmkit.model import DiffusionModel
    from vdmkit.objective import loss
    from vdmkit.registry import register
    from vdmkit.run import Run, load, train
    from vdmkit.sampling import sample

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

_FROM = {
    "errors": ("VdmkitError",),
    "likelihood": ("compare", "log_likelihood"),
    "model": ("DiffusionModel",),
    "objective": ("loss",),
    "registry": ("register",),
    "run": ("Run", "load", "train"),
    "sampling": ("sample",),
}
_ROOM_OF = {name: room for room, names in _FROM.items() for name in names}
_ROOMS = {
    "assembly",
    "data",
    "denoiser",
    "devices",
    "distribution",
    "importers",
    "kernel",
    "networks",
    "noise",
    "observation",
}
_ROOMS |= {
    "optimizer",
    "page",
    "quality",
    "randomness",
    "recipe",
    "report",
    "study",
    "testing",
    "training",
    "typing",
    *_FROM,
}


def __getattr__(name: str) -> Any:
    if name in _ROOM_OF:
        return getattr(importlib.import_module(f"vdmkit.{_ROOM_OF[name]}"), name)
    if name in _ROOMS:
        return importlib.import_module(f"vdmkit.{name}")
    raise AttributeError(f"module 'vdmkit' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*__all__, *_ROOMS})
