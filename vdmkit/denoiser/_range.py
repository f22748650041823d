# SPDX-License-Identifier: Apache-2.0
"""Predictions with learned variances beside the direction (Nichol & Dhariwal 2021, arXiv 2102.09672).

The second output is 2 v - 1, where v interpolates between the logs of the least and the largest variance of a step
(eq. 15): see kernel learned_range.
"""

from dataclasses import replace
from typing import Annotated

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from vdmkit.denoiser._linear import AbstractDirection, Direction, direction_of
from vdmkit.errors import RecipeError
from vdmkit.estimate import Estimate
from vdmkit.noise import AbstractPath
from vdmkit.registry import Choice, register
from vdmkit.typing import Image, Scalar

_V = Choice("prediction", "v")


class AbstractRange(AbstractDirection):
    """A direction, and beside it 2 v - 1 of learned variances."""

    outputs: int = eqx.field(static=True, default=2, init=False)

    def __call__(self, output: Float[Array, "h w c 2"], z: Image, gamma: Scalar, path: AbstractPath) -> Estimate:
        return replace(super().__call__(output, z, gamma, path), variance_share=(output[..., 1] + 1) / 2)


@register("prediction", "eps_and_range")
class EpsAndRange(AbstractRange):
    """The network gives eps, and beside it 2 v - 1 of learned variances (Nichol & Dhariwal 2021, arXiv 2102.09672)."""

    def direction(self, gamma: Scalar, path: AbstractPath) -> Direction:
        return jnp.zeros_like(gamma), jnp.ones_like(gamma)


@register("prediction", "with_range")
class WithRange(AbstractRange):
    """The network gives another direction than eps, and beside it 2 v - 1 of learned variances.

    Args:
        of: The prediction that names the direction, without learned variances.

    Raises:
        RecipeError: `of` is not a direction, or learns variances itself.
    """

    of: AbstractDirection

    def __init__(self, *, of: Annotated[Choice, "prediction"] = _V):
        self.outputs = 2
        self.of = direction_of(of)
        if self.of.outputs > 1:
            raise RecipeError(f"with_range of {of.name}: it has {self.of.outputs} outputs itself. Use it alone.")

    def direction(self, gamma: Scalar, path: AbstractPath) -> Direction:
        return self.of.direction(gamma, path)

    def network_input(self, z: Image, gamma: Scalar, path: AbstractPath) -> Image:
        return self.of.network_input(z, gamma, path)


def learns_range(choice: Choice) -> bool:
    """Returns whether a prediction learns variances."""
    target = choice.component.target
    return isinstance(target, type) and issubclass(target, AbstractRange)
