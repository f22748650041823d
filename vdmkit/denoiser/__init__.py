# SPDX-License-Identifier: Apache-2.0
"""From a network's output to an estimate of the data."""

from vdmkit.denoiser._levels import Categorical, Lattice, estimate_from_logits
from vdmkit.denoiser._linear import Eps, solve_direction
from vdmkit.denoiser._prediction import AbstractPrediction, Estimate

__all__ = [
    "AbstractPrediction",
    "Categorical",
    "Eps",
    "Estimate",
    "Lattice",
    "estimate_from_logits",
    "solve_direction",
]
