# SPDX-License-Identifier: Apache-2.0
"""Layers that several networks share: convolution, normalisation, attention, resampling, and embeddings of gamma.

Images are (h, w, c), and nothing is batched.
"""

from collections.abc import Callable, Iterator
from typing import Annotated, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from annotated_types import Ge, Le, Lt
from jaxtyping import Array, Bool, Float, Int32, PRNGKeyArray

from vdmkit.errors import RecipeError
from vdmkit.networks.network import Condition
from vdmkit.process import Image
from vdmkit.schedules import Scalar

LECUN_NORMAL = jax.nn.initializers.lecun_normal()
"""Normal of variance 1 / fan-in, truncated at two standard deviations and rescaled: Flax's default."""

ZEROS = jax.nn.initializers.zeros
"""For the last layer of a residual branch, so that an untrained network is the identity."""

EPSILON = 1e-6
"""Flax's default and the authors'; other frameworks use 1e-5, which does not reproduce their numbers."""

FOURIER_SCALE = 16.0
"""Standard deviation of the frequencies of NCSN++."""

MAX_CHANNELS = 16_384
Blocks = Annotated[int, Ge(1), Le(256)]
Dropout = Annotated[float, Ge(0), Lt(1)]

Pixels = Float[Array, "_ _ _"]
"""An image (h, w, c) whose sizes are not compared with those of other images."""

DropoutMask = Bool[Array, "_ _ _"] | None
"""True where dropout keeps an activation; None if it keeps all."""

Taps = tuple[float, ...]
"""A filter in one dimension, of even length, up to its sum. (1, 1) averages 2x2 pixels, or repeats each pixel;
(1, 3, 3, 1) is StyleGAN2's (Karras et al. 2020, arXiv 1912.04958)."""


class Dense(eqx.Module):
    """x @ kernel + bias. On an image this is a 1x1 convolution."""

    kernel: Float[Array, "i o"]
    bias: Float[Array, " o"] | None

    def __init__(
        self,
        inputs: int,
        outputs: int,
        key: PRNGKeyArray,
        *,
        initializer: jax.nn.initializers.Initializer = LECUN_NORMAL,
        use_bias: bool = True,
    ):
        self.kernel = initializer(key, (inputs, outputs))
        self.bias = jnp.zeros(outputs) if use_bias else None

    def __call__(self, x: Float[Array, "*n i"]) -> Float[Array, "*n o"]:
        y = _operand(x, self.kernel) @ self.kernel
        return y if self.bias is None else y + self.bias


class Conv(eqx.Module):
    """A 3x3 convolution on one image (h, w, c), stride 1, zero padding to the same size.

    The layout is channels-last because `jax.vmap` then merges a batch into one NHWC convolution, which
    XLA runs about twice as fast as NCHW on a CPU.
    """

    kernel: Float[Array, "3 3 i o"]
    bias: Float[Array, " o"]

    def __init__(
        self,
        inputs: int,
        outputs: int,
        key: PRNGKeyArray,
        *,
        initializer: jax.nn.initializers.Initializer = LECUN_NORMAL,
    ):
        self.kernel = initializer(key, (3, 3, inputs, outputs))
        self.bias = jnp.zeros(outputs)

    def __call__(self, x: Float[Array, "h w i"], dtype: jnp.dtype | None = None) -> Float[Array, "h w o"]:
        """Returns the convolution, in the type `dtype` if it is given and else in that of the operands."""
        y = jax.lax.conv_general_dilated(
            _operand(x, self.kernel)[None],
            self.kernel,
            (1, 1),
            "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            preferred_element_type=dtype,
        )
        return y[0] + self.bias


class GroupNorm(eqx.Module):
    """Mean 0 and variance 1 over (h, w, channels of a group), then a scale and a bias per channel.

    Wu and He 2018, arXiv 1803.08494.
    """

    scale: Float[Array, " c"]
    bias: Float[Array, " c"]
    groups: int = eqx.field(static=True)
    epsilon: float = eqx.field(static=True)

    def __init__(self, channels: int, groups: int, epsilon: float = EPSILON):
        self.scale = jnp.ones(channels)
        self.bias = jnp.zeros(channels)
        self.groups = groups
        self.epsilon = epsilon

    def __call__(self, x: Image) -> Image:
        wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))  # sums in bfloat16 lose precision
        mean, square = (self._group_mean(values) for values in (wide, jnp.square(wide)))
        # The mean of squares, as in Flax, takes one pass over x, and keeps its gradient apart from the residual sums.
        variance = jnp.maximum(square - jnp.square(mean), 0)
        return ((wide - mean) * (self.scale * jax.lax.rsqrt(variance + self.epsilon)) + self.bias).astype(x.dtype)

    def _group_mean(self, x: Image) -> Float[Array, " c"]:
        """Returns, for each channel, the mean over the pixels and channels of its group."""
        size = x.shape[-1] // self.groups
        return jnp.repeat(jnp.mean(x.reshape(-1, self.groups, size), axis=(0, 2)), size)


