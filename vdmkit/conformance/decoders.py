# SPDX-License-Identifier: Apache-2.0
"""Checks that the probabilities of all images under a decoder p(x | z_0) sum to at most 1.

If the values of an image are independent given z_0, this is a sum over the levels of each. `log_probs` gives the terms;
without it, with log p(x) = sum_i f_i(x_i), the sum over the levels of value i with fixed other values is
S_i = log Z_i + log p - f_i, so that sum_i log Z_i = sum_i S_i - (d - 1) log p does not need the f_i.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Integer

from vdmkit.conformance.checking import compiled_fast, expect
from vdmkit.decoders import AbstractObservation
from vdmkit.errors import RecipeError
from vdmkit.predictions import Estimate
from vdmkit.schedules import Scalar

_EXCESS = 1e-4  # nats per value: 1.4e-4 bits/dim, more than float32 rounding of a sum over 256 levels
_ROUNDING = 1e-5  # rounding of log_prob, per value
_MOST_IMAGES = 70_000  # images that are enumerated: 2 values of 256 levels are 65,536
_MOST_CHANGES = 30_000  # changes of one value, for a decoder without `log_probs`
_SWAPS = 8


class Latent(eqx.Module):
    """An image, its latent z_0 / alpha_0, gamma_0, and a model's estimate there."""

    image: Integer[Any, "h w c"]
    z_0: Float[Any, "h w c"]
    gamma_0: Float[Any, ""]
    estimate: Estimate


