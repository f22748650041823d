# SPDX-License-Identifier: Apache-2.0
"""Self-attention over all pixels of one image, as a residual layer."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from vdmkit.networks._dense import ZEROS, Dense
from vdmkit.networks._group_norm import GroupNorm

Heads = Float[Array, "n heads size"]


class Attention(eqx.Module):
    """x + proj_out(softmax(q k^T / sqrt(head size)) v), all from a group-normalised x; the identity at first."""

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

    def __call__(self, x: Float[Array, "h w c"]) -> Float[Array, "h w c"]:
        n = self.norm(x).reshape(-1, x.shape[-1])
        q, k, v = (layer(n).reshape(len(n), self.heads, -1) for layer in (self.q, self.k, self.v))
        return x + self.proj_out(_attend(q, k, v).reshape(x.shape))


def _attend(q: Heads, k: Heads, v: Heads) -> Heads:
    """As jax.nn.dot_product_attention, whose softmax is in float32 even of float64."""
    wide = jnp.promote_types(q.dtype, jnp.float32)
    logits = jnp.einsum("tnh,snh->nts", q, k, preferred_element_type=wide) * (q.shape[-1] ** -0.5)
    return jnp.einsum("nts,snh->tnh", jax.nn.softmax(logits).astype(v.dtype), v)
