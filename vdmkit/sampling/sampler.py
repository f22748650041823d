# SPDX-License-Identifier: Apache-2.0
"""The interface of samplers, and the loop that draws images: from p(z_1) along a grid of gammas to z_0, then to levels.

Samplers work in y = z / alpha = x + s eps, with s = sigma / alpha = exp(gamma / 2), which is the same on every path.
They call a denoiser, which returns the model's estimate at y, given a label or not, and possibly with guidance.
"""

import abc
from collections.abc import Callable, Iterator
from types import MappingProxyType

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray, Real

from vdmkit.devices import in_flight
from vdmkit.errors import NonFiniteError
from vdmkit.model import DiffusionModel
from vdmkit.networks.network import Condition
from vdmkit.predictions import Estimate
from vdmkit.process import Image
from vdmkit.randomness import fold_purpose
from vdmkit.registry import define_kind
from vdmkit.schedules import Scalar

Denoise = Callable[[Image, Scalar], Estimate]
_NOTHING: Condition = MappingProxyType({})


def denoiser_of(model: DiffusionModel, condition: Condition = _NOTHING) -> Denoise:
    """Returns the model's estimate as a function of y and gamma, conditioned on side information."""
    return lambda y, gamma: model.denoise(model.path.alpha(gamma) * y, gamma, condition)


def guided(without: Denoise, given: Denoise, scale: float) -> Denoise:
    """Returns the denoiser of classifier-free guidance (Ho & Salimans 2022, arXiv 2207.12598, eq. 6, scale = 1 + w).

        eps_hat = eps_hat without the label + scale (eps_hat given the label - eps_hat without the label)

    It does not give probabilities of levels. Learned variances are those given the label.
    """

    def denoise(y: Image, gamma: Scalar) -> Estimate:
        base, of_label = without(y, gamma).eps_hat, given(y, gamma)
        eps_hat = base + scale * (of_label.eps_hat - base)
        return Estimate(y - jnp.exp(gamma / 2) * eps_hat, eps_hat, variance_share=of_label.variance_share)

    return denoise


class Guidance(eqx.Module):
    """Labels of samples: image i has `label`, or if this is None, label i modulo `classes`.

    `scale` is the guidance scale, see `guided`; 1 is the model's own estimate given the label.
    """

    scale: float = eqx.field(static=True)
    classes: int = eqx.field(static=True)
    label: int | None = eqx.field(static=True, default=None)

    def denoiser(self, model: DiffusionModel, number: Int[Array, ""]) -> Denoise:
        """Returns the denoiser of the image with this number."""
        label = number % self.classes if self.label is None else jnp.asarray(self.label)
        given = denoiser_of(model, {"label": label})
        return given if self.scale == 1 else guided(denoiser_of(model), given, self.scale)


MEMORY = 3


class History(eqx.Module):
    """Estimates at the starts of earlier steps of a chain, latest first, after `count` of `steps` steps.

    Entries for steps before the first are zeros.
    """

    x_hat: Float[Array, "3 h w c"]
    eps_hat: Float[Array, "3 h w c"]
    gamma: Float[Array, "3"]
    count: Int[Array, ""]
    steps: Int[Array, ""]

    def then(self, estimate: Estimate, gamma: Scalar) -> "History":
        """Returns the history after one more step."""
        x_hat, eps_hat, gammas = (
            jnp.concatenate([new[None], old[:-1]])
            for new, old in (
                (estimate.x_hat, self.x_hat),
                (estimate.eps_hat, self.eps_hat),
                (gamma, self.gamma),
            )
        )
        return History(x_hat, eps_hat, gammas, self.count + 1, self.steps)


class AbstractSampler(eqx.Module):
    """A sampler, which `draw` runs along a grid.

    Subclasses define a single step, and `noise_draws`, the number of normal draws that a step needs for each value.
    """

    noise_draws: eqx.AbstractVar[int]

    @abc.abstractmethod
    def step(
        self,
        denoise: Denoise,
        y_t: Image,
        gamma_t: Scalar,
        gamma_s: Scalar,
        history: History,
        noise: Float[Array, "n h w c"],
    ) -> tuple[Image, Estimate]:
        """Returns y_s at gamma_s < gamma_t for one image, and the estimate at y_t.

        At gamma_s = -inf, where there is no noise, y_s is the image.
        """


define_kind("sampler", "from noise to images along a grid of gammas", AbstractSampler)


def draw(
    model: DiffusionModel,
    sampler: AbstractSampler,
    grid: Float[Array, " n"],
    count: int,
    *,
    key: PRNGKeyArray,
    first: int = 0,
    guidance: Guidance | None = None,
    on_step: Callable[[Estimate], object] = lambda estimate: None,
) -> Real[Array, "count h w c"]:
    """Draws images first, ..., first + count - 1 of the infinite sequence defined by `key`.

    Args:
        model: The model.
        sampler: The sampler.
        grid: Gammas from the noisiest to gamma_0, optionally followed by -inf; see `AbstractGrid`.
        count: Number of images.
        key: Random key.
        first: Number of the first image.
        guidance: Labels of the images.
        on_step: Called after every step with the estimate at its start, of shape (count, ...).

    Raises:
        NonFiniteError: an image is not finite.
    """
    return draw_numbers(model, sampler, grid, first + jnp.arange(count), key=key, guidance=guidance, on_step=on_step)


