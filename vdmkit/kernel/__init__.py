# SPDX-License-Identifier: Apache-2.0
"""Reverse kernels p(z_s | z_t), from the denoiser's estimate at z_t."""

from vdmkit.kernel._gaussian import AbstractGaussianKernel, GaussianKernel, OptimalVariance
from vdmkit.kernel._kernel import AbstractKernel, AbstractStep, part_of_noise
from vdmkit.kernel._mixture import MixtureKernel

__all__ = [
    "AbstractGaussianKernel",
    "AbstractKernel",
    "AbstractStep",
    "GaussianKernel",
    "MixtureKernel",
    "OptimalVariance",
    "part_of_noise",
]
