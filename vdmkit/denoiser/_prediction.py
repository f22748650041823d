# SPDX-License-Identifier: Apache-2.0
"""What a network's output means: from it to an estimate of the data."""

import abc

import equinox as eqx
from jaxtyping import Array, Float

from vdmkit.noise import AbstractPath
from vdmkit.registry import define_kind


class Estimate(eqx.Module):
    """What a denoiser knows about one latent z = alpha x + sigma eps.

    `log_probs` holds log p(x = level k | z) for predictions that give a distribution over levels, else None.
    """

    x_hat: Float[Array, "h w c"]
    eps_hat: Float[Array, "h w c"]
    log_probs: Float[Array, "h w c v"] | None = None


class AbstractPrediction(eqx.Module):
    """An implementer says how many outputs per pixel and channel it wants, and reads them."""

    outputs: eqx.AbstractVar[int]

    @abc.abstractmethod
    def __call__(
        self, output: Float[Array, "h w c k"], z: Float[Array, "h w c"], gamma: Float[Array, ""], path: AbstractPath
    ) -> Estimate:
        """The estimate that `output`, given for z at gamma, stands for."""

    def network_input(
        self, z: Float[Array, "h w c"], gamma: Float[Array, ""], path: AbstractPath
    ) -> Float[Array, "h w c"]:
        """What the network is shown of z: the latent of the variance preserving path, whatever the path."""
        return z / path.scale(gamma)


define_kind(
    "prediction",
    "what the network's output means: eps, or a distribution over levels, ...",
    AbstractPrediction,
    ("shape", "levels", "level_counts", "distribution"),
)
