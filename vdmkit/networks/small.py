# SPDX-License-Identifier: Apache-2.0
"""Small networks: a U-Net for a CPU, and two without parameters for exact denoisers."""

from typing import Annotated

import equinox as eqx
import jax
import jax.numpy as jnp
from annotated_types import Ge, Le, MultipleOf
from jaxtyping import Array, Float, PRNGKeyArray

from vdmkit.errors import RecipeError
from vdmkit.networks.layers import (
    MAX_CHANNELS,
    ZEROS,
    Attention,
    Conditioning,
    Conv,
    Dense,
    Dropout,
    GroupNorm,
    check_channels,
    values_per_pixel,
)
from vdmkit.networks.network import AbstractNetwork, Condition
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
    down: "ModulatedBlock"
    halve: Dense
    mid_1: "ModulatedBlock"
    attention: Attention
    mid_2: "ModulatedBlock"
    double: Dense
    up: "ModulatedBlock"
    norm_out: GroupNorm
    conv_out: Conv

    def __init__(
        self,
        shape: tuple[int, int, int],
        outputs: int,
        gamma_range: tuple[float, float],
        key: PRNGKeyArray,
        *,
        channels: Annotated[int, Ge(GROUPS), Le(MAX_CHANNELS), MultipleOf(GROUPS)] = 32,
        dropout: Dropout = 0.1,
    ):
        check_channels(channels, GROUPS)
        height, width, depth = shape
        if height % 2 or width % 2:
            raise RecipeError(
                f"images of {height} x {width} pixels cannot be halved. "
                "Use images of even height and width, or network vdm_unet."
            )
        wide = 2 * channels
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


class ModulatedBlock(eqx.Module):
    """Two convolutions; the second normalisation is scaled and shifted by the conditioning vector.

    Dhariwal and Nichol 2021, arXiv 2105.05233, section 3.1.
    """

    norm1: GroupNorm
    conv1: Conv
    scale_shift: Dense
    norm2: GroupNorm
    conv2: Conv
    shortcut: Dense | None
    dropout: float = eqx.field(static=True)

    def __init__(self, inputs: int, outputs: int, width: int, key: PRNGKeyArray, *, groups: int, dropout: float):
        key1, cond_key, key2, shortcut_key = jax.random.split(key, 4)
        self.norm1 = GroupNorm(inputs, groups)
        self.conv1 = Conv(inputs, outputs, key1)
        self.scale_shift = Dense(width, 2 * outputs, cond_key)
        self.norm2 = GroupNorm(outputs, groups)
        self.conv2 = Conv(outputs, outputs, key2, initializer=ZEROS)
        self.shortcut = Dense(inputs, outputs, shortcut_key) if inputs != outputs else None
        self.dropout = dropout

    def __call__(
        self, x: Float[Array, "h w i"], cond: Float[Array, " width"], *, key: PRNGKeyArray | None
    ) -> Float[Array, "h w o"]:
        scale, shift = jnp.split(self.scale_shift(cond), 2)
        h = self.norm2(self.conv1(jax.nn.silu(self.norm1(x))))
        h = jax.nn.silu(h * (1 + scale) + shift)
        h = eqx.nn.Dropout(self.dropout)(h, key=key, inference=key is None)
        return self.conv2(h) + (x if self.shortcut is None else self.shortcut(x))


def _fold_2x2(x: Image) -> Float[Array, "h//2 w//2 4*c"]:
    h, w, c = x.shape
    return x.reshape(h // 2, 2, w // 2, 2, c).swapaxes(1, 2).reshape(h // 2, w // 2, 4 * c)


def _unfold_2x2(x: Float[Array, "h w d"]) -> Float[Array, "2*h 2*w d//4"]:
    h, w, d = x.shape
    return x.reshape(h, w, 2, 2, d // 4).swapaxes(1, 2).reshape(2 * h, 2 * w, d // 4)


@register("network", "none")
class NoNetwork(AbstractNetwork):
    """Returns zeros, without parameters, for predictions such as `exact` and the order-0 `categorical`."""

    outputs: int = eqx.field(static=True)

    def __call__(
        self,
        z: Image,
        gamma: Scalar,
        condition: Condition,
        *,
        key: PRNGKeyArray | None = None,
    ) -> Float[Array, "h w c k"]:
        return jnp.zeros((*z.shape, self.outputs), z.dtype)


@register("network", "label")
class LabelNetwork(AbstractNetwork):
    """Stub that outputs 1 + the class label it is conditioned on, 0 without one, in every pixel.

    For prediction `exact_given_label`.
    """

    outputs: int = eqx.field(static=True)
    classes: int = eqx.field(static=True)

    def __check_init__(self) -> None:
        if not self.classes:
            raise RecipeError("the data have no labels: choose others, such as mixture, or another network.")

    def __call__(
        self,
        z: Image,
        gamma: Scalar,
        condition: Condition,
        *,
        key: PRNGKeyArray | None = None,
    ) -> Float[Array, "h w c k"]:
        value = jnp.asarray(condition.get("label", -1)) + 1
        value = jnp.where(value > self.classes, jnp.nan, value)
        return jnp.broadcast_to(value.astype(z.dtype), (*z.shape, self.outputs))
