# SPDX-License-Identifier: Apache-2.0
"""Training losses: the terms of the variational bound, weightings, time samplers, and gradients of the schedule."""

from vdmkit.losses.bound import bits_per_dim, eps_error, prior_loss, reconstruction_loss
from vdmkit.losses.time_samplers import (
    AbstractTimeSampler,
    DiscreteGrid,
    LogitNormal,
    LossAdaptive,
    LowDiscrepancy,
    Signal,
    Uniform,
)
from vdmkit.losses.training_loss import Objective
from vdmkit.losses.weightings import (
    P2,
    AbstractWeighting,
    EdmMonotonic,
    EdmWeighting,
    Elbo,
    Hybrid,
    MinSnr,
    SigmoidWeighting,
    Simple,
    Snr,
    TruncatedSnr,
    VelocityWeighting,
    VWeighting,
)

__all__ = [
    "P2",
    "AbstractTimeSampler",
    "AbstractWeighting",
    "DiscreteGrid",
    "EdmMonotonic",
    "EdmWeighting",
    "Elbo",
    "Hybrid",
    "LogitNormal",
    "LossAdaptive",
    "LowDiscrepancy",
    "MinSnr",
    "Objective",
    "SigmoidWeighting",
    "Signal",
    "Simple",
    "Snr",
    "TruncatedSnr",
    "Uniform",
    "VWeighting",
    "VelocityWeighting",
    "bits_per_dim",
    "eps_error",
    "prior_loss",
    "reconstruction_loss",
]
