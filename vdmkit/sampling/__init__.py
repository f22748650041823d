# SPDX-License-Identifier: Apache-2.0
"""Samplers, and the grids of gammas that they walk down."""

from vdmkit.sampling._ancestral import Ancestral
from vdmkit.sampling._sampler import AbstractSampler, sample, uniform_grid

__all__ = ["AbstractSampler", "Ancestral", "sample", "uniform_grid"]
