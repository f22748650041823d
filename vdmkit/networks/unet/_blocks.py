# SPDX-License-Identifier: Apache-2.0
"""Residual blocks and attention."""

from dataclasses import dataclass
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from vdmkit.errors import RecipeError
from vdmkit.networks._layers import ZEROS, Conv, Dense, GroupNorm, _attend
from vdmkit.networks.unet._resampling import Pixels, Taps, downsample, upsample
from vdmkit.process import Image

Move = Literal["stay", "down", "up"]
Kept = Bool[Array, "_ _ _"] | None
"""What dropout leaves of a block's output; all of it for None."""


@dataclass(frozen=True)
class Style:
    """What all blocks of a network have in common.

    Attributes:
        width: Length of the embedding.
        groups: Number of groups of a normalisation.
        group_size: Fewest channels of a group; layers of few channels have fewer groups.
        epsilon: Added to the variance in a normalisation.
        scale_shift: Whether the embedding scales and shifts after the second normalisation, or is added before it.
        rescale: Whether every sum of two branches is divided by sqrt 2 (BigGAN, StyleGAN2).
        taps: Filter of the blocks that change the resolution.
        project: Whether blocks that change the resolution have a 1x1 convolution in their shortcut.
        dropout: Share of the activations that training drops before the second convolution.
    """

    width: int
    groups: int
    group_size: int
    epsilon: float
    scale_shift: bool
    rescale: bool
    taps: Taps
    project: bool
    dropout: float

    def norm(self, channels: int) -> GroupNorm:
        """Returns a normalisation. Raises RecipeError unless the channels divide into equal groups."""
        groups = min(self.groups, channels // self.group_size)
        if not groups or channels % groups:
            raise RecipeError(
                f"{channels} channels do not divide into {groups or self.groups} groups of equal size. Choose channels "
                f"and multipliers whose products are multiples of {self.groups}, or other groups."
            )
        return GroupNorm(channels, groups, self.epsilon)

    def joined(self, x: Image, y: Image) -> Image:
        """Returns the sum of two branches."""
        return (x + y) * 0.5**0.5 if self.rescale else x + y

    def moved(self, x: Pixels, move: Move) -> Pixels:
        """Returns x at the resolution of the block's output."""
        return x if move == "stay" else (downsample if move == "down" else upsample)(x, self.taps)


class Block(eqx.Module):
    """Norm, swish, 3x3 convolution, embedding, norm, swish, dropout, 3x3 convolution, and the shortcut.

    DDPM's block (Ho et al. 2020, arXiv 2006.11239), and BigGAN's, which resamples both branches before the first
    convolution (Brock et al. 2019, arXiv 1809.11096; Song et al. 2021, arXiv 2011.13456; Dhariwal & Nichol 2021, arXiv
    2105.05233). Untrained, it returns the shortcut only.
    """

    norm1: GroupNorm
    conv1: Conv
    embed: Dense
    norm2: GroupNorm
    conv2: Conv
    shortcut: Dense | None
    style: Style = eqx.field(static=True)
    move: Move = eqx.field(static=True)

    def __init__(self, inputs: int, outputs: int, key: PRNGKeyArray, *, style: Style, move: Move = "stay"):
        keys = jax.random.split(key, 4)
        self.norm1, self.conv1 = style.norm(inputs), Conv(inputs, outputs, keys[0])
        self.embed = Dense(style.width, 2 * outputs if style.scale_shift else outputs, keys[1])
        self.norm2, self.conv2 = style.norm(outputs), Conv(outputs, outputs, keys[2], initializer=ZEROS)
        projected = inputs != outputs or (move != "stay" and style.project)
        self.shortcut = Dense(inputs, outputs, keys[3]) if projected else None
        self.style, self.move = style, move

    def __call__(
        self, x: Float[Array, "h w i"], embedding: Float[Array, " width"], kept: Kept
    ) -> Float[Array, "h2 w2 o"]:
        style = self.style
        h = self.conv1(style.moved(jax.nn.silu(self.norm1(x)), self.move))
        if style.scale_shift:
            scale, shift = jnp.split(self.embed(embedding), 2)
            h = self.norm2(h) * (1 + scale) + shift
        else:
            h = self.norm2(h + self.embed(embedding))
        h = jax.nn.silu(h)
        h = h if kept is None else jnp.where(kept, h / (1 - style.dropout), 0)
        x = style.moved(x, self.move)
        return style.joined(x if self.shortcut is None else self.shortcut(x), self.conv2(h))


class SelfAttention(eqx.Module):
    """Self-attention over all pixels, as a residual layer that starts as the identity.

    Head i has the channels i s, ..., (i + 1) s - 1 of q, k and v. Files in which the three are stored together, in
    whatever order, are split by their importers.
    """

    norm: GroupNorm
    q: Dense
    k: Dense
    v: Dense
    proj_out: Dense
    heads: int = eqx.field(static=True)
    style: Style = eqx.field(static=True)

    def __init__(self, channels: int, key: PRNGKeyArray, *, heads: int, style: Style):
        if channels % heads:
            raise RecipeError(f"{channels} channels do not divide into {heads} heads of attention. Choose other heads.")
        keys = jax.random.split(key, 4)
        self.norm = style.norm(channels)
        self.q, self.k, self.v = (Dense(channels, channels, one) for one in keys[:3])
        self.proj_out = Dense(channels, channels, keys[3], initializer=ZEROS)
        self.heads, self.style = heads, style

    def __call__(self, x: Image) -> Image:
        n = self.norm(x).reshape(-1, x.shape[-1])
        q, k, v = (layer(n).reshape(len(n), self.heads, -1) for layer in (self.q, self.k, self.v))
        return self.style.joined(x, self.proj_out(_attend(q, k, v).reshape(x.shape)))


class Stage(eqx.Module):
    """A residual block, then optional attention."""

    block: Block
    attention: SelfAttention | None

    def __init__(self, inputs: int, outputs: int, key: PRNGKeyArray, *, style: Style, heads: int):
        block_key, attention_key = jax.random.split(key)
        self.block = Block(inputs, outputs, block_key, style=style)
        self.attention = SelfAttention(outputs, attention_key, heads=heads, style=style) if heads else None

    def __call__(
        self, x: Float[Array, "h w i"], embedding: Float[Array, " width"], kept: Kept
    ) -> Float[Array, "h w o"]:
        h = self.block(x, embedding, kept)
        return h if self.attention is None else self.attention(h)
