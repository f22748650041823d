# SPDX-License-Identifier: Apache-2.0
"""The forward process: schedule gamma(t), path (alpha, sigma), and the Gaussians that they define."""

from vdmkit.noise._beta import LinearBeta, SubVpLinearBeta
from vdmkit.noise._closed_form import (
    Cosine,
    FixedLinear,
    FlowMatching,
    Karras,
    LearnedLinear,
    LogLinear,
    LogNormal,
    ShiftedCosine,
    Sigmoid,
)
from vdmkit.noise._grid import (
    AbstractGrid,
    GivenGammas,
    KarrasGrid,
    Quadratic,
    TabulatedGrid,
    UniformInGamma,
    UniformInTime,
    steps_of_bound,
)
from vdmkit.noise._monotone import LearnedMonotone
from vdmkit.noise._path import AbstractPath, StraightLine, SubVariancePreserving, VarianceExploding, VariancePreserving
from vdmkit.noise._piecewise_linear import PiecewiseLinear
from vdmkit.noise._pinned import Pinned
from vdmkit.noise._process import diffuse, reverse
from vdmkit.noise._schedule import (
    AbstractSchedule,
    check_ends,
    check_increasing,
    ends_of,
    gamma_and_derivative,
    gammas_of,
)
from vdmkit.noise._tabulated import Tabulated, cosine_betas, linear_betas

__all__ = [
    "AbstractGrid",
    "AbstractPath",
    "AbstractSchedule",
    "Cosine",
    "FixedLinear",
    "FlowMatching",
    "GivenGammas",
    "Karras",
    "KarrasGrid",
    "LearnedLinear",
    "LearnedMonotone",
    "LinearBeta",
    "LogLinear",
    "LogNormal",
    "PiecewiseLinear",
    "Pinned",
    "Quadratic",
    "ShiftedCosine",
    "Sigmoid",
    "StraightLine",
    "SubVariancePreserving",
    "SubVpLinearBeta",
    "Tabulated",
    "TabulatedGrid",
    "UniformInGamma",
    "UniformInTime",
    "VarianceExploding",
    "VariancePreserving",
    "check_ends",
    "check_increasing",
    "cosine_betas",
    "diffuse",
    "ends_of",
    "gamma_and_derivative",
    "gammas_of",
    "linear_betas",
    "reverse",
    "steps_of_bound",
]
