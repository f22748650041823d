# SPDX-License-Identifier: Apache-2.0
"""The network's outputs as integers that other machines reproduce, for any number of images.

The rounded number is v + o / 17, with the first offset o of 0..16 such that no value of the image is within a margin
of halfway between integers. The encoder stores o. A decoder whose v differ by less than the margin rounds to the same
integers (the safeguard of arXiv 2410.09872); without it, about one value in 10^4 would round differently in float32.
The network is called in batches of two sizes, each compiled once.
"""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import ShapedArray
from jax.extend.core import Jaxpr, JaxprEqn
from jaxtyping import Array, Bool, Float, Int, Shaped

from vdmkit.errors import CodecError
from vdmkit.model import DiffusionModel
from vdmkit.process import Image
from vdmkit.sampling.sampler import denoiser_of
from vdmkit.schedules import Scalar
from vdmkit_codec.distributions import FINE, WEIGHT_BITS, exact_exp
from vdmkit_codec.layers import Layers

Precision = Literal["float64", "float32"]
_FEW = {"float64": 1, "float32": 8}  # images in a small batch
_FULL = {"float64": 0.75, "float32": 0.5}  # share of a batch above which it is filled up; files of float32 depend on it
_THREADS = ThreadPoolExecutor(os.cpu_count())  # a call on few images does not fill several cores
_ARRAY = object()  # where a form has an array


def in_precision(model: DiffusionModel, dtype: Precision) -> DiffusionModel:
    """Returns the model with parameters of this type."""
    with jax.enable_x64(True):
        return jax.tree.map(lambda leaf: leaf.astype(dtype) if eqx.is_inexact_array(leaf) else leaf, model)


@dataclass(frozen=True)
class _Form:
    """A model without its arrays. Models of equal forms share compiled functions."""

    structure: Any
    others: tuple[Any, ...]

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:  # every call of a compiled function computes it
        return hash((self.structure, self.others))

    def model(self, arrays: list[Array]) -> DiffusionModel:
        """Returns the model with these arrays."""
        given = iter(arrays)
        leaves = [next(given) if other is _ARRAY else other for other in self.others]
        return jax.tree.unflatten(self.structure, leaves)


def _parts(model: DiffusionModel) -> tuple[_Form, list[Array]]:
    """Returns the form of a model, and its arrays."""
    leaves, structure = jax.tree.flatten(model)
    others = tuple(_ARRAY if eqx.is_array(leaf) else leaf for leaf in leaves)
    return _Form(structure, others), [leaf for leaf in leaves if eqx.is_array(leaf)]


@partial(jax.jit, static_argnames=("kind", "form"))
def _integers(kind: str, form: _Form, arrays: list[Array], y: Any, offsets: Any, *of_step: Any) -> tuple[Array, Array]:
    """Returns the integers for latents of several images at one noise level, and whether they are guarded."""
    model = form.model(arrays)
    functions = {"gaussian": gaussian_shift, "mixture": mixture_weights, "levels": level_weights}

    def of_image(y: Array, offset: Array) -> tuple[Array, Array]:
        return functions[kind](model, Latent(y, *of_step, offset=offset))

    return jax.vmap(of_image)(y, offsets)


@partial(jax.jit, static_argnames="form")
def _x_hat(form: _Form, arrays: list[Array], y: Any, gamma: Any) -> Array:
    return jax.vmap(form.model(arrays).x_hat, in_axes=(0, None))(y, gamma)


