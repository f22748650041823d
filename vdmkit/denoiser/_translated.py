# SPDX-License-Identifier: Apache-2.0
"""Uses a network that was trained for one prediction in a model with another."""

from typing import Annotated, ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from vdmkit.denoiser._linear import AbstractDirection, direction_of
from vdmkit.errors import RecipeError
from vdmkit.networks import AbstractNetwork, Condition
from vdmkit.noise import AbstractPath
from vdmkit.registry import Choice, register
from vdmkit.typing import Image, Scalar


@register("network", "translated")
class Translated(AbstractNetwork):
    """Converts a network's output from one prediction and path to another.

    The change of variables of Kingma et al. 2021, section 5.1, which keeps the estimates of x and eps. Further outputs,
    such as those of learned variances, mean the same on every path.

    Args:
        network: The trained network.
        trained_as: Prediction that the network was trained for, a direction in x and eps.
        trained_on: Path that the network was trained on.
        read_as: Prediction of the new model.
        read_on: Path of the new model.
    """

    hands_labels_on: ClassVar[bool] = True

    inner: AbstractNetwork
    trained_as: AbstractDirection
    trained_on: AbstractPath
    read_as: AbstractDirection
    read_on: AbstractPath
    outputs: int = eqx.field(static=True)

    def __init__(
        self,
        shape: tuple[int, int, int],
        outputs: int,
        gamma_range: tuple[float, float],
        classes: int,
        key: PRNGKeyArray,
        *,
        network: Annotated[Choice, "network"],
        trained_as: Annotated[Choice, "prediction"],
        trained_on: Annotated[Choice, "path"],
        read_as: Annotated[Choice, "prediction"],
        read_on: Annotated[Choice, "path"],
    ):
        self.trained_as, self.read_as = direction_of(trained_as), direction_of(read_as)
        if outputs > self.trained_as.outputs:
            raise RecipeError(
                f"the network gives {self.trained_as.outputs} value per pixel and channel, but the prediction asks for "
                f"{outputs}."
            )
        self.outputs = outputs
        self.trained_on, self.read_on = trained_on.build(), read_on.build()
        context = {"gamma_range": gamma_range, "classes": classes, "key": key, "outputs": self.trained_as.outputs}
        self.inner = network.build(shape=shape, **context)

    def __call__(
        self,
        z: Image,
        gamma: Scalar,
        condition: Condition,
        *,
        key: PRNGKeyArray | None = None,
    ) -> Float[Array, "h w c k"]:
        # The network's input is z times a known factor, which gives y = z / alpha.
        shown = self.read_as.network_input(jnp.ones_like(z) * self.read_on.alpha(gamma), gamma, self.read_on)
        latent = self.trained_on.alpha(gamma) * z / shown
        output = self.inner(self.trained_as.network_input(latent, gamma, self.trained_on), gamma, condition, key=key)
        estimate = self.trained_as(output, latent, gamma, self.trained_on)
        a, b = self.read_as.direction(gamma, self.read_on)
        direction = a * estimate.x_hat + b * estimate.eps_hat
        return jnp.concatenate([direction[..., None], output[..., 1 : self.outputs]], axis=-1)
