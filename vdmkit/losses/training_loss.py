# SPDX-License-Identifier: Apache-2.0
"""The training objective: the bound of a batch for a choice of time sampler, weighting and number of steps.

`loss` returns it as a single differentiable function, for custom training loops.
"""

from collections.abc import Mapping
from functools import partial
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, PRNGKeyArray, Real

from vdmkit.arguments import check_instance
from vdmkit.data.identity import check_pixels
from vdmkit.errors import DataError
from vdmkit.losses.bound import (
    Bound,
    NoiseLevel,
    bits_per_dim,
    diffusion_loss,
    noise_level,
    prior_loss,
    reconstruction_loss,
    step_end,
)
from vdmkit.losses.discrete_time import Steps
from vdmkit.losses.schedule_loss import Vjp, bound_gradient, variance_gradient
from vdmkit.losses.time_samplers import AbstractTimeSampler, LowDiscrepancy
from vdmkit.losses.weightings import AbstractWeighting, Elbo
from vdmkit.model import DiffusionModel
from vdmkit.networks.network import Condition
from vdmkit.process import AbstractGrid, UniformInTime
from vdmkit.randomness import fold_purpose
from vdmkit.reverse import AbstractKernel, GaussianKernel
from vdmkit.schedules import AbstractSchedule, Scalar


class Draws(eqx.Module):
    """The random numbers of one batch: eps_0 for the reconstruction; eps, t and keys for the diffusion loss.

    `weight` is 1 / density of t. With T steps, t is a multiple of 1/T.
    """

    eps_0: Float[Array, "b h w c"]
    eps: Float[Array, "b h w c"]
    t: Float[Array, " b"]
    weight: Float[Array, " b"]
    keys: Key[Array, " b"]


class Objective(eqx.Module):
    """The objective of a batch of images, by default the paper's; `steps` = 0 means continuous time.

    The interior of the schedule is trained on the bound or, with `schedule_loss = "variance"`, on the variance of the
    loss; see `check_variance`.
    """

    time_sampler: AbstractTimeSampler = LowDiscrepancy()
    weighting: AbstractWeighting = Elbo()
    steps: int = eqx.field(static=True, default=0)
    schedule_loss: Literal["bound", "variance"] = eqx.field(static=True, default="bound")
    kernel: AbstractKernel = GaussianKernel()
    grid: AbstractGrid = UniformInTime()

    def draw(self, shape: tuple[int, int, int, int], *, key: PRNGKeyArray) -> Draws:
        """Returns the draws for a batch of shape (b, h, w, c)."""
        key_0, key_eps, key_t = jax.random.split(key, 3)
        eps_0, eps = (jax.random.normal(k, shape, dtype=float) for k in (key_0, key_eps))
        t, weight = self.time_sampler(shape[0], key=key_t)
        keys = jax.random.split(fold_purpose(key, "kernel"), shape[0])
        return Draws(eps_0, eps, step_end(t, self.steps), weight, keys)

    def __call__(
        self,
        model: DiffusionModel,
        images: Real[Array, "b h w c"],
        condition: Mapping[str, Real[Array, " b"]],
        draws: Draws,
        *,
        key: PRNGKeyArray | None = None,
    ) -> Bound:
        """Returns one unbiased draw of the (weighted) bound of each image in nats. `key` is used for dropout."""
        keys = None if key is None else jax.random.split(key, images.shape[0])
        return self.at(self.noise_levels(model.schedule, draws), model, images, condition, draws, keys=keys)

    def noise_levels(self, schedule: AbstractSchedule, draws: Draws) -> NoiseLevel:
        """Returns the noise level of each draw of the diffusion loss."""
        of_time = self._steps.noise_level if self.steps else noise_level
        return jax.vmap(lambda t: of_time(schedule, t))(draws.t)

    @property
    def _steps(self) -> Steps:
        return Steps(self.steps, self.kernel, self.grid)

    def at(
        self,
        noise: NoiseLevel,
        model: DiffusionModel,
        images: Real[Array, "b h w c"],
        condition: Mapping[str, Real[Array, " b"]],
        draws: Draws,
        *,
        keys: Key[Array, " b"] | None = None,
    ) -> Bound:
        """Returns the bounds with the diffusion loss at the given noise levels. `keys` are used for dropout."""

        def one(noise: NoiseLevel, image: Array, condition: Condition, draws: Draws, key: PRNGKeyArray | None) -> Bound:
            x = model.observation.encode(image)
            diffusion = draws.weight * self._loss(model, x, noise, draws, condition, key)
            decoder = partial(reconstruction_loss, model.given(condition), image, draws.eps_0)
            reconstruction = self.weighting.reconstruction(decoder)
            return Bound(prior_loss(model, x), reconstruction, diffusion)

        return jax.vmap(one, in_axes=(0, 0, 0, 0, None if keys is None else 0))(noise, images, condition, draws, keys)

    def _loss(
        self,
        model: DiffusionModel,
        x: Array,
        noise: NoiseLevel,
        draws: Draws,
        condition: Condition,
        key: PRNGKeyArray | None,
    ) -> Scalar:
        given = model, x, noise, draws.eps, condition
        if not self.steps:
            return self.weighting(noise.gamma, noise.rate) * diffusion_loss(*given, key=key)
        return self._steps.loss(*given, key=draws.keys, key_dropout=key, weighting=self.weighting)

    def schedule_gradient(
        self, ends: AbstractSchedule, vjp: Vjp, sensitivity: NoiseLevel, loss: Float[Array, " b"]
    ) -> AbstractSchedule:
        """Returns the gradient with respect to the schedule's parameters.

        Args:
            ends: Gradient of the prior and reconstruction terms.
            vjp: Vector-Jacobian product of the noise levels.
            sensitivity: Gradient of the mean bound with respect to the noise levels.
            loss: Diffusion loss of each image.
        """
        if self.schedule_loss == "bound":
            return bound_gradient(ends, vjp, sensitivity)
        return variance_gradient(ends, vjp, sensitivity, loss)

    def after(self, draws: Draws, bound: Bound) -> "Objective":
        """Returns the objective of the next batch, whose time sampler may adapt to the losses of this batch."""
        loss = jnp.asarray(bound.diffusion) / draws.weight
        time_sampler = self.time_sampler.after(draws.t, loss)
        return Objective(time_sampler, self.weighting, self.steps, self.schedule_loss, self.kernel, self.grid)


