# SPDX-License-Identifier: Apache-2.0
"""Gradients with respect to the schedule (Kingma et al. 2021, arXiv 2107.00630v6, section 5.1.1 and App. I.2).

The interior of a schedule does not affect the mean of the diffusion loss L, so E[L^2] and the variance have the same
gradient. The backward pass of the mean loss of n images gives the sensitivity of each image's loss to its noise level,
a_i = 1/n dL_i / dgamma(t_i) and b_i = 1/n dL_i / dgamma'(t_i). Vector-Jacobian products of the schedule alone then give

    bound:     d/deta 1/n sum_i L_i   = sum_i       a_i dgamma(t_i)/deta + b_i dgamma'(t_i)/deta
    variance:  d/deta 1/n sum_i L_i^2 = sum_i 2 L_i (a_i dgamma(t_i)/deta + b_i dgamma'(t_i)/deta)
"""

from collections.abc import Callable, Iterator
from operator import attrgetter

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vdmkit.errors import RecipeError
from vdmkit.losses.bound import NoiseLevel
from vdmkit.losses.time_samplers import AbstractTimeSampler, DiscreteGrid
from vdmkit.losses.weightings import AbstractWeighting
from vdmkit.schedules import AbstractSchedule, Pinned

Vjp = Callable[[NoiseLevel], tuple[AbstractSchedule]]
"""The vector-Jacobian product of the noise levels at t_1, ..., t_n."""


def bound_gradient(ends: AbstractSchedule, vjp: Vjp, sensitivity: NoiseLevel) -> AbstractSchedule:
    """Returns the gradient of the bound: that through the noise levels plus `ends`, of prior and reconstruction."""
    return jax.tree.map(jnp.add, ends, vjp(sensitivity)[0])


def variance_gradient(
    ends: AbstractSchedule, vjp: Vjp, sensitivity: NoiseLevel, loss: Float[Array, " n"]
) -> AbstractSchedule:
    """Returns the gradient of the bound for the ends of a `Pinned`, and of the mean squared `loss` for its interior."""
    (squared,) = vjp(jax.tree.map(lambda of_mean: 2 * loss * of_mean, sensitivity))
    interior = attrgetter("interior")
    return eqx.tree_at(interior, bound_gradient(ends, vjp, sensitivity), interior(squared))


def check_variance(
    schedule: AbstractSchedule, time_sampler: AbstractTimeSampler, weighting: AbstractWeighting, *, steps: int
) -> None:
    """Raises RecipeError unless the interior of the schedule affects only the variance of the loss."""
    if problems := list(_problems(schedule, time_sampler, weighting, steps)):
        raise RecipeError("\n".join(f'objective.schedule_loss = "variance": {problem}' for problem in problems))


def _problems(
    schedule: AbstractSchedule, time_sampler: AbstractTimeSampler, weighting: AbstractWeighting, steps: int
) -> Iterator[str]:
    if not isinstance(schedule, Pinned):
        yield "the ends of the schedule are not fixed apart from its interior. Use it as `interior` of schedule pinned."
    elif not jax.tree.leaves(eqx.filter(schedule.interior, eqx.is_inexact_array)):
        yield "the interior of the schedule has nothing to learn. Choose another, such as piecewise_linear."
    if steps:
        yield f"with objective.steps = {steps} the bound depends on the interior of the schedule. Remove this key."
    if isinstance(time_sampler, DiscreteGrid):
        yield "with time_sampler discrete_grid the mean loss depends on the interior of the schedule. Choose another."
    if _depends_on_rate(weighting):
        yield "this weighting depends on gamma'(t), and so the mean loss on the interior. Choose another, such as elbo."


def _depends_on_rate(weighting: AbstractWeighting) -> bool:
    gamma = jnp.linspace(-10, 10, 21)
    slow, fast = (jax.vmap(weighting)(gamma, jnp.full_like(gamma, rate)) for rate in (1.0, 16.0))
    return not bool(jnp.allclose(slow, fast))
