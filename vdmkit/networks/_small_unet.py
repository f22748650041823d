# SPDX-License-Identifier: Apache-2.0
"""A small U-Net with one halving of the resolution, made for small images on a CPU."""

from typing import Annotated

import jax
import jax.numpy as jnp
from annotated_types import Ge, Le, MultipleOf
from jaxtyping import Array, Float, PRNGKeyArray

from vdmkit.errors import RecipeError
from vdmkit.networks._checks import MOST_CHANNELS, Dropout, check_channels
from vdmkit.networks._embedding import Conditioning
from vdmkit.networks._layers import ZEROS, Attention, Conv, Dense, GroupNorm, ModulatedBlock, values_per_pixel
from vdmkit.networks._network import AbstractNetwork, Condition
from vdmkit.process import Image
from vdmkit.registry import register
from vdmkit.schedules import Scalar

GROUPS = 8
HEADS = 2


@register("network", "small_unet")
class SmallUNet(AbstractNetwork):
    """A small U-Net for small images on a CPU: one block, two at half resolution around attention, one block.

    It has `channels` at full and twice as many at half resolution. Height and width must be even.
    """

    conditioning: Conditioning
    conv_in: Conv
    down: ModulatedBlock
    halve: Dense
    mid_1: ModulatedBlock
    attention: Attention
    mid_2: ModulatedBlock
    double: Dense
    up: ModulatedBlock
    norm_out: GroupNorm
    conv_out: Conv

    def __init__(
        self,
        shape: tuple[int, int, int],
        outputs: int,
        gamma_range: tuple[float, float],
        key: PRNGKeyArray,
        *,
        channels: Annotated[int, Ge(GROUPS), Le(MOST_CHANNELS), MultipleOf(GROUPS)] = 32,
        dropout: Dropout = 0.1,
    ):
        check_channels(channels, GROUPS)
        _check_even(shape)
        depth, wide = shape[-1], 2 * channels
        keys = iter(jax.random.split(key, 10))

        def block(inputs: int, size: int) -> ModulatedBlock:
            return ModulatedBlock(inputs, size, wide, next(keys), groups=GROUPS, dropout=dropout)

        self.conditioning = Conditioning(wide, wide, gamma_range, next(keys))
        self.conv_in = Conv(depth, channels, next(keys))
        self.down = block(channels, channels)
        self.halve = Dense(4 * channels, wide, next(keys))
        self.mid_1 = block(wide, wide)
        self.attention = Attention(wide, next(keys), groups=GROUPS, heads=HEADS)
        self.mid_2 = block(wide, wide)
        self.double = Dense(wide, 4 * channels, next(keys))
        self.up = block(2 * channels, channels)
        self.norm_out = GroupNorm(channels, GROUPS)
        self.conv_out = Conv(channels, depth * outputs, next(keys), initializer=ZEROS)

    def __call__(
        self,
        z: Image,
        gamma: Scalar,
        condition: Condition,
        *,
        key: PRNGKeyArray | None = None,
    ) -> Float[Array, "h w c k"]:
        cond = self.conditioning(gamma, condition)
        keys = [None] * 4 if key is None else jax.random.split(key, 4)
        skip = self.down(self.conv_in(z), cond, key=keys[0])
        h = self.halve(_fold_2x2(skip))
        h = self.attention(self.mid_1(h, cond, key=keys[1]))
        h = _unfold_2x2(self.double(self.mid_2(h, cond, key=keys[2])))
        h = self.up(jnp.concatenate([h, skip], axis=-1), cond, key=keys[3])
        return values_per_pixel(self.conv_out(jax.nn.silu(self.norm_out(h)), z.dtype), z)


def _check_even(shape: tuple[int, int, int]) -> None:
    height, width, _ = shape
    if height % 2 or width % 2:
        raise RecipeError(
            f"images of {height} x {width} pixels cannot be halved. "
            "Use images of even height and width, or network vdm_unet."
        )


def _fold_2x2(x: Image) -> Float[Array, "h//2 w//2 4*c"]:
    h, w, c = x.shape
    return x.reshape(h // 2, 2, w // 2, 2, c).swapaxes(1, 2).reshape(h // 2, w // 2, 4 * c)


def _unfold_2x2(x: Float[Array, "h w d"]) -> Float[Array, "2*h 2*w d//4"]:
    h, w, d = x.shape
    return x.reshape(h, w, 2, 2, d // 4).swapaxes(1, 2).reshape(2 * h, 2 * w, d // 4)