def loss(
    model: DiffusionModel,
    images: Real[Array | np.ndarray, "b h w c"],
    *,
    key: PRNGKeyArray,
    objective: Objective | None = None,
    condition: Mapping[str, Real[Array, " b"]] | None = None,
) -> tuple[Scalar, Bound]:
    """Returns the mean loss of a batch in bits/dim, and the three terms of each image in nats.

    This is the loss that `vdmkit run` minimises (Kingma et al. 2021, arXiv 2107.00630, eq. 11). Differentiate it with
    `equinox.filter_value_and_grad(loss, has_aux=True)`. It works under `jax.jit`.

    Args:
        model: The model.
        images: Levels 0..levels - 1, or float32 if the model's data are continuous.
        key: Random key for times, noise and dropout.
        objective: The objective, by default the bound in continuous time with low-discrepancy times.
        condition: Side information on the images by name, each of shape (b,).

    Raises:
        DataError: there are no images, or their shape, type or range does not fit the model; under `jax.jit` the range
            is not checked.
        RecipeError: an argument is invalid.
    """
    check_instance("model", model, DiffusionModel)
    check_instance("objective", objective, Objective, optional=True)
    images = images if isinstance(images, jax.Array) else np.asarray(images)
    check_pixels(model, images)
    if not len(images):
        raise DataError("images: an empty batch has no loss.")
    objective = objective or Objective()
    key_draws, key_dropout = jax.random.split(key)
    b, h, w, c = images.shape
    draws = objective.draw((b, h, w, c), key=key_draws)
    bound = objective(model, jnp.asarray(images), condition or {}, draws, key=key_dropout)
    return sum(mean_terms(bound, model.dimensions).values(), jnp.zeros(())), bound


def mean_terms(bound: Bound, dimensions: int) -> dict[str, Scalar]:
    """Returns the batch means of the three terms by name, in bits/dim; their sum is the loss."""
    terms = {name: jnp.asarray(getattr(bound, name)) for name in ("prior", "reconstruction", "diffusion")}
    return {name: bits_per_dim(values.mean(), dimensions) for name, values in terms.items()}
