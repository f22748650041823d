# SPDX-License-Identifier: Apache-2.0
"""Drawing images: from p(z_1) down a grid of gammas to z_0, then to levels."""

import abc
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, Real

from vdmkit.model import DiffusionModel
from vdmkit.noise import AbstractSchedule
from vdmkit.randomness import fold_purpose
from vdmkit.registry import define_kind


class AbstractSampler(eqx.Module):
    """An implementer supplies one step; `sample` runs it down a grid."""

    @abc.abstractmethod
    def step(
        self,
        model: DiffusionModel,
        z_t: Float[Array, "h w c"],
        gamma_t: Float[Array, ""],
        gamma_s: Float[Array, ""],
        *,
        key: PRNGKeyArray,
    ) -> Float[Array, "h w c"]:
        """From z_t at gamma_t to z_s at gamma_s < gamma_t, for one image."""


define_kind("sampler", "from noise to images along a grid of gammas", AbstractSampler)


def uniform_grid(schedule: AbstractSchedule, steps: int) -> Float[Array, " steps_plus_1"]:
    """gamma at t = 1, 1 - 1/T, ..., 0: T steps uniform in time."""
    return jax.vmap(schedule)(jnp.arange(steps, -1, -1) / steps)


def sample(
    model: DiffusionModel,
    sampler: AbstractSampler,
    grid: Float[Array, " n"],
    count: int,
    *,
    key: PRNGKeyArray,
    first: int = 0,
    on_step: Callable[[], object] = lambda: None,
) -> Real[Array, "count h w c"]:
    """Images number first, ..., first + count - 1 of the endless sequence that `key` defines.

    Args:
        grid: gammas from the noisiest to gamma_0; see `uniform_grid`.
        on_step: called after every step, for a progress bar.
    """
    keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(first + jnp.arange(count))
    z = _draw_prior(model, grid[0], keys)
    # A convolution inside lax.scan is 16 times slower on CPU: one dispatch per step.
    for i in range(len(grid) - 1):
        z = _step(model, sampler, z, grid[i], grid[i + 1], keys, jnp.asarray(i))
        z.block_until_ready()
        on_step()
    return _decode(model, z, grid[-1])


@eqx.filter_jit
def _draw_prior(model: DiffusionModel, gamma_1: Array, keys: Array) -> Array:
    """z_1 ~ N(0, (alpha_1^2 + sigma_1^2) I), which is N(0, I) on the variance-preserving path."""
    scale = model.path.scale(gamma_1)
    return jax.vmap(lambda key: scale * jax.random.normal(fold_purpose(key, "prior"), model.shape))(keys)


@eqx.filter_jit
def _step(
    model: DiffusionModel,
    sampler: AbstractSampler,
    z: Array,
    gamma_t: Array,
    gamma_s: Array,
    keys: Array,
    i: Array,
) -> Array:
    def one(z_t: Array, key: PRNGKeyArray) -> Array:
        return sampler.step(model, z_t, gamma_t, gamma_s, key=jax.random.fold_in(fold_purpose(key, "step"), i))

    return jax.vmap(one)(z, keys)


@eqx.filter_jit
def _decode(model: DiffusionModel, z_0: Array, gamma_0: Array) -> Array:
    return jax.vmap(lambda z: model.observation.decode(z / model.path.alpha(gamma_0), gamma_0))(z_0)
