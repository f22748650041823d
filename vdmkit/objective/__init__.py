# SPDX-License-Identifier: Apache-2.0
"""The variational bound, and what a training objective chooses: times, weighting, steps."""

from vdmkit.objective._bound import Bound, diffusion_loss, eps_error, prior_loss, reconstruction_loss, step_end
from vdmkit.objective._objective import Draws, Objective
from vdmkit.objective._times import AbstractTimes, LowDiscrepancy, Uniform
from vdmkit.objective._units import bits_per_dim
from vdmkit.objective._weighting import AbstractWeighting, Elbo

__all__ = [
    "AbstractTimes",
    "AbstractWeighting",
    "Bound",
    "Draws",
    "Elbo",
    "LowDiscrepancy",
    "Objective",
    "Uniform",
    "bits_per_dim",
    "diffusion_loss",
    "eps_error",
    "prior_loss",
    "reconstruction_loss",
    "step_end",
]