@dataclass(frozen=True)
class Network:
    """The network's outputs as integers.

    Args:
        model: The model, from `in_precision` with `dtype`.
        layers: The steps.
        batch: Number of images in a call.
        dtype: Precision of the network.
    """

    model: DiffusionModel
    layers: Layers
    batch: int
    dtype: Precision

    @cached_property
    def _parts(self) -> tuple[_Form, list[Array]]:
        """Returns the form and the arrays, computed once instead of in each of hundreds of calls."""
        return _parts(self.model)

    @property
    def _few(self) -> int:
        return min(_FEW[self.dtype], self.batch)

    def without_padding(self, count: int) -> int:
        """Returns `count`, rounded down to full small batches if it exceeds one."""
        return count - count % self._few if count > self._few else count

    def encoded(self, k: Int[np.ndarray, "n h w c"], t: int) -> tuple[np.ndarray, Int[np.ndarray, " n"], np.ndarray]:
        """Returns the integers of each image, the offsets that guard them, and whether such offsets exist."""
        offsets = np.zeros(len(k), np.int64)
        integers, clear = self.decoded(k, t, offsets)
        for offset in range(1, OFFSETS):
            again = np.flatnonzero(~clear)
            if not len(again):
                break
            offsets[again] = offset
            integers[again], clear[again] = self.decoded(k[again], t, offsets[again])
        return integers, offsets, clear

    def decoded(
        self, k: Int[np.ndarray, "n h w c"], t: int, offsets: Int[np.ndarray, " n"]
    ) -> tuple[np.ndarray, Bool[np.ndarray, " n"]]:
        """Returns the integers of each image at these offsets, and whether they are guarded.

        They belong to step t, or to the observation for t = 0.
        """
        layers = self.layers
        kind = ("mixture" if layers.mixture else "gaussian") if t else "levels"
        scale = layers.s[t] * layers.c[t - 1] / layers.d[t - 1] * FINE
        margin = MARGIN if self.dtype == "float64" else 0.0  # float32 must agree to the last bit
        y = k * layers.d[t]

        def call(rows: np.ndarray) -> tuple[Array, ...]:
            some, *of_step = self._floats(y[rows], layers.gamma[t], scale, margin)
            return _integers(kind, *self._parts, some, offsets[rows], *of_step)

        integers, clear = self._in_batches(len(k), call)
        return integers, clear

    def x_hat(self, k: Int[np.ndarray, "n h w c"], t: int) -> Float[np.ndarray, "n h w c"]:
        """Returns the model's estimate of the images at y_t = k d_t."""
        y = k * self.layers.d[t]

        def call(rows: np.ndarray) -> tuple[Array, ...]:
            return (_x_hat(*self._parts, *self._floats(y[rows], self.layers.gamma[t])),)

        return self._in_batches(len(k), call)[0]

    def _in_batches(
        self, count: int, call: Callable[[Int[np.ndarray, " b"]], tuple[Array, ...]]
    ) -> list[Shaped[np.ndarray, "n ..."]]:
        """Returns the results for `count` images from calls of fixed size; the last call repeats some images."""
        batches, first = list[np.ndarray](), 0
        while first < count:
            size = self.batch if count - first > self.batch * _FULL[self.dtype] else self._few
            batches.append(np.resize(np.arange(first, min(first + size, count)), size))
            first += size

        def results(rows: np.ndarray) -> list[np.ndarray]:  # jaxtyping would take 0.1 ms in each call of this method
            with jax.enable_x64(True):  # the integers need 64 bits at any precision of the network
                return [np.array(array) for array in call(rows)]

        # float32 stays in this thread: JAX settings such as the precision of products are per thread
        several = len(batches) > 1 and self.dtype == "float64"
        parts = (_THREADS.map if several else map)(results, batches)
        return [np.concatenate(part)[:count] for part in zip(*parts, strict=True)]

    def _floats(self, *values: float | Float[np.ndarray, "..."]) -> list[Float[np.ndarray, "..."]]:
        return [np.asarray(value, self.dtype) for value in values]


OFFSETS = 17
MARGIN = 1e-10  # error of eps_hat and x_hat, and half that of log p(x_k | z_t): see `docs/compression.md`
PER_NAT = 64  # log probabilities are rounded to 1/64 nats, which costs 1e-5 nats per value and step
_NATS = 25  # log-probabilities are clipped at this distance below the largest
_EXP = np.rint(exact_exp(-np.arange(_NATS * PER_NAT + 1) / PER_NAT) * 2**30).astype(np.int64)


class Latent(NamedTuple):
    """y_t of an image, with the parameters of guarded rounding.

    Args:
        y: The latent y_t.
        gamma: Its gamma.
        scale: s_t c in parts of the cells of y_s.
        margin: Error of the network's estimates that the rounding tolerates.
        offset: The offset o, 0 .. 16.
    """

    y: Image
    gamma: Scalar
    scale: Scalar
    margin: Scalar
    offset: Int[Array, ""]