class Attention(eqx.Module):
    """Self-attention over all pixels of one image, as a residual layer that starts as the identity.

    x + proj_out(softmax(q k^T / sqrt(head size)) v), with q, k and v from a group-normalised x.
    """

    norm: GroupNorm
    q: Dense
    k: Dense
    v: Dense
    proj_out: Dense
    heads: int = eqx.field(static=True)

    def __init__(self, channels: int, key: PRNGKeyArray, *, groups: int, heads: int = 1):
        q_key, k_key, v_key, out_key = jax.random.split(key, 4)
        self.norm = GroupNorm(channels, groups)
        self.q = Dense(channels, channels, q_key)
        self.k = Dense(channels, channels, k_key)
        self.v = Dense(channels, channels, v_key)
        self.proj_out = Dense(channels, channels, out_key, initializer=ZEROS)
        self.heads = heads

    def __call__(self, x: Image) -> Image:
        n = self.norm(x).reshape(-1, x.shape[-1])
        q, k, v = (layer(n).reshape(len(n), self.heads, -1) for layer in (self.q, self.k, self.v))
        return x + self.proj_out(attend(q, k, v).reshape(x.shape))


def attend(
    q: Float[Array, "n heads size"], k: Float[Array, "n heads size"], v: Float[Array, "n heads size"]
) -> Float[Array, "n heads size"]:
    """Computes dot-product attention; `jax.nn.dot_product_attention` has a float32 softmax even for float64."""
    wide = jnp.promote_types(q.dtype, jnp.float32)
    # Tokens are the last axis of keys and values, so that the gradient transposes these and not the matrix of weights.
    k, v = (jnp.transpose(x, (1, 2, 0)) for x in (k, v))
    logits = jnp.einsum("tnh,nhs->nts", q * (q.shape[-1] ** -0.5), k, preferred_element_type=wide)
    return jnp.einsum("nts,nhs->tnh", jax.nn.softmax(logits).astype(v.dtype), v)


