# SPDX-License-Identifier: Apache-2.0
"""Reverse kernels p(z_s | z_t), from the denoiser's estimate at z_t."""

from vdmkit.kernel._gaussian import AbstractGaussianKernel, AbstractNormalKernel, GaussianKernel, OptimalVariance
from vdmkit.kernel._kernel import AbstractKernel, AbstractStep, part_of_noise
from vdmkit.kernel._learned_range import LearnedRange
from vdmkit.kernel._mixture import MixtureKernel

__all__ = [
    "AbstractGaussianKernel",
    "AbstractKernel",
    "AbstractNormalKernel",
    "AbstractStep",
    "GaussianKernel",
    "LearnedRange",
    "MixtureKernel",
    "OptimalVariance",
    "part_of_noise",
]