Guarded = tuple[Int[Array, "h w c *v"], Bool[Array, ""]]


def guarded_round(v: Float[Array, "*n"], offset: Int[Array, ""], margin: Scalar) -> Guarded:
    """Returns the rounded integers, and whether a change of v by the margin keeps them."""
    v = v.astype(float) + offset / OFFSETS
    clear = jnp.abs(v - jnp.floor(v) - 0.5) >= margin
    return jnp.rint(v).astype(int), clear.all()


def weights(log_probs: Float[Array, "h w c v"], offset: Int[Array, ""], margin: Scalar) -> Guarded:
    """Returns cumulative probabilities of the levels of each value, (h, w, c, V + 1), from 0 to 2^24."""
    below = log_probs.max(-1, keepdims=True) - log_probs
    rounded, clear = guarded_round(jnp.minimum(below, _NATS) * PER_NAT, offset, 2 * margin * PER_NAT)
    total = jnp.cumsum(jnp.asarray(_EXP)[jnp.clip(rounded, 0, len(_EXP) - 1)], axis=-1)
    cumulative = (total << WEIGHT_BITS) // total[..., -1:]
    return jnp.pad(cumulative, [(0, 0)] * 3 + [(1, 0)]).astype(jnp.int32), clear & jnp.isfinite(log_probs.max(-1)).all()


def gaussian_shift(model: DiffusionModel, at: Latent) -> Guarded:
    """Returns the mean of the Gaussian kernel minus y_t, -s_t c eps_hat, in parts; s_t c is `scale` parts."""
    eps_hat = denoiser_of(model)(at.y, at.gamma).eps_hat
    of_x_hat = jnp.maximum(1, jnp.exp(-at.gamma / 2))  # s_t eps_hat = y_t - x_hat has the error of eps_hat or x_hat
    return guarded_round(-at.scale * eps_hat, at.offset, at.margin * at.scale * of_x_hat)


def mixture_weights(model: DiffusionModel, at: Latent) -> Guarded:
    """Returns the weights p(x_k | y_t)."""
    log_probs = denoiser_of(model)(at.y, at.gamma).log_probs
    if log_probs is None:
        raise CodecError("its kernel is the mixture, which needs a model that predicts probabilities of levels")
    return weights(log_probs, at.offset, at.margin)


def level_weights(model: DiffusionModel, at: Latent) -> Guarded:
    """Returns the observation's weights p(x_k | y_0)."""
    log_probs = model.observation.log_probs(at.y, at.gamma, lambda: model.estimate(at.y, at.gamma))
    return weights(log_probs, at.offset, at.margin)


def narrows(model: DiffusionModel) -> bool:
    """Returns whether the path from float64 latents to coded probabilities contains a narrower float."""

    def outputs(model: DiffusionModel, y: Image, gamma: Scalar) -> tuple:
        observed = model.observation.log_probs(y, gamma, lambda: model.estimate(y, gamma))
        return observed, model.denoise(model.path.alpha(gamma) * y, gamma, {})

    with jax.enable_x64(True):
        wide = in_precision(model, "float64")
        traced, *_ = eqx.filter_make_jaxpr(outputs)(wide, jnp.zeros(model.shape, float), jnp.zeros((), float))
    return any(_is_narrowing(equation) for equation in _equations(traced.jaxpr))


def _equations(jaxpr: Jaxpr) -> Iterator[JaxprEqn]:
    """Yields the equations, including those of called functions."""
    for equation in jaxpr.eqns:
        yield equation
        for leaf in jax.tree.leaves(list(equation.params.values())):
            inner = getattr(leaf, "jaxpr", leaf)
            if isinstance(inner, Jaxpr):
                yield from _equations(inner)


def _is_narrowing(equation: JaxprEqn) -> bool:
    wide = np.dtype(np.float64)
    given, made = (
        {var.aval.dtype for var in some if isinstance(var.aval, ShapedArray)}
        for some in (equation.invars, equation.outvars)
    )
    return wide in given and any(jnp.issubdtype(kind, jnp.floating) and kind != wide for kind in made)