def check_observation(observation: AbstractObservation) -> None:
    """Checks that probabilities of images of one and two values sum to at most 1, and that decoding inverts encoding.

    Raises:
        ConformanceError: one of these does not hold, or the data are continuous, whose densities are not integrated.
    """
    levels = observation.levels
    expect(levels > 0, "continuous: nothing to check here")
    image = jnp.full((1, 2, 1), levels // 2, jnp.uint8)
    x = observation.encode(image)
    latent = Latent(image, x, jnp.asarray(-4.0), _known(x))
    check_decoder(observation, latent)
    for width in (1, 2):
        if levels**width <= _MOST_IMAGES:
            total = float(_log_sum_of_all(observation, latent, width))
            _refuse_excess(total / width, f"the probabilities of all images of {width} value{'s' * (width > 1)}")


def check_decoder(observation: AbstractObservation, latent: Latent) -> bool:
    """Checks that probabilities of images at one latent sum to at most 1, and that decoding inverts encoding.

    Returns:
        Whether the sum could be checked: the values are independent given z_0, and `log_probs` gives their terms or
        they are few enough to enumerate.

    Raises:
        ConformanceError: a sum is above 1, `log_prob` differs from `log_probs`, levels are not evenly spaced by
            `spacing`, or decoding does not return the encoded image.
    """
    levels = observation.levels
    others = _other_image(latent.image, levels)
    swapped = np.random.default_rng(0).random((_SWAPS, *latent.image.shape)) < 0.5
    images = np.stack([latent.image, others, *_halves(latent.image, others, swapped)])
    found = _evaluated(observation, latent, images, has_log_probs(observation, latent))
    again, lattice, log_prob = map(np.asarray, found[:3])
    expect(bool((again == np.asarray(latent.image)).all()), "an image that is encoded is not decoded again")
    _check_spacing(lattice, observation.spacing)
    if found[3] is not None:
        _check_every_value(np.asarray(found[3]), images, log_prob)
        return True
    if latent.image.size * levels > _MOST_CHANGES or not _is_sum_over_values(log_prob, latent.image.size):
        return False
    total = float(np.asarray(_sums(observation, latent), np.float64).sum() - (latent.image.size - 1) * log_prob[0])
    _refuse_excess(total / latent.image.size, "the probabilities of its levels, over all values,")
    return True


def _known(x: Float[Array, "h w c"]) -> Estimate:
    """Returns an estimate equal to the data."""
    return Estimate(x, jnp.zeros_like(x), variance_share=jnp.full_like(x, 0.5))


def has_log_probs(observation: AbstractObservation, latent: Latent) -> bool:
    """Returns whether the observation provides the probabilities of the levels of each value."""
    try:
        eqx.filter_eval_shape(lambda o, at: o.log_probs(at.z_0, at.gamma_0, lambda: at.estimate), observation, latent)
    except RecipeError:
        return False
    return True


@compiled_fast
def _evaluated(
    observation: AbstractObservation, latent: Latent, images: Any, shows: bool
) -> tuple[Array, Array, Array, Array | None]:
    """Returns the decoded encoding of the image, the data of the levels, log p of the images, and log_probs or None."""
    x = observation.encode(latent.image)
    again = observation.decode(x, latent.gamma_0, lambda: _known(x))
    lattice = observation.encode(jnp.arange(observation.levels).astype(jnp.uint8).reshape(-1, 1, 1))
    at = latent.z_0, latent.gamma_0, lambda: latent.estimate
    log_probs = observation.log_probs(*at) if shows else None
    return again, lattice, jax.vmap(lambda image: observation.log_prob(image, *at))(images), log_probs


@compiled_fast
def _sums(observation: AbstractObservation, latent: Latent) -> Float[Array, " d"]:
    """Returns S_i of every value i."""
    levels = jnp.arange(observation.levels).astype(latent.image.dtype)

    def of_value(place: Array) -> Array:
        changed = jax.vmap(lambda level: jnp.asarray(latent.image).at[tuple(place)].set(level))(levels)
        at = latent.z_0, latent.gamma_0, lambda: latent.estimate
        return jax.nn.logsumexp(jax.vmap(lambda image: observation.log_prob(image, *at))(changed))

    return jax.lax.map(of_value, jnp.asarray(np.indices(latent.image.shape).reshape(3, -1).T))


@compiled_fast
def _log_sum_of_all(observation: AbstractObservation, latent: Latent, width: int) -> Scalar:
    """Returns the log of the sum of p over all images of `width` values."""
    every = np.stack(np.meshgrid(*[np.arange(observation.levels)] * width), -1).reshape(-1, 1, width, 1)
    y, estimate = jax.tree.map(lambda leaf: leaf[:, :width], (latent.z_0, latent.estimate))
    of_image: Callable[[Array], Array] = lambda image: observation.log_prob(image, y, latent.gamma_0, lambda: estimate)  # noqa: E731
    return jax.nn.logsumexp(jax.vmap(of_image)(jnp.asarray(every, jnp.uint8)))


def _other_image(image: Integer[Any, "h w c"], levels: int) -> Integer[np.ndarray, "h w c"]:
    """Changes every other value by only one level, so that float32 can distinguish log p of the two images."""
    given = np.asarray(image)
    changed = np.arange(given.size).reshape(given.shape) % 2 == 0
    neighbour = np.where(given > 0, given - 1, min(1, levels - 1))
    return np.where(changed, neighbour, given).astype(given.dtype)


def _halves(image: Array | np.ndarray, others: np.ndarray, swapped: np.ndarray) -> list[np.ndarray]:
    """Returns pairs of images in which some of the values are swapped."""
    pairs = [(np.where(half, image, others), np.where(half, others, image)) for half in swapped]
    return [one for pair in pairs for one in pair]


def _is_sum_over_values(log_prob: Float[np.ndarray, " n"], values: int) -> bool:
    """Returns whether log p is a sum over values, by swapping: f(A, B) + f(A', B') = f(A, B') + f(A', B)."""
    pairs = np.asarray(log_prob, np.float64).reshape(-1, 2).sum(1)
    return bool((abs(pairs - pairs[0]) < _ROUNDING * (values + abs(log_prob).max())).all())


def _check_every_value(
    log_probs: Float[np.ndarray, "h w c v"], images: Integer[np.ndarray, "n h w c"], log_prob: Float[np.ndarray, " n"]
) -> None:
    most = float(np.logaddexp.reduce(log_probs.astype(np.float64), axis=-1).max())
    _refuse_excess(most, "the probabilities of the levels of one value")
    index = images[..., None].astype(int)
    wanted = np.take_along_axis(log_probs[None], index, axis=-1).astype(np.float64).sum((1, 2, 3, 4))
    off = abs(log_prob - wanted)
    worst = int(np.nan_to_num(off, nan=np.inf).argmax())
    expect(
        off[worst] <= 10 * _ROUNDING * (images[0].size + abs(wanted[worst])),
        f"log_prob of an image is {log_prob[worst]:.6g} nats, and by its log_probs {wanted[worst]:.6g}",
    )


def _refuse_excess(log_sum: float, what: str) -> None:
    """Raises ConformanceError if `log_sum`, in nats per value, is positive beyond rounding."""
    too_low = log_sum / np.log(2)
    expect(log_sum < _EXCESS, f"{what} sum to more than 1: what it gives is {too_low:.4f} bits/dim too low")


def _check_spacing(lattice: Float[np.ndarray, "v 1 1"], spacing: float) -> None:
    steps = np.diff(lattice.ravel().astype(np.float64))
    off, found = abs(steps - spacing).max(initial=0.0), abs(steps).max(initial=0.0)
    expect(off < 1e-5, f"neighbouring levels lie up to {found:g} apart, and its spacing says {spacing:g}")
