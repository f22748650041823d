# SPDX-License-Identifier: Apache-2.0
"""Limits of float32 and int32, and the ranges of recipe values that several modules share. Importing this loads no JAX.

A range refuses what cannot work in any recipe, not what is unwise. Values that only together cannot work are refused
where the component is built.
"""

from typing import Annotated

from annotated_types import Ge, Gt, Le, Lt, MultipleOf

# Beyond 10,000 steps gamma_t - gamma_s is lost in float32, and the bound with it (T = 1e7: 0.12 bpd too low).
MAX_STEPS = 10_000

# exp(-30 / 2) = 3e-7 is five roundings of float32. At lower gammas z_t has lost its noise, at higher ones its image.
MAX_GAMMA = 30.0

MAX_COUNT = 2**31 - 1  # JAX counts in int32
MAX_AT_ONCE = 1_000_000  # images: the indices of more, of 2,000 values each, do not fit int32

Gamma = Annotated[float, Ge(-MAX_GAMMA), Le(MAX_GAMMA)]
LogSigma = Annotated[float, Ge(-MAX_GAMMA / 2), Le(MAX_GAMMA / 2)]  # log(sigma / alpha) = gamma / 2
Sigma = Annotated[float, Ge(1e-6), Le(1e6)]  # sigma / alpha
Beta = Annotated[float, Ge(1e-4), Le(60)]  # of an SDE, at one of its ends; gamma_1 is about the mean of both
Width = Annotated[float, Ge(0.01), Le(100)]  # width of a density or a sigmoid in gamma
DataScale = Annotated[float, Ge(1e-3), Le(1e3)]  # standard deviation of data that lie near [-1, 1]
Share = Annotated[float, Ge(1e-6), Le(1)]
PartialShare = Annotated[float, Ge(1e-6), Lt(1)]
Decay = Annotated[
    float, Ge(0), Le(0.9999999)
]  # weight of the old value in a running average; above, float32 rounds to 1
Tolerance = Annotated[float, Ge(1e-15), Le(0.1)]  # error allowed in one step of an ODE solver
Minutes = Annotated[float, Gt(0), Le(1e6)]

Steps = Annotated[int, Ge(1), Le(MAX_STEPS)]
StepsOrZero = Annotated[int, Ge(0), Le(MAX_STEPS)]
SolverSteps = Annotated[int, Ge(1), Le(MAX_AT_ONCE)]  # the most that an adaptive solver may take
Positive = Annotated[int, Gt(0), Le(MAX_COUNT)]
Count = Annotated[int, Ge(0), Le(MAX_COUNT)]
AtOnce = Annotated[int, Gt(0), Le(MAX_AT_ONCE)]
Draws = Annotated[int, Ge(1), Le(10_000)]
EvenDraws = Annotated[int, Ge(2), Le(2**20), MultipleOf(2)]  # two independent estimates of each image
Seed = Annotated[int, Ge(0), Lt(2**32)]
