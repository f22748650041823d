# SPDX-License-Identifier: Apache-2.0
"""The paper's U-Net, layer by layer as in the authors' code (Kingma et al. 2021, arXiv 2107.00630v6, appendix B)."""

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from annotated_types import Ge, Le, MultipleOf
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from vdmkit.networks.layers import (
    MAX_CHANNELS,
    ZEROS,
    Attention,
    Blocks,
    Conditioning,
    Conv,
    Dense,
    Dropout,
    DropoutMask,
    GroupNorm,
    check_channels,
    values_per_pixel,
)
from vdmkit.networks.network import AbstractNetwork, Condition
from vdmkit.process import Image
from vdmkit.registry import register
from vdmkit.schedules import Scalar

GROUPS = 32

FREQUENCIES = (64, 128)
"""Frequencies in cycles per unit of z. On clean data the first distinguishes odd from even levels."""

Layer = TypeVar("Layer", bound=eqx.Module)
Own = TypeVar("Own")


@register("network", "vdm_unet")
class VDMUNet(AbstractNetwork):
    """The paper's U-Net: every block at full resolution, conditioned on gamma, with Fourier features.

    There are `blocks` down stages and `blocks` + 1 up stages with skip connections. Attention is in the middle, and
    with `attention` after every block. With `remat`, training recomputes the activations inside each stage for the
    gradient, instead of keeping them. With `scan`, the stages of each side are one compiled loop. This is meant for
    accelerators: on CPU a convolution in a compiled loop is 16 times slower than outside.
    """

    conditioning: Conditioning
    conv_in: Conv
    down: "tuple[VDMStage, ...]"
    mid: "tuple[VDMStage, VDMStage]"
    up: "tuple[VDMStage, ...]"
    norm_out: GroupNorm
    conv_out: Conv
    fourier: bool = eqx.field(static=True)
    remat: bool = eqx.field(static=True)
    scan: bool = eqx.field(static=True)

    def __init__(
        self,
        shape: tuple[int, int, int],
        outputs: int,
        gamma_range: tuple[float, float],
        key: PRNGKeyArray,
        *,
        channels: Annotated[int, Ge(GROUPS), Le(MAX_CHANNELS), MultipleOf(GROUPS)] = 128,
        blocks: Blocks = 32,
        attention: bool = False,
        fourier: bool = True,
        dropout: Dropout = 0.1,
        remat: bool = False,
        scan: bool = False,
    ):
        check_channels(channels, GROUPS)
        width = 4 * channels
        depth = shape[-1]
        keys = iter(jax.random.split(key, 2 * blocks + 6))

        def stage(inputs: int, attention: bool) -> VDMStage:
            return VDMStage(inputs, channels, width, next(keys), groups=GROUPS, dropout=dropout, attention=attention)

        self.conditioning = Conditioning(channels, width, gamma_range, next(keys))
        self.conv_in = Conv(depth * (1 + 2 * len(FREQUENCIES)) if fourier else depth, channels, next(keys))
        self.down = tuple(stage(channels, attention) for _ in range(blocks))
        self.mid = (stage(channels, True), stage(channels, False))
        self.up = tuple(stage(2 * channels, attention) for _ in range(blocks + 1))
        self.norm_out = GroupNorm(channels, GROUPS)
        self.conv_out = Conv(channels, depth * outputs, next(keys), initializer=ZEROS)
        self.fourier = fourier
        self.remat, self.scan = remat, scan

    def __call__(
        self,
        z: Image,
        gamma: Scalar,
        condition: Condition,
        *,
        key: PRNGKeyArray | None = None,
    ) -> Float[Array, "h w c k"]:
        cond = self.conditioning(gamma, condition)
        h = self.conv_in(with_fourier_features(z) if self.fourier else z)
        masks = self._dropout_masks(h.shape, key)

        def apply(stage: VDMStage, h: Float[Array, "h w i"], kept: DropoutMask) -> Image:
            return (eqx.filter_checkpoint(stage) if self.remat else stage)(h, cond, kept)

        def with_skip(stage: VDMStage, h: Image, own: tuple[Image, DropoutMask]) -> Image:
            skip, kept = own
            return apply(stage, jnp.concatenate([h, skip], axis=-1), kept)

        over = _scanned_over if self.scan else _one_by_one
        skips = [h, *over(self.down, apply, h, [next(masks) for _ in self.down])]
        h = skips[-1]
        for stage in self.mid:
            h = apply(stage, h, next(masks))
        h = over(self.up, with_skip, h, [(skips.pop(), next(masks)) for _ in self.up])[-1]
        h = self.conv_out(jax.nn.silu(self.norm_out(h)), z.dtype)
        return values_per_pixel(h, z)

    def _dropout_masks(self, shape: tuple[int, ...], key: PRNGKeyArray | None) -> Iterator[DropoutMask]:
        """Draws the mask of each stage in a loop: XLA would repeat a single draw at each use."""
        dropout, stages = self.mid[0].block.dropout, len(self.down) + len(self.mid) + len(self.up)
        if key is None or dropout == 0:
            return itertools.repeat(None)
        draw = functools.partial(jax.random.bernoulli, p=1 - dropout, shape=shape)
        return iter(jax.lax.map(draw, jax.random.split(key, stages)))


