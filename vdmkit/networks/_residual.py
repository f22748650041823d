# SPDX-License-Identifier: Apache-2.0
"""The residual block of the paper's U-Net, and the stage that adds attention to it."""

import equinox as eqx
import jax
from jaxtyping import Array, Float, PRNGKeyArray

from vdmkit.networks._attention import Attention
from vdmkit.networks._conv import Conv
from vdmkit.networks._dense import ZEROS, Dense
from vdmkit.networks._group_norm import GroupNorm

GROUPS = 32


class Stage(eqx.Module):
    """A residual block, then attention where the network wants it."""

    block: "ResidualBlock"
    attention: Attention | None

    def __init__(self, inputs: int, outputs: int, width: int, key: PRNGKeyArray, *, dropout: float, attention: bool):
        block_key, attention_key = jax.random.split(key)
        self.block = ResidualBlock(inputs, outputs, width, block_key, dropout=dropout)
        self.attention = Attention(outputs, attention_key, groups=GROUPS) if attention else None

    def __call__(
        self, x: Float[Array, "h w i"], cond: Float[Array, " width"], *, key: PRNGKeyArray | None
    ) -> Float[Array, "h w o"]:
        h = self.block(x, cond, key=key)
        return h if self.attention is None else self.attention(h)


class ResidualBlock(eqx.Module):
    """Two convolutions with the conditioning vector added between; untrained, only the shortcut."""

    norm1: GroupNorm
    conv1: Conv
    cond_proj: Dense
    norm2: GroupNorm
    conv2: Conv
    shortcut: Dense | None
    dropout: float = eqx.field(static=True)

    def __init__(self, inputs: int, outputs: int, width: int, key: PRNGKeyArray, *, dropout: float):
        key1, cond_key, key2, shortcut_key = jax.random.split(key, 4)
        self.norm1 = GroupNorm(inputs, GROUPS)
        self.conv1 = Conv(inputs, outputs, key1)
        self.cond_proj = Dense(width, outputs, cond_key, initializer=ZEROS, use_bias=False)
        self.norm2 = GroupNorm(outputs, GROUPS)
        self.conv2 = Conv(outputs, outputs, key2, initializer=ZEROS)
        self.shortcut = Dense(inputs, outputs, shortcut_key) if inputs != outputs else None
        self.dropout = dropout

    def __call__(
        self, x: Float[Array, "h w i"], cond: Float[Array, " width"], *, key: PRNGKeyArray | None
    ) -> Float[Array, "h w o"]:
        h = self.conv1(jax.nn.silu(self.norm1(x))) + self.cond_proj(cond)
        h = jax.nn.silu(self.norm2(h))
        h = eqx.nn.Dropout(self.dropout)(h, key=key, inference=key is None)
        return self.conv2(h) + (x if self.shortcut is None else self.shortcut(x))
