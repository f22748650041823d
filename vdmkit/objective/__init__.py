# SPDX-License-Identifier: Apache-2.0
"""The variational bound, and the choices of a training objective: time sampler, weighting, steps."""

from vdmkit.objective._bound import (
    Bound,
    NoiseLevel,
    diffusion_loss,
    eps_error,
    noise_level,
    prior_loss,
    reconstruction_loss,
    step_end,
)
from vdmkit.objective._loss import loss, mean_terms
from vdmkit.objective._loss_adaptive import LossAdaptive
from vdmkit.objective._objective import Draws, Objective
from vdmkit.objective._schedule_gradient import check_variance
from vdmkit.objective._step import Steps, step_loss
from vdmkit.objective._time_sampler import (
    AbstractTimeSampler,
    DiscreteGrid,
    LogitNormal,
    LowDiscrepancy,
    Signal,
    Uniform,
)
from vdmkit.objective._units import bits_per_dim
from vdmkit.objective._weighting import (
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
    "Bound",
    "DiscreteGrid",
    "Draws",
    "EdmMonotonic",
    "EdmWeighting",
    "Elbo",
    "Hybrid",
    "LogitNormal",
    "LossAdaptive",
    "LowDiscrepancy",
    "MinSnr",
    "NoiseLevel",
    "Objective",
    "SigmoidWeighting",
    "Signal",
    "Simple",
    "Snr",
    "Steps",
    "TruncatedSnr",
    "Uniform",
    "VWeighting",
    "VelocityWeighting",
    "bits_per_dim",
    "check_variance",
    "diffusion_loss",
    "eps_error",
    "loss",
    "mean_terms",
    "noise_level",
    "prior_loss",
    "reconstruction_loss",
    "step_end",
    "step_loss",
]
