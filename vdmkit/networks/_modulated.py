# SPDX-License-Identifier: Apache-2.0
"""A residual block whose conditioning scales and shifts (Dhariwal and Nichol 2021, arXiv 2105.05233, section 3.1)."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from vdmkit.networks._conv import Conv
from vdmkit.networks._dense import ZEROS, Dense
from vdmkit.networks._group_norm import GroupNorm

GROUPS = 8


class ModulatedBlock(eqx.Module):
    """Two convolutions; the second normalisation is scaled and shifted by the conditioning vector."""

    norm1: GroupNorm
    conv1: Conv
    scale_shift: Dense
    norm2: GroupNorm
    conv2: Conv
    shortcut: Dense | None
    dropout: float = eqx.field(static=True)

    def __init__(self, inputs: int, outputs: int, width: int, key: PRNGKeyArray, *, dropout: float):
        key1, cond_key, key2, shortcut_key = jax.random.split(key, 4)
        self.norm1 = GroupNorm(inputs, GROUPS)
        self.conv1 = Conv(inputs, outputs, key1)
        self.scale_shift = Dense(width, 2 * outputs, cond_key)
        self.norm2 = GroupNorm(outputs, GROUPS)
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
