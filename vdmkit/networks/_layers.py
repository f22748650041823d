# SPDX-License-Identifier: Apache-2.0
"""The layers of the networks, from a dense layer to a residual stage. Images are (h, w, c)."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from vdmkit.process import Image

LECUN_NORMAL = jax.nn.initializers.lecun_normal()
"""Normal of variance 1 / fan-in, truncated at two standard deviations and rescaled: Flax's default."""

ZEROS = jax.nn.initializers.zeros
"""For the last layer of a residual branch, so that an untrained network is the identity."""

EPSILON = 1e-6
"""Flax's default and the authors'; other frameworks use 1e-5, which does not reproduce their numbers."""

Heads = Float[Array, "n heads size"]
Kept = Bool[Array, "h w c"] | None


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
        """Returns the convolution, of another type than its operands if `dtype` is given."""
        y = jax.lax.conv_general_dilated(
            _operand(x, self.kernel)[None],
            self.kernel,
            (1, 1),
            "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            preferred_element_type=dtype,
        )
        return y[0] + self.bias


def _operand(x: Float[Array, "*n"], kernel: Float[Array, "*m"]) -> Float[Array, "*n"]:
    """Returns x in the type of a kernel that is narrower than float32; other types promote each other."""
    return x.astype(kernel.dtype) if jnp.finfo(kernel.dtype).bits < 32 else x


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
        wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))  # bfloat16 would lose the sums
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
        return x + self.proj_out(_attend(q, k, v).reshape(x.shape))


def _attend(q: Heads, k: Heads, v: Heads) -> Heads:
    """Computes dot-product attention; `jax.nn.dot_product_attention` takes the softmax in float32 even for float64."""
    wide = jnp.promote_types(q.dtype, jnp.float32)
    # Keys and values last in tokens: the gradient then transposes them, and not the matrix of weights.
    k, v = (jnp.transpose(x, (1, 2, 0)) for x in (k, v))
    logits = jnp.einsum("tnh,nhs->nts", q * (q.shape[-1] ** -0.5), k, preferred_element_type=wide)
    return jnp.einsum("nts,nhs->tnh", jax.nn.softmax(logits).astype(v.dtype), v)


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


class ResidualBlock(eqx.Module):
    """The paper's residual block: two convolutions with the conditioning vector added between them.

    Untrained, it returns the shortcut only. Dropout leaves the activations that are `kept`, all of them for None.
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

    def __call__(self, x: Float[Array, "h w i"], cond: Float[Array, " width"], kept: Kept) -> Float[Array, "h w o"]:
        h = self.conv1(jax.nn.silu(self.norm1(x))) + self.cond_proj(cond)
        h = jax.nn.silu(self.norm2(h))
        h = h if kept is None else jnp.where(kept, h / (1 - self.dropout), 0)
        return self.conv2(h) + (x if self.shortcut is None else self.shortcut(x))


class VDMStage(eqx.Module):
    """A residual block, then optional attention."""

    block: ResidualBlock
    attention: Attention | None

    def __init__(
        self, inputs: int, outputs: int, width: int, key: PRNGKeyArray, *, groups: int, dropout: float, attention: bool
    ):
        block_key, attention_key = jax.random.split(key)
        self.block = ResidualBlock(inputs, outputs, width, block_key, groups=groups, dropout=dropout)
        self.attention = Attention(outputs, attention_key, groups=groups) if attention else None

    def __call__(self, x: Float[Array, "h w i"], cond: Float[Array, " width"], kept: Kept) -> Float[Array, "h w o"]:
        h = self.block(x, cond, kept)
        return h if self.attention is None else self.attention(h)


def values_per_pixel(h: Float[Array, "h w ck"], z: Image) -> Float[Array, "h w c k"]:
    """Splits the channels of the last layer into c times k, and adds z if k = 1.

    With a zero last layer the untrained network then predicts eps_hat = z, the best estimate at high noise levels
    (Kingma et al. 2021, authors' code). For k > 1 the prediction supplies the starting point.
    """
    values = h.reshape(*z.shape, -1)
    return values + z[..., None] if values.shape[-1] == 1 else values
