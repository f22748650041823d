# SPDX-License-Identifier: Apache-2.0
"""A network that was trained for one prediction, in the place of one for another."""

from typing import Annotated, ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from vdmkit.denoiser._linear import AbstractDirection
from vdmkit.errors import RecipeError
from vdmkit.networks import AbstractNetwork, Condition
from vdmkit.noise import AbstractPath
from vdmkit.registry import Choice, register


@register("network", "translated")
class Translated(AbstractNetwork):
    """Reads a network's output as one prediction on one path, and says the same in the terms of another.

    The change of variables of Kingma et al. 2021, section 5.1: what is known of x and eps does not change.

    Args:
        network: As it was trained.
        trained_as: The prediction that it was trained for, one of a direction in the plane of x and eps,
        trained_on: and the path.
        read_as: The prediction of the model around it,
        read_on: and its path.
    """

    hands_labels_on: ClassVar[bool] = True

    inner: AbstractNetwork
    trained_as: AbstractDirection
    trained_on: AbstractPath
    read_as: AbstractDirection
    read_on: AbstractPath

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
        if outputs != 1:
            raise RecipeError(f"a direction is one value a pixel and channel, and the prediction asks for {outputs}.")
        self.trained_as, self.read_as = _direction(trained_as), _direction(read_as)
        self.trained_on, self.read_on = trained_on.build(), read_on.build()
        context = {"outputs": outputs, "gamma_range": gamma_range, "classes": classes, "key": key}
        self.inner = network.build(shape=shape, **context)

    def __call__(
        self,
        z: Float[Array, "h w c"],
        gamma: Float[Array, ""],
        condition: Condition,
        *,
        key: PRNGKeyArray | None = None,
    ) -> Float[Array, "h w c 1"]:
        # What the network is shown is z times a factor, which leads back to y = z / alpha.
        shown = self.read_as.network_input(jnp.ones_like(z) * self.read_on.alpha(gamma), gamma, self.read_on)
        latent = self.trained_on.alpha(gamma) * z / shown
        output = self.inner(self.trained_as.network_input(latent, gamma, self.trained_on), gamma, condition, key=key)
        estimate = self.trained_as(output, latent, gamma, self.trained_on)
        a, b = self.read_as.direction(gamma, self.read_on)
        return (a * estimate.x_hat + b * estimate.eps_hat)[..., None]


def is_direction(choice: Choice) -> bool:
    """Whether a prediction is of a direction in the plane of x and eps, and not of a distribution over levels."""
    target = choice.component.target
    return isinstance(target, type) and issubclass(target, AbstractDirection)


def _direction(choice: Choice) -> AbstractDirection:
    """Raises RecipeError if it is a distribution over levels, which no direction can say."""
    if not is_direction(choice):
        raise RecipeError(f"prediction {choice.name} is no direction in the plane of x and eps: nothing translates it.")
    return choice.build()
