# SPDX-License-Identifier: Apache-2.0
"""Predictions, which turn a network's output into an estimate of the data."""

from vdmkit.denoiser._levels import Categorical, Lattice, estimate_from_logits
from vdmkit.denoiser._linear import (
    AbstractDirection,
    Edm,
    Eps,
    Score,
    UnitVelocity,
    V,
    Velocity,
    X,
    is_direction,
    solve_direction,
)
from vdmkit.denoiser._prediction import AbstractPrediction
from vdmkit.denoiser._range import EpsAndRange, WithRange, learns_range
from vdmkit.denoiser._translated import Translated
from vdmkit.estimate import Estimate

__all__ = [
    "AbstractDirection",
    "AbstractPrediction",
    "Categorical",
    "Edm",
    "Eps",
    "EpsAndRange",
    "Estimate",
    "Lattice",
    "Score",
    "Translated",
    "UnitVelocity",
    "V",
    "Velocity",
    "WithRange",
    "X",
    "estimate_from_logits",
    "is_direction",
    "learns_range",
    "solve_direction",
]
