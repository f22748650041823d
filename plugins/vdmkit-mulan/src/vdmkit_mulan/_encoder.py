# SPDX-License-Identifier: Apache-2.0
"""The encoder q(z | x): the down and middle stages of VDM's U-Net, followed by a dense layer."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from vdmkit.networks.layers import Conditioning, Conv, Dense, GroupNorm
from vdmkit.networks.vdm_unet import GROUPS, VDMStage, with_fourier_features
from vdmkit.process import Image


class Encoder(eqx.Module):
    """Network for the logits of the latent. Its blocks are conditioned on the constant embedding of noise level 0."""

    conditioning: Conditioning
    conv_in: Conv
    down: tuple[VDMStage, ...]
    mid: tuple[VDMStage, VDMStage]
    norm_out: GroupNorm
    conv_out: Conv
    dense_layer_final: Dense
    fourier: bool = eqx.field(static=True)
    dropout: float = eqx.field(static=True)

    def __init__(
        self,
        shape: tuple[int, int, int],
        latent: int,
        key: PRNGKeyArray,
        *,
        channels: int,
        blocks: int,
        attention: bool,
        fourier: bool,
        dropout: float,
    ):
        height, width, depth = shape
        keys = iter(jax.random.split(key, blocks + 6))

        def stage(attention: bool) -> VDMStage:
            parts = {"groups": GROUPS, "dropout": dropout, "attention": attention}
            return VDMStage(channels, channels, 4 * channels, next(keys), **parts)

        self.conditioning = Conditioning(channels, 4 * channels, (0.0, 1.0), next(keys))
        self.conv_in = Conv(5 * depth if fourier else depth, channels, next(keys))
        self.down = tuple(stage(attention) for _ in range(blocks))
        self.mid = (stage(True), stage(False))
        self.norm_out = GroupNorm(channels, GROUPS)
        self.conv_out = Conv(channels, 1, next(keys), initializer=jax.nn.initializers.zeros)
        self.dense_layer_final = Dense(height * width, latent, next(keys))
        self.fourier, self.dropout = fourier, dropout

    def __call__(self, x: Image, *, key: PRNGKeyArray | None = None) -> Float[Array, " m"]:
        """Evaluates the encoder on one image, encoded to [-1, 1]. Without a `key`, dropout is off."""
        cond = self.conditioning(jnp.zeros((), x.dtype), {})
        h = self.conv_in(with_fourier_features(x) if self.fourier else x)
        for i, stage in enumerate((*self.down, *self.mid)):
            draw = None if key is None else jax.random.bernoulli(jax.random.fold_in(key, i), 1 - self.dropout, h.shape)
            h = stage(h, cond, draw)
        h = self.conv_out(jax.nn.silu(self.norm_out(h)))
        return self.dense_layer_final(jax.nn.silu(h.ravel()))
