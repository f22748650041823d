# SPDX-License-Identifier: Apache-2.0
"""The model: the one pytree that is trained, saved and asked for likelihoods and samples."""

from collections.abc import Callable

import equinox as eqx
import jax
from jaxtyping import Array, Float, PRNGKeyArray, Real

from vdmkit.denoiser import AbstractPrediction, Estimate
from vdmkit.errors import RecipeError
from vdmkit.networks import Condition
from vdmkit.noise import AbstractPath, AbstractSchedule, VariancePreserving, diffuse
from vdmkit.observation import AbstractObservation, CategoricalObservation


class DiffusionModel(eqx.Module):
    """schedule gamma(t), path (alpha, sigma), denoiser (prediction of a network) and observation p(x | z_0).

    Args:
        network: any pytree that is called as `AbstractNetwork` is; it gives (h, w, c, `prediction.outputs`).
        shape: (h, w, c) of an image.
        levels: number of values of a pixel, for the paper's observation; or give another `observation`.
        path: the paper's, variance preserving, if it is left out.
    """

    schedule: AbstractSchedule
    path: AbstractPath
    prediction: AbstractPrediction
    network: Callable[..., Array]
    observation: AbstractObservation
    shape: tuple[int, int, int] = eqx.field(static=True)

    def __init__(
        self,
        *,
        schedule: AbstractSchedule,
        prediction: AbstractPrediction,
        network: Callable[..., Array],
        shape: tuple[int, int, int],
        levels: int | None = None,
        observation: AbstractObservation | None = None,
        path: AbstractPath | None = None,
    ):
        if levels is not None and observation is None:
            observation = CategoricalObservation(levels)
        elif levels is not None or observation is None:
            raise RecipeError("DiffusionModel: give the number of levels, or an observation, and not both.")
        self.schedule, self.prediction, self.network, self.shape = schedule, prediction, network, shape
        self.path = VariancePreserving() if path is None else path
        self.observation = observation

    def diffuse(
        self, image: Real[Array, "h w c"], gamma: Float[Array, ""], *, key: PRNGKeyArray
    ) -> tuple[Float[Array, "h w c"], Float[Array, "h w c"]]:
        """Returns z = alpha x + sigma eps, a draw of q(z | image) at gamma, and its noise eps ~ N(0, I)."""
        x = self.observation.encode(image)
        eps = jax.random.normal(key, x.shape, x.dtype)
        return diffuse(self.path, gamma, x, eps), eps

    def denoise(
        self,
        z: Float[Array, "h w c"],
        gamma: Float[Array, ""],
        condition: Condition | None = None,
        *,
        key: PRNGKeyArray | None = None,
    ) -> Estimate:
        """x_hat and eps_hat for one latent z at gamma. `key` drives dropout; without it there is none.

        It works under `jax.jit` and `jax.vmap`.

        Args:
            condition: side information on the image by name, such as its label.
        """
        shown = self.prediction.network_input(z, gamma, self.path)
        output = self.network(shown, gamma, condition or {}, key=key)
        return self.prediction(output, z, gamma, self.path)

    def x_hat(self, y: Float[Array, "h w c"], gamma: Float[Array, ""]) -> Float[Array, "h w c"]:
        """The estimate of the data from y = z / alpha."""
        return self.denoise(self.path.alpha(gamma) * y, gamma).x_hat

    @property
    def dimensions(self) -> int:
        """Number of values in one image."""
        height, width, channels = self.shape
        return height * width * channels
