# SPDX-License-Identifier: Apache-2.0
"""The forward process: schedule gamma(t), path (alpha, sigma), and the Gaussians that they define."""

from vdmkit.noise._beta import LinearBeta
from vdmkit.noise._linear import FixedLinear, LearnedLinear
from vdmkit.noise._monotone import LearnedMonotone
from vdmkit.noise._path import AbstractPath, VariancePreserving
from vdmkit.noise._process import diffuse, reverse
from vdmkit.noise._schedule import AbstractSchedule, check_increasing, ends_of, gamma_and_derivative

__all__ = [
    "AbstractPath",
    "AbstractSchedule",
    "FixedLinear",
    "LearnedLinear",
    "LearnedMonotone",
    "LinearBeta",
    "VariancePreserving",
    "check_increasing",
    "diffuse",
    "ends_of",
    "gamma_and_derivative",
    "reverse",
]