def draw_numbers(
    model: DiffusionModel,
    sampler: AbstractSampler,
    grid: Float[Array, " n"],
    numbers: Int[Array, " count"],
    *,
    key: PRNGKeyArray,
    guidance: Guidance | None = None,
    on_step: Callable[[Estimate], object] = lambda estimate: None,
) -> Real[Array, "count h w c"]:
    """Draws the images with the given numbers, as `draw` does, on the devices that hold `numbers`."""
    keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(numbers)
    chain = _start(model, grid[0], keys, jnp.asarray(len(grid) - 1))

    def estimates() -> Iterator[Estimate]:
        nonlocal chain
        # One dispatch per step, because a convolution inside lax.scan is 16 times slower on CPU.
        for i in range(len(grid) - 1):
            if len(numbers.sharding.device_set) > 1:  # arrays that do not depend on the numbers may be elsewhere
                chain = jax.device_put(chain, numbers.sharding)
            chain, estimate = _step(model, sampler, chain, grid[i], grid[i + 1], keys, numbers, guidance)
            yield estimate

    for estimate in in_flight(estimates(), ahead=1):  # with 256 levels, an estimate takes hundreds of MB
        on_step(jax.block_until_ready(estimate))
    _refuse_not_finite(np.asarray(chain[0]), np.asarray(numbers))
    if jnp.isneginf(grid[-1]):
        return _nearest(model, chain[0])
    return _decode(model, chain[0], grid[-1], numbers, guidance)


def _refuse_not_finite(y: Float[np.ndarray, "count h w c"], numbers: Int[np.ndarray, " count"]) -> None:
    """Raises NonFiniteError if y is not finite or so large that its square overflows.

    This runs before decoding, which maps any values to levels.
    """
    with np.errstate(over="ignore"):
        bad = np.flatnonzero(~np.isfinite(y**2).all(axis=(1, 2, 3)))
    if len(bad):
        raise NonFiniteError(
            f"{len(bad)} of {len(y)} samples are not finite, the first of them number {numbers[bad[0]]}. Take more "
            "sampling.steps, of sampler ode more sampling.sampler.max_steps, or less sampling.guidance."
        )


def no_history(shape: tuple[int, int, int], steps: Int[Array, ""]) -> History:
    """Returns the history at the start of a chain."""
    zeros = jnp.zeros((MEMORY, *shape))
    return History(zeros, zeros, jnp.zeros(MEMORY), jnp.zeros((), int), steps)


@eqx.filter_jit
def _start(model: DiffusionModel, gamma_1: Array, keys: Array, steps: Array) -> tuple[Array, History]:
    """Draws z_1 ~ N(0, (alpha_1^2 + sigma_1^2) I), which is N(0, I) on the variance-preserving path."""
    scale = jnp.sqrt(1 + jnp.exp(gamma_1))

    def one(key: PRNGKeyArray) -> tuple[Array, History]:
        y = scale * jax.random.normal(fold_purpose(key, "prior"), model.shape)
        return y, no_history(model.shape, steps)

    return jax.vmap(one)(keys)


@eqx.filter_jit
def _step(
    model: DiffusionModel,
    sampler: AbstractSampler,
    chain: tuple[Array, History],
    gamma_t: Array,
    gamma_s: Array,
    keys: Array,
    numbers: Array,
    guidance: Guidance | None,
) -> tuple[tuple[Array, History], Estimate]:
    def one(y: Array, history: History, key: PRNGKeyArray, number: Array) -> tuple[tuple[Array, History], Estimate]:
        of_step = jax.random.fold_in(fold_purpose(key, "step"), history.count)
        noise = jax.random.normal(of_step, (sampler.noise_draws, *y.shape), y.dtype)
        y, estimate = sampler.step(_denoiser(model, guidance, number), y, gamma_t, gamma_s, history, noise)
        return (y, history.then(estimate, gamma_t)), estimate

    return jax.vmap(one)(*chain, keys, numbers)


@eqx.filter_jit
def _decode(model: DiffusionModel, y_0: Array, gamma_0: Array, numbers: Array, guidance: Guidance | None) -> Array:
    def one(y: Array, number: Array) -> Array:
        return model.observation.decode(y, gamma_0, lambda: _denoiser(model, guidance, number)(y, gamma_0))

    return jax.vmap(one)(y_0, numbers)


@eqx.filter_jit
def _nearest(model: DiffusionModel, x: Array) -> Array:
    """Decodes values without noise to the nearest image; gamma has no effect here."""
    return jax.vmap(lambda x: model.observation.decode(x, jnp.zeros(()), lambda: Estimate(x, jnp.zeros_like(x))))(x)


def _denoiser(model: DiffusionModel, guidance: Guidance | None, number: Array) -> Denoise:
    return denoiser_of(model) if guidance is None else guidance.denoiser(model, number)
