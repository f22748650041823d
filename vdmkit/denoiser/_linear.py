# SPDX-License-Identifier: Apache-2.0
"""Predictions of a direction a x + b eps; x and eps follow from it and z = alpha x + sigma eps by a 2x2 solve."""

import abc
from dataclasses import KW_ONLY

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from vdmkit.denoiser._prediction import AbstractPrediction
from vdmkit.errors import RecipeError
from vdmkit.estimate import Estimate
from vdmkit.limits import DataScale
from vdmkit.noise import AbstractPath
from vdmkit.registry import Choice, register
from vdmkit.typing import Image, Scalar

Direction = tuple[Scalar, Scalar]


def solve_direction(
    output: Image,
    z: Image,
    direction: Direction,
    gamma: Scalar,
    path: AbstractPath,
) -> Estimate:
    """Solves a x + b eps = output, alpha x + sigma eps = z for (x, eps), where direction = (a, b)."""
    a, b = direction
    alpha, sigma = path.alpha(gamma), path.sigma(gamma)
    determinant = a * sigma - b * alpha
    return Estimate((sigma * output - b * z) / determinant, (a * z - alpha * output) / determinant)


class AbstractDirection(AbstractPrediction):
    """A prediction whose network gives a x + b eps; an implementer supplies the direction (a, b).

    Of several `outputs` the first is the direction.
    """

    @abc.abstractmethod
    def direction(self, gamma: Scalar, path: AbstractPath) -> Direction:
        """Returns (a, b) at gamma."""

    def __call__(self, output: Float[Array, "h w c k"], z: Image, gamma: Scalar, path: AbstractPath) -> Estimate:
        return solve_direction(output[..., 0], z, self.direction(gamma, path), gamma, path)


def is_direction(choice: Choice) -> bool:
    """Returns whether a prediction is a direction in x and eps, rather than a distribution over levels."""
    target = choice.component.target
    return isinstance(target, type) and issubclass(target, AbstractDirection)


def direction_of(choice: Choice) -> AbstractDirection:
    """Builds a prediction. Raises RecipeError if it is a distribution over levels, which cannot be converted."""
    if not is_direction(choice):
        raise RecipeError(f"prediction {choice.name} is not a direction in x and eps, so it cannot be converted.")
    return choice.build()


@register("prediction", "eps")
class Eps(AbstractDirection):
    """The network gives the noise eps (Kingma et al. 2021; Ho et al. 2020, arXiv 2006.11239)."""

    outputs: int = eqx.field(static=True, default=1, init=False)

    def direction(self, gamma: Scalar, path: AbstractPath) -> Direction:
        return jnp.zeros_like(gamma), jnp.ones_like(gamma)


@register("prediction", "x")
class X(AbstractDirection):
    """The network gives the data x."""

    outputs: int = eqx.field(static=True, default=1, init=False)

    def direction(self, gamma: Scalar, path: AbstractPath) -> Direction:
        return jnp.ones_like(gamma), jnp.zeros_like(gamma)


@register("prediction", "v")
class V(AbstractDirection):
    """The network gives v = alpha eps - sigma x, alpha^2 + sigma^2 = 1 (Salimans & Ho 2022, arXiv 2202.00512)."""

    outputs: int = eqx.field(static=True, default=1, init=False)

    def direction(self, gamma: Scalar, path: AbstractPath) -> Direction:
        scale = path.scale(gamma)  # v is defined for the variance preserving path: undo this path's scale
        return -path.sigma(gamma) / scale, path.alpha(gamma) / scale


@register("prediction", "score")
class Score(AbstractDirection):
    """The network gives grad log q(z), which is -eps / sigma (Song et al. 2021, arXiv 2011.13456)."""

    outputs: int = eqx.field(static=True, default=1, init=False)

    def direction(self, gamma: Scalar, path: AbstractPath) -> Direction:
        return jnp.zeros_like(gamma), -1 / path.sigma(gamma)


@register("prediction", "velocity")
class Velocity(AbstractDirection):
    """The network gives eps - x, which is dz/dsigma on the straight line (Lipman et al. 2023, arXiv 2210.02747)."""

    outputs: int = eqx.field(static=True, default=1, init=False)

    def direction(self, gamma: Scalar, path: AbstractPath) -> Direction:
        return -jnp.ones_like(gamma), jnp.ones_like(gamma)


@register("prediction", "unit_velocity")
class UnitVelocity(AbstractDirection):
    """The network is shown z itself and gives (eps - x) / sqrt 2 (Zheng et al. 2023, arXiv 2305.03935, i-DODE's SP)."""

    outputs: int = eqx.field(static=True, default=1, init=False)

    def direction(self, gamma: Scalar, path: AbstractPath) -> Direction:
        return jnp.full_like(gamma, -(0.5**0.5)), jnp.full_like(gamma, 0.5**0.5)

    def network_input(self, z: Image, gamma: Scalar, path: AbstractPath) -> Image:
        return z


@register("prediction", "edm")
class Edm(AbstractDirection):
    """The network gives F, x = c_skip z / alpha + c_out F (Karras et al. 2022, arXiv 2206.00364, Table 1).

    With s = sigma / alpha: c_skip = sd^2 / (s^2 + sd^2), c_out = s sd / sqrt(s^2 + sd^2), c_in = 1 / sqrt(s^2 + sd^2).

    Args:
        sd: Standard deviation of the data.
    """

    _: KW_ONLY
    sd: DataScale = eqx.field(static=True, default=0.5)
    outputs: int = eqx.field(static=True, default=1, init=False)

    def direction(self, gamma: Scalar, path: AbstractPath) -> Direction:
        """Returns the direction of F = (s x / sd - sd eps) / sqrt(s^2 + sd^2)."""
        s = jnp.exp(gamma / 2)
        root = jnp.hypot(s, self.sd)
        return s / self.sd / root, -self.sd / root

    def network_input(self, z: Image, gamma: Scalar, path: AbstractPath) -> Image:
        return z / path.alpha(gamma) / jnp.hypot(jnp.exp(gamma / 2), self.sd)
