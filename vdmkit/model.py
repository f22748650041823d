# SPDX-License-Identifier: Apache-2.0
"""The model: the one pytree that is trained, saved and asked for likelihoods and samples."""

import equinox as eqx
from jaxtyping import Array, Float, PRNGKeyArray

from vdmkit.denoiser import AbstractPrediction, Estimate
from vdmkit.networks import AbstractNetwork, Condition
from vdmkit.noise import AbstractPath, AbstractSchedule
from vdmkit.observation import AbstractObservation


class DiffusionModel(eqx.Module):
    """schedule gamma(t), path (alpha, sigma), denoiser (prediction of a network) and observation p(x | z_0)."""

    schedule: AbstractSchedule
    path: AbstractPath
    prediction: AbstractPrediction
    network: AbstractNetwork
    observation: AbstractObservation
    shape: tuple[int, int, int] = eqx.field(static=True)

    def denoise(
        self,
        z: Float[Array, "h w c"],
        gamma: Float[Array, ""],
        condition: Condition,
        *,
        key: PRNGKeyArray | None = None,
    ) -> Estimate:
        """x_hat and eps_hat for one latent z at gamma. `key` drives dropout; without it there is none."""
        output = self.network(self.prediction.network_input(z, gamma, self.path), gamma, condition, key=key)
        return self.prediction(output, z, gamma, self.path)

    def x_hat(self, y: Float[Array, "h w c"], gamma: Float[Array, ""]) -> Float[Array, "h w c"]:
        """The estimate of the data from y = z / alpha."""
        return self.denoise(self.path.alpha(gamma) * y, gamma, {}).x_hat

    @property
    def dimensions(self) -> int:
        """Number of values in one image."""
        height, width, channels = self.shape
        return height * width * channels