class ConvDown(eqx.Module):
    """A 3x3 convolution of stride 2, after a filter if there are `taps`.

    DDPM pads below and on the right, `padding` (0, 1); iDDPM on all sides, (1, 1).
    """

    kernel: Float[Array, "3 3 i o"]
    bias: Float[Array, " o"]
    taps: Taps | None = eqx.field(static=True)
    padding: tuple[int, int] = eqx.field(static=True)

    def __init__(
        self, inputs: int, outputs: int, key: PRNGKeyArray, *, padding: tuple[int, int], taps: Taps | None = None
    ):
        self.kernel = LECUN_NORMAL(key, (3, 3, inputs, outputs))
        self.bias = jnp.zeros(outputs)
        self.taps, self.padding = taps, padding

    @classmethod
    def filtered(cls, inputs: int, outputs: int, key: PRNGKeyArray, *, taps: Taps) -> "ConvDown":
        """Returns the convolution after a filter, padded so that the output has half of the size."""
        pad = len(taps) // 2
        return cls(inputs, outputs, key, padding=(pad, pad), taps=taps)

    def __call__(self, x: Float[Array, "h w i"]) -> Float[Array, "h//2 w//2 o"]:
        padding = [self.padding, self.padding]
        if self.taps:
            x, padding = smooth(jnp.pad(x, [*padding, (0, 0)]), self.taps), "VALID"
        y = jax.lax.conv_general_dilated(
            _operand(x, self.kernel)[None], self.kernel, (2, 2), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return y[0] + self.bias


class ConvUp(eqx.Module):
    """Nearest-neighbour upsampling by 2, then a 3x3 convolution."""

    conv: Conv

    def __init__(self, channels: int, key: PRNGKeyArray):
        self.conv = Conv(channels, channels, key)

    def __call__(self, x: Float[Array, "h w c"]) -> Float[Array, "2*h 2*w c"]:
        return self.conv(upsample(x, (1.0, 1.0)))


def downsample(x: Pixels, taps: Taps) -> Pixels:
    """Returns every second pixel of x filtered by the outer product of the taps, which are normalised to sum 1."""
    return _both(_halved, x, taps)


def upsample(x: Pixels, taps: Taps) -> Pixels:
    """Inserts zeros between the pixels of x and filters by the outer product of the taps, normalised to sum 2."""
    return _both(_doubled, x, taps)


def smooth(x: Pixels, taps: Taps) -> Pixels:
    """Filters x by the taps, normalised to sum 1, without padding: n taps remove n - 1 pixels."""
    return _both(_filtered, x, taps)


def _both(along: Callable[[Pixels, Taps, int], Pixels], x: Pixels, taps: Taps) -> Pixels:
    scaled = tuple(np.divide(taps, sum(taps)).tolist())
    return along(along(x, scaled, 0), scaled, 1)


def _halved(x: Pixels, taps: Taps, axis: int) -> Pixels:
    beyond = len(taps) // 2 - 1
    size = x.shape[axis]
    x = _padded(x, beyond, beyond, axis)
    return _total(tap * _slice(x, k, k + size - 1, 2, axis) for k, tap in enumerate(taps))


def _doubled(x: Pixels, taps: Taps, axis: int) -> Pixels:
    """Upsamples one axis; each of the two output phases uses every second tap, so no zeros are written."""
    reach, size = len(taps) // 2, x.shape[axis]
    x = _padded(x, reach // 2, reach // 2, axis)

    def phase(odd: int) -> Pixels:
        used = range((odd + reach) % 2, len(taps), 2)
        starts = [(odd + k - reach) // 2 + reach // 2 for k in used]
        return _total(2 * taps[k] * _slice(x, at, at + size, 1, axis) for k, at in zip(used, starts, strict=True))

    both = jnp.stack([phase(0), phase(1)], axis=axis + 1)
    return both.reshape(*x.shape[:axis], 2 * size, *x.shape[axis + 1 :])


def _filtered(x: Pixels, taps: Taps, axis: int) -> Pixels:
    size = x.shape[axis] - len(taps) + 1
    return _total(tap * _slice(x, k, k + size, 1, axis) for k, tap in enumerate(taps))


def _total(terms: Iterator[Pixels]) -> Pixels:
    first, *others = terms
    for one in others:
        first = first + one
    return first


def _padded(x: Pixels, before: int, after: int, axis: int) -> Pixels:
    return jnp.pad(x, [(before, after) if i == axis else (0, 0) for i in range(x.ndim)]) if before + after else x


def _slice(x: Pixels, start: int, stop: int, step: int, axis: int) -> Pixels:
    return jax.lax.slice_in_dim(x, start, stop, step, axis)


class Conditioning(eqx.Module):
    """Two dense layers on a sinusoidal embedding of gamma and on the flag `condition["augmented"]` (default 0).

    gamma is rescaled by the constant ends of the recipe, so that the network stays a function of gamma
    when a learned schedule moves its own ends.
    """

    dense0: Dense
    dense1: Dense
    gamma_range: tuple[float, float] = eqx.field(static=True)

    def __init__(self, embedding: int, width: int, gamma_range: tuple[float, float], key: PRNGKeyArray):
        key0, key1 = jax.random.split(key)
        self.dense0 = Dense(embedding + 1, width, key0)
        self.dense1 = Dense(width, width, key1)
        self.gamma_range = gamma_range

    def __call__(self, gamma: Scalar, condition: Condition) -> Float[Array, " width"]:
        low, high = self.gamma_range
        augmented = jnp.asarray(condition.get("augmented", 0.0), gamma.dtype)
        embedding = sinusoid((gamma - low) / (high - low), self.dense0.kernel.shape[0] - 1)
        hidden = jax.nn.silu(self.dense0(jnp.append(embedding, augmented)))
        return jax.nn.silu(self.dense1(hidden))


def sinusoid(tau: Scalar, size: int) -> Float[Array, " size"]:
    """Returns sines, then cosines, of 1000 tau at size / 2 geometric frequencies from 1 down to 1/10000."""
    frequencies = np.geomspace(1, 1e-4, size // 2)
    angles = 1000 * tau * frequencies.astype(tau.dtype)
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)])


class PositionalFeatures(eqx.Module):
    """Sines and cosines of the noise embedding at frequencies 10000^(-i / (n - shift)), i < n (arXiv 1706.03762).

    DDPM has sines first and shift 1, so that the last frequency is 1/10000; ADM has cosines first and shift 0.
    """

    size: int = eqx.field(static=True)
    cosines_first: bool = eqx.field(static=True)
    shift: int = eqx.field(static=True)

    def __call__(self, level: Scalar) -> Float[Array, " size"]:
        half = self.size // 2
        frequencies = 10_000.0 ** (-np.arange(half) / max(half - self.shift, 1))
        angles = level * frequencies.astype(level.dtype)
        sines, cosines = jnp.sin(angles), jnp.cos(angles)
        return jnp.concatenate([cosines, sines] if self.cosines_first else [sines, cosines])


class FourierFeatures(eqx.Module):
    """Sines, then cosines of 2 pi w level with fixed random frequencies w ~ N(0, 16^2) (arXiv 2006.10739).

    `bits` holds the float32 bit patterns of w as integers, so that w is not trained, averaged or rounded to bfloat16.
    """

    bits: Int32[Array, " n"]

    def __init__(self, size: int, key: PRNGKeyArray):
        frequencies = FOURIER_SCALE * jax.random.normal(key, (size // 2,), jnp.float32)
        self.bits = jax.lax.bitcast_convert_type(frequencies, jnp.int32)

    def __call__(self, level: Scalar) -> Float[Array, " size"]:
        frequencies = jax.lax.bitcast_convert_type(self.bits, jnp.float32).astype(level.dtype)
        angles = 2 * np.pi * frequencies * level
        return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)])


