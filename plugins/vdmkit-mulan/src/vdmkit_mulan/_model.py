# SPDX-License-Identifier: Apache-2.0
"""MuLAN: an encoder of the latent z, the noise of every pixel given z, and VDM's U-Net given z."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from vdmkit import DiffusionModel, VdmkitError
from vdmkit.arguments import check_integer
from vdmkit.networks import Condition, VDMUNet
from vdmkit.networks.layers import Dense, sinusoid
from vdmkit.predictions import AbstractPrediction
from vdmkit.process import Image, VariancePreserving
from vdmkit.schedules import FixedLinear, Scalar
from vdmkit_mulan._encoder import Encoder
from vdmkit_mulan._latent import Latent
from vdmkit_mulan._schedule import PolynomialSchedule

LEVELS = 256
MOST_BLOCKS = 256


class MulanError(VdmkitError):
    """A MuLAN model where a model with one gamma for all pixels is expected, or sizes that do not fit."""


class Conditioning(eqx.Module):
    """Two dense layers on a sinusoidal embedding of the mean of gamma, and on the latent z."""

    dense0: Dense
    dense1: Dense
    gamma_range: tuple[float, float] = eqx.field(static=True)

    def __init__(self, embedding: int, latent: int, gamma_range: tuple[float, float], key: PRNGKeyArray):
        key0, key1 = jax.random.split(key)
        self.dense0 = Dense(embedding + latent, 4 * embedding, key0)
        self.dense1 = Dense(4 * embedding, 4 * embedding, key1)
        self.gamma_range = gamma_range

    def __call__(self, gamma: Scalar, condition: Condition) -> Float[Array, " width"]:
        (low, high), z = self.gamma_range, condition["latent"]
        embedding = sinusoid((gamma - low) / (high - low), len(self.dense0.kernel) - len(z))
        return jax.nn.silu(self.dense1(jax.nn.silu(self.dense0(jnp.concatenate([embedding, z])))))


class Mulan(eqx.Module):
    """A diffusion model with learned adaptive noise (Sahoo et al. 2023, arXiv 2312.13236).

    Args:
        shape: Height, width and channels of the images, which have 256 levels.
        key: Random key of the parameters.
        prediction: What the U-Net's output means: `vdmkit.predictions.V()` (the authors' `mulan_velocity`) or `Eps()`.
        latent: Number m of values of the latent z.
        ones: Number k of them that are 1.
        gamma_range: gamma of every pixel at t = 0 and at t = 1.
        channels: Width of both U-Nets, a multiple of 32.
        blocks: Stages on each side of the denoising U-Net.
        encoder_blocks: Stages of the encoder before its middle.
        attention: Whether all stages have attention, or only the middle ones.
        fourier: Whether the U-Nets have Fourier features as inputs.
        dropout: Probability of dropout in both U-Nets.

    Raises:
        MulanError: `ones` is not from 1 to `latent`.
        RecipeError: a number of blocks is not from 1 to 256, or `channels` is not a multiple of 32.
    """

    encoder: Encoder
    schedule: PolynomialSchedule
    network: VDMUNet
    prediction: AbstractPrediction
    ones: int = eqx.field(static=True)

    def __init__(
        self,
        shape: tuple[int, int, int],
        key: PRNGKeyArray,
        *,
        prediction: AbstractPrediction,
        latent: int = 50,
        ones: int = 15,
        gamma_range: tuple[float, float] = (-13.3, 5.0),
        channels: int = 128,
        blocks: int = 32,
        encoder_blocks: int = 4,
        attention: bool = False,
        fourier: bool = True,
        dropout: float = 0.1,
    ):
        if not 1 <= ones <= latent:
            raise MulanError(f"{ones} of {latent} values of the latent are 1: expected from 1 to {latent}.")
        for name, count in (("blocks", blocks), ("encoder_blocks", encoder_blocks)):
            check_integer(name, count, most=MOST_BLOCKS)
        keys = jax.random.split(key, 4)
        parts: dict[str, Any] = {"attention": attention, "fourier": fourier, "dropout": dropout, "channels": channels}
        self.encoder = Encoder(shape, latent, keys[0], blocks=encoder_blocks, **parts)
        self.schedule = PolynomialSchedule(shape, latent, gamma_range, keys[1])
        conditioning = Conditioning(channels, latent, gamma_range, keys[2])
        network = VDMUNet(shape, 1, gamma_range, keys[3], blocks=blocks, **parts)
        self.network = eqx.tree_at(lambda network: network.conditioning, network, conditioning)
        self.prediction, self.ones = prediction, ones

    def eps_hat(self, z_t: Image, gamma: Image, z: Latent, *, key: PRNGKeyArray | None = None) -> Image:
        """Returns the estimate of the noise in the latent image z_t, whose pixels have noise levels `gamma`, given z.

        The U-Net is conditioned on the mean of gamma and on z. `prediction` defines its output, at each pixel's own
        gamma.
        """
        output = self.network(z_t, gamma.mean(), {"latent": z}, key=key)

        def of_pixel(output: Scalar, z_t: Scalar, gamma: Scalar) -> Scalar:
            at = output.reshape(1, 1, 1, 1), z_t.reshape(1, 1, 1), gamma, VariancePreserving()
            return self.prediction(*at).eps_hat.reshape(())

        return jax.vmap(of_pixel)(output.ravel(), z_t.ravel(), gamma.ravel()).reshape(z_t.shape)

    @property
    def latent(self) -> int:
        """Returns the number of values of the latent z."""
        return len(self.schedule.dense_1.kernel)

    @property
    def vdm(self) -> DiffusionModel:
        """Returns the VDM with these images and ends of gamma; MuLAN has the same prior and decoder.

        Its network is this model, which raises MulanError if it is called with one gamma for all pixels.
        """
        ends = FixedLinear(gamma_min=self.schedule.gamma_min, gamma_max=self.schedule.gamma_max)
        shape = self.schedule.shape
        return DiffusionModel(schedule=ends, prediction=self.prediction, network=self, shape=shape, levels=LEVELS)

    def __call__(self, z: Image, gamma: Scalar, condition: Condition, *, key: PRNGKeyArray | None = None) -> Array:
        raise MulanError("MuLAN has a noise level for every pixel, and no network of a single one. Use vdmkit_mulan.")
