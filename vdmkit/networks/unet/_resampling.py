# SPDX-License-Identifier: Apache-2.0
"""Halving and doubling the resolution: by a filter, and by a convolution of stride 2. Pixelss are (h, w, c)."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from vdmkit.networks._layers import LECUN_NORMAL, Conv, _operand

Pixels = Float[Array, "_ _ _"]
"""An image (h, w, c) of any size, also beside another of another size."""

Taps = tuple[float, ...]
"""A filter in one dimension, of even length, up to its sum. (1, 1) is the mean of 2x2 pixels, and the nearest pixel;
(1, 3, 3, 1) is that of StyleGAN2 (Karras et al. 2020, arXiv 1912.04958)."""

Along = Callable[[Pixels, Taps, int], Pixels]


def downsample(x: Pixels, taps: Taps) -> Pixels:
    """Returns every second pixel of x filtered by the outer product of the taps, whose sum is made 1."""
    return _both(_halved, x, taps)


def upsample(x: Pixels, taps: Taps) -> Pixels:
    """Returns x with zeros between its pixels, filtered by the outer product of the taps, whose sum is made 2."""
    return _both(_doubled, x, taps)


def smooth(x: Pixels, taps: Taps) -> Pixels:
    """Returns x filtered by the taps, whose sum is made 1, without padding: it loses a pixel less than it has taps."""
    return _both(_filtered, x, taps)


def _both(along: Along, x: Pixels, taps: Taps) -> Pixels:
    scaled = tuple(np.divide(taps, sum(taps)).tolist())
    return along(along(x, scaled, 0), scaled, 1)


def _halved(x: Pixels, taps: Taps, axis: int) -> Pixels:
    beyond = len(taps) // 2 - 1
    size = x.shape[axis]
    x = _padded(x, beyond, beyond, axis)
    return _total(tap * _slice(x, k, k + size - 1, 2, axis) for k, tap in enumerate(taps))


def _doubled(x: Pixels, taps: Taps, axis: int) -> Pixels:
    """Each of the two phases of the output meets every second tap, so the zeros are never made."""
    reach, size = len(taps) // 2, x.shape[axis]
    x = _padded(x, reach // 2, reach // 2, axis)

    def phase(odd: int) -> Pixels:
        met = range((odd + reach) % 2, len(taps), 2)
        starts = [(odd + k - reach) // 2 + reach // 2 for k in met]
        return _total(2 * taps[k] * _slice(x, at, at + size, 1, axis) for k, at in zip(met, starts, strict=True))

    both = jnp.stack([phase(0), phase(1)], axis=axis + 1)
    return both.reshape(*x.shape[:axis], 2 * size, *x.shape[axis + 1 :])


def _filtered(x: Pixels, taps: Taps, axis: int) -> Pixels:
    size = x.shape[axis] - len(taps) + 1
    return _total(tap * _slice(x, k, k + size, 1, axis) for k, tap in enumerate(taps))


def _total(terms) -> Pixels:
    first, *others = terms
    for one in others:
        first = first + one
    return first


def _padded(x: Pixels, before: int, after: int, axis: int) -> Pixels:
    return jnp.pad(x, [(before, after) if i == axis else (0, 0) for i in range(x.ndim)]) if before + after else x


def _slice(x: Pixels, start: int, stop: int, step: int, axis: int) -> Pixels:
    return jax.lax.slice_in_dim(x, start, stop, step, axis)


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
    """Every pixel becomes four, and a 3x3 convolution follows."""

    conv: Conv

    def __init__(self, channels: int, key: PRNGKeyArray):
        self.conv = Conv(channels, channels, key)

    def __call__(self, x: Float[Array, "h w c"]) -> Float[Array, "2*h 2*w c"]:
        return self.conv(upsample(x, (1.0, 1.0)))
