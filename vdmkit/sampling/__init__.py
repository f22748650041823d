# SPDX-License-Identifier: Apache-2.0
"""Samplers."""

from vdmkit.sampling._ancestral import Ancestral, Ddim
from vdmkit.sampling._denoise import Denoise, Guidance, denoiser_of, guided
from vdmkit.sampling._dpm_solver import DpmPlusPlus2M, DpmPlusPlus2SAncestral, DpmPlusPlus3MSde, EulerAncestral
from vdmkit.sampling._edm import Dpm2, Euler, Heun, Lms
from vdmkit.sampling._sample import SamplingConfig, draw_samples, fit_into, sample
from vdmkit.sampling._sampler import AbstractSampler, History, draw, no_history
from vdmkit.sampling._solvers import Ode, Sde

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
    "Guidance",
    "Heun",
    "History",
    "Lms",
    "Ode",
    "SamplingConfig",
    "Sde",
    "denoiser_of",
    "draw",
    "draw_samples",
    "fit_into",
    "guided",
    "no_history",
    "sample",
]
