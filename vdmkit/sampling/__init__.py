# SPDX-License-Identifier: Apache-2.0
"""Samplers: ancestral sampling, DDIM, and solvers of the probability-flow ODE and the reverse SDE."""

from vdmkit.sampling.ancestral import Ancestral, Ddim
from vdmkit.sampling.ode import (
    Dpm2,
    DpmPlusPlus2M,
    DpmPlusPlus2SAncestral,
    DpmPlusPlus3MSde,
    Euler,
    EulerAncestral,
    Heun,
    Lms,
    Ode,
    Sde,
)
from vdmkit.sampling.sampler import AbstractSampler, Denoise, History

__all__ = [
    "AbstractSampler",
    "Ancestral",
    "Ddim",
    "Denoise",
    "Dpm2",
    "DpmPlusPlus2M",
    "DpmPlusPlus2SAncestral",
    "DpmPlusPlus3MSde",
    "Euler",
    "EulerAncestral",
    "Heun",
    "History",
    "Lms",
    "Ode",
    "Sde",
]
