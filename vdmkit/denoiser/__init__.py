# SPDX-License-Identifier: Apache-2.0
"""Predictions, which turn a network's output into an estimate of the data."""

from vdmkit.denoiser._levels import Categorical, Lattice, estimate_from_logits
from vdmkit.denoiser._linear import (
    AbstractDirection,
    Edm,
    Eps,
    EpsAndRange,
    Score,
    UnitVelocity,
    V,
    Velocity,
    X,
    solve_direction,
)
from vdmkit.denoiser._prediction import AbstractPrediction
from vdmkit.denoiser._translated import Translated, is_direction
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
    "X",
    "estimate_from_logits",
    "is_direction",
    "solve_direction",
]