class Embedding(eqx.Module):
    """Two dense layers on the features of the noise level, with a swish after each.

    Side information is added: the class, a vector that is one-hot (or zero, for unknown), to the features or to the
    output of the second layer, and EDM's parameters of augmentation to the features.
    """

    features: PositionalFeatures | FourierFeatures
    dense0: Dense
    dense1: Dense
    label: Dense | None
    augment: Dense | None
    label_at: str = eqx.field(static=True)

    def __init__(
        self,
        features: PositionalFeatures | FourierFeatures,
        size: int,
        width: int,
        key: PRNGKeyArray,
        *,
        labels: int,
        label_at: Literal["features", "output"],
        augment: int,
    ):
        keys = jax.random.split(key, 4)
        self.features = features
        self.dense0, self.dense1 = Dense(size, width, keys[0]), Dense(width, width, keys[1])
        at_features = label_at == "features"
        self.label = Dense(labels, size if at_features else width, keys[2], use_bias=at_features) if labels else None
        self.augment = Dense(augment, size, keys[3], use_bias=False) if augment else None
        self.label_at = label_at

    @property
    def labels(self) -> int:
        """Number of classes, 0 for an unconditional network."""
        return 0 if self.label is None else self.label.kernel.shape[0]

    def __call__(
        self, level: Scalar, classes: Float[Array, " k"] | None, augment: Float[Array, " a"] | None
    ) -> Float[Array, " width"]:
        h = self.features(level)
        known = jnp.zeros(self.labels, h.dtype) if classes is None else classes.astype(h.dtype)
        if self.label is not None and self.label_at == "features":
            h = h + self.label(known * self.labels**0.5)  # every entry has variance 1
        if self.augment is not None and augment is not None:
            h = h + self.augment(augment)
        h = self.dense1(jax.nn.silu(self.dense0(h)))
        if self.label is not None and self.label_at == "output":
            h = h + self.label(known)
        return jax.nn.silu(h)


def values_per_pixel(h: Float[Array, "h w ck"], z: Image) -> Float[Array, "h w c k"]:
    """Splits the channels of the last layer into c times k, and adds z if k = 1.

    With a zero last layer the untrained network then predicts eps_hat = z, the best estimate at high noise levels
    (Kingma et al. 2021, authors' code). For k > 1 the prediction supplies the starting point.
    """
    values = h.reshape(*z.shape, -1)
    return values + z[..., None] if values.shape[-1] == 1 else values


def check_channels(channels: int, groups: int) -> None:
    """Raises RecipeError unless the channels divide into `groups` equal groups."""
    if channels < groups or channels % groups:
        near = max(1, round(channels / groups)) * groups
        raise RecipeError(f"channels = {channels}: expected a positive multiple of {groups}, such as {near}.")


def _operand(x: Float[Array, "*n"], kernel: Float[Array, "*m"]) -> Float[Array, "*n"]:
    """Casts x to the kernel's type if that is narrower than float32; otherwise the types are promoted as usual."""
    return x.astype(kernel.dtype) if jnp.finfo(kernel.dtype).bits < 32 else x
