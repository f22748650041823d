# SPDX-License-Identifier: Apache-2.0
"""A diffusion transformer (Peebles & Xie 2023, arXiv 2212.09748), as a plugin of vdmkit."""

from typing import Annotated

import equinox as eqx
import jax
import jax.numpy as jnp
from annotated_types import Ge, Le
from jaxtyping import Array, Float, PRNGKeyArray

import vdmkit
from vdmkit import VdmkitError
from vdmkit.networks import AbstractNetwork, Condition

Size = Annotated[int, Ge(1), Le(16_384)]
Blocks = Annotated[int, Ge(1), Le(256)]
_FREQUENCIES = 64


class ModulatedBlock(eqx.Module):
    """Attention and a dense network, each with a norm and a gate that depend on gamma; the gates start at zero."""

    attention: eqx.nn.MultiheadAttention
    hidden: eqx.nn.Linear
    out: eqx.nn.Linear
    modulation: eqx.nn.Linear
    norm: eqx.nn.LayerNorm

    def __init__(self, width: int, heads: int, key: PRNGKeyArray):
        keys = jax.random.split(key, 4)
        self.attention = eqx.nn.MultiheadAttention(heads, width, key=keys[0])
        self.hidden = eqx.nn.Linear(width, 4 * width, key=keys[1])
        self.out = eqx.nn.Linear(4 * width, width, key=keys[2])
        self.modulation = _zeros(eqx.nn.Linear(width, 6 * width, key=keys[3]))
        self.norm = eqx.nn.LayerNorm(width, use_weight=False, use_bias=False)

    def __call__(self, tokens: Float[Array, "n width"], noise: Float[Array, " width"]) -> Float[Array, "n width"]:
        scale_1, shift_1, gate_1, scale_2, shift_2, gate_2 = jnp.split(self.modulation(jax.nn.silu(noise)), 6)
        seen = jax.vmap(self.norm)(tokens) * (1 + scale_1) + shift_1
        tokens = tokens + gate_1 * self.attention(seen, seen, seen)
        seen = jax.vmap(self.norm)(tokens) * (1 + scale_2) + shift_2
        return tokens + gate_2 * jax.vmap(lambda token: self.out(jax.nn.gelu(self.hidden(token))))(seen)


@vdmkit.register("network", "dit")
class Dit(AbstractNetwork):
    """A transformer over patches, conditioned on gamma. Untrained, it returns zeros, or z if it has one output.

    Args:
        width: Number of values in a token, a multiple of `heads`.
        blocks: Number of blocks.
        heads: Number of attention heads.
        patch: Height and width of the patch of a token, in pixels.
    """

    embed: eqx.nn.Linear
    place: Array
    noise_1: eqx.nn.Linear
    noise_2: eqx.nn.Linear
    blocks: list[ModulatedBlock]
    norm: eqx.nn.LayerNorm
    out: eqx.nn.Linear
    patch: int = eqx.field(static=True)
    outputs: int = eqx.field(static=True)
    gamma_range: tuple[float, float] = eqx.field(static=True)

    def __init__(
        self,
        shape: tuple[int, int, int],
        outputs: int,
        gamma_range: tuple[float, float],
        key: PRNGKeyArray,
        *,
        width: Size = 96,
        blocks: Blocks = 4,
        heads: Size = 4,
        patch: Size = 2,
    ):
        height, wide, channels = shape
        if width % heads:
            raise DitError(f"network dit: width = {width}, heads = {heads}: expected a width that the heads divide.")
        if height % patch or wide % patch:
            raise DitError(
                f"network dit: {height}x{wide} pixels in patches of {patch}: the sizes do not fit each other."
            )
        keys = jax.random.split(key, blocks + 5)
        self.embed = eqx.nn.Linear(channels * patch**2, width, key=keys[0])
        self.place = 0.02 * jax.random.normal(keys[1], (height // patch * (wide // patch), width))
        self.noise_1 = eqx.nn.Linear(2 * _FREQUENCIES, width, key=keys[2])
        self.noise_2 = eqx.nn.Linear(width, width, key=keys[3])
        self.blocks = [ModulatedBlock(width, heads, k) for k in keys[5:]]
        self.norm = eqx.nn.LayerNorm(width)
        self.out = _zeros(eqx.nn.Linear(width, channels * outputs * patch**2, key=keys[4]))
        self.patch, self.outputs, self.gamma_range = patch, outputs, gamma_range

    def __call__(
        self,
        z: Float[Array, "h w c"],
        gamma: Float[Array, ""],
        condition: Condition,
        *,
        key: PRNGKeyArray | None = None,
    ) -> Float[Array, "h w c k"]:
        h, w, c = z.shape
        p, k = self.patch, self.outputs
        patches = z.reshape(h // p, p, w // p, p, c).transpose(0, 2, 1, 3, 4).reshape(-1, p * p * c)
        tokens = jax.vmap(self.embed)(patches) + self.place
        noise = self.noise_2(jax.nn.silu(self.noise_1(self._embedding(gamma))))
        for block in self.blocks:
            tokens = block(tokens, noise)
        values = jax.vmap(lambda token: self.out(self.norm(token)))(tokens)
        values = values.reshape(h // p, w // p, p, p, c, k).transpose(0, 2, 1, 3, 4, 5).reshape(h, w, c, k)
        return values + z[..., None] if k == 1 else values

    def _embedding(self, gamma: Float[Array, ""]) -> Float[Array, " 2f"]:
        low, high = self.gamma_range
        angles = 1000 * (gamma - low) / (high - low) * jnp.geomspace(1, 1e-4, _FREQUENCIES)
        return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)])


class DitError(VdmkitError):
    """Incompatible sizes."""


def _zeros(linear: eqx.nn.Linear) -> eqx.nn.Linear:
    return jax.tree.map(jnp.zeros_like, linear)