class VDMStage(eqx.Module):
    """A residual block, then optional attention."""

    block: "ResidualBlock"
    attention: Attention | None

    def __init__(
        self, inputs: int, outputs: int, width: int, key: PRNGKeyArray, *, groups: int, dropout: float, attention: bool
    ):
        block_key, attention_key = jax.random.split(key)
        self.block = ResidualBlock(inputs, outputs, width, block_key, groups=groups, dropout=dropout)
        self.attention = Attention(outputs, attention_key, groups=groups) if attention else None

    def __call__(
        self, x: Float[Array, "h w i"], cond: Float[Array, " width"], kept: DropoutMask
    ) -> Float[Array, "h w o"]:
        h = self.block(x, cond, kept)
        return h if self.attention is None else self.attention(h)


class ResidualBlock(eqx.Module):
    """The paper's residual block: two convolutions with the conditioning vector added between them.

    Untrained, it returns the shortcut only. Dropout keeps the activations selected by `kept`; None keeps all of them.
    """

    norm1: GroupNorm
    conv1: Conv
    cond_proj: Dense
    norm2: GroupNorm
    conv2: Conv
    shortcut: Dense | None
    dropout: float = eqx.field(static=True)

    def __init__(self, inputs: int, outputs: int, width: int, key: PRNGKeyArray, *, groups: int, dropout: float):
        key1, cond_key, key2, shortcut_key = jax.random.split(key, 4)
        self.norm1 = GroupNorm(inputs, groups)
        self.conv1 = Conv(inputs, outputs, key1)
        self.cond_proj = Dense(width, outputs, cond_key, initializer=ZEROS, use_bias=False)
        self.norm2 = GroupNorm(outputs, groups)
        self.conv2 = Conv(outputs, outputs, key2, initializer=ZEROS)
        self.shortcut = Dense(inputs, outputs, shortcut_key) if inputs != outputs else None
        self.dropout = dropout

    def __call__(
        self, x: Float[Array, "h w i"], cond: Float[Array, " width"], kept: DropoutMask
    ) -> Float[Array, "h w o"]:
        h = self.conv1(jax.nn.silu(self.norm1(x))) + self.cond_proj(cond)
        h = jax.nn.silu(self.norm2(h))
        h = h if kept is None else jnp.where(kept, h / (1 - self.dropout), 0)
        return self.conv2(h) + (x if self.shortcut is None else self.shortcut(x))


def with_fourier_features(z: Image) -> Float[Array, "h w 5*c"]:
    """Returns z, then the sine and then the cosine of 2 pi f z for every channel and, within it, every f.

    They expose details as fine as one level of 256 (Kingma et al. 2021, arXiv 2107.00630v6, appendix C). The arguments
    reach 2 pi 128 |z|, so they are computed in float32 at least: lower precision loses the phase.
    """
    angular = np.array(FREQUENCIES) * 2 * np.pi
    wide = z.astype(jnp.promote_types(z.dtype, jnp.float32))
    angles = (wide[..., None] * angular.astype(wide.dtype)).reshape(*z.shape[:-1], -1)
    return jnp.concatenate([z, jnp.sin(angles), jnp.cos(angles)], axis=-1)


def _one_by_one(
    layers: Sequence[Layer], apply: Callable[[Layer, Array, Own], Array], h: Array, own: Sequence[Own]
) -> list[Array]:
    """Returns the outputs of all layers, where each is `apply(layer, previous output, the layer's entry of own)`."""
    outputs = []
    for layer, one in zip(layers, own, strict=True):
        h = apply(layer, h, one)
        outputs.append(h)
    return outputs


def _scanned_over(
    layers: Sequence[Layer], apply: Callable[[Layer, Array, Own], Array], h: Array, own: Sequence[Own]
) -> list[Array]:
    """Does the same as `_one_by_one` in a compiled loop, so the program does not grow with the number of layers."""
    arrays, static = zip(*(eqx.partition(layer, eqx.is_array) for layer in layers), strict=True)

    def stacked(trees: Sequence[PyTree]) -> PyTree:
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)

    def body(h: Array, each: tuple[Any, Any]) -> tuple[Array, Array]:
        layer, one = each
        h = apply(eqx.combine(layer, static[0]), h, one)
        return h, h

    _, outputs = jax.lax.scan(body, h, (stacked(arrays), stacked(own)))
    return list(outputs)
