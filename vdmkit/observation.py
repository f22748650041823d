# SPDX-License-Identifier: Apache-2.0
"""The map from images to real data, and the decoder p(x | z_0)."""

import abc
from collections.abc import Callable
from dataclasses import KW_ONLY
from typing import Annotated

import equinox as eqx
import jax
import jax.numpy as jnp
from annotated_types import Ge, Le
from jaxtyping import Array, Float, Integer, Real, UInt8

from vdmkit.arguments import check_integer
from vdmkit.errors import RecipeError
from vdmkit.registry import define_kind, register
from vdmkit.typing import Image, Scalar

Lazy = Callable[[], Image]


def level_values(levels: int) -> Float[Array, " v"]:
    """Returns x_k = 2 (k + 1/2) / V - 1, the centres of V equal bins of [-1, 1]."""
    return 2 * (jnp.arange(levels) + 0.5) / levels - 1


def require_even_levels(observation: "AbstractObservation", component: str) -> None:
    """Raises RecipeError unless the observation puts the levels at `level_values`, as `component` needs."""
    if observation.spacing != 2 / observation.levels:
        raise RecipeError(
            f"{component} needs levels at the centres of equal bins, but the observation puts them elsewhere. "
            'Use observation "categorical".'
        )


def require_levels(levels: int, component: str) -> None:
    """Raises RecipeError unless there are 2 to 256 levels; 0 stands for continuous data, without levels."""
    if levels == 0:
        raise RecipeError(f"{component} needs data with levels, but the data are continuous.")
    check_integer("levels", levels, least=2, most=256)  # of uint8


class AbstractObservation(eqx.Module):
    """The decoder p(x | z_0). `z_0` is passed divided by alpha_0, so that a decoder does not depend on the path.

    Images are uint8 levels 0..V-1, or the data x themselves where `levels` is 0. `x_hat()` is what the model estimates
    at z_0, for decoders that ask: it calls the network.
    """

    levels: eqx.AbstractVar[int]

    @property
    def spacing(self) -> float:
        """Returns the distance between the data of neighbouring levels: the width of bins that tile the axis."""
        return 2 / self.levels

    def encode(self, image: Real[Array, "h w c"]) -> Image:
        """Maps levels 0..V-1 to data x in [-1 + 1/V, 1 - 1/V]."""
        return level_values(self.levels)[image] if self.levels else image.astype(float)

    @abc.abstractmethod
    def log_prob(self, image: Real[Array, "h w c"], z_0: Image, gamma_0: Scalar, x_hat: Lazy) -> Scalar:
        """Returns log p(x | z_0) in nats, summed over pixels and channels."""

    def log_probs(self, z_0: Image, gamma_0: Scalar, x_hat: Lazy) -> Float[Array, "h w c v"]:
        """Returns log p(x = level k | z_0) of every pixel in nats, which compression needs; other uses do not call it.

        Raises:
            RecipeError: the observation does not give them.
        """
        raise RecipeError(f"observation {type(self).__name__} gives no probabilities of levels, for a codec.")

    @abc.abstractmethod
    def decode(self, z_0: Image, gamma_0: Scalar, x_hat: Lazy) -> Real[Array, "h w c"]:
        """Returns the most probable image."""


define_kind("observation", "the decoder p(x | z_0), from the last latent to levels", AbstractObservation, ("levels",))


@register("observation", "categorical")
class CategoricalObservation(AbstractObservation):
    """p(x | z_0) ~ q(z_0 | x), normalised over the levels of each pixel (Kingma et al. 2021, section 3.3)."""

    levels: int = eqx.field(static=True)

    def __check_init__(self) -> None:
        require_levels(self.levels, "the categorical observation")

    def log_probs(self, z_0: Image, gamma_0: Scalar, x_hat: Lazy) -> Float[Array, "h w c v"]:
        distance = (z_0[..., None] - level_values(self.levels)) * jnp.exp(-gamma_0 / 2)
        return jax.nn.log_softmax(-0.5 * distance**2)

    def log_prob(self, image: UInt8[Array, "h w c"], z_0: Image, gamma_0: Scalar, x_hat: Lazy) -> Scalar:
        index = image[..., None].astype(int)
        return jnp.take_along_axis(self.log_probs(z_0, gamma_0, x_hat), index, axis=-1).sum()

    def decode(self, z_0: Image, gamma_0: Scalar, x_hat: Lazy) -> UInt8[Array, "h w c"]:
        return jnp.argmax(self.log_probs(z_0, gamma_0, x_hat), axis=-1).astype(jnp.uint8)


@register("observation", "gaussian")
class GaussianObservation(AbstractObservation):
    """p(x | z_0) ~ q(z_0 | x) for continuous data, a density: N(x; z_0 / alpha_0, exp(gamma_0) I)."""

    levels: int = eqx.field(static=True, default=0)

    def __check_init__(self) -> None:
        if self.levels:
            raise RecipeError(f"the gaussian observation needs continuous data, but these have {self.levels} levels.")

    def log_prob(self, image: Image, z_0: Image, gamma_0: Scalar, x_hat: Lazy) -> Scalar:
        distance = (self.encode(image) - z_0) * jnp.exp(-gamma_0 / 2)
        return -0.5 * (distance**2 + gamma_0 + jnp.log(2 * jnp.pi)).sum()

    def decode(self, z_0: Image, gamma_0: Scalar, x_hat: Lazy) -> Image:
        return z_0


@register("observation", "discretised_gaussian")
class DiscretisedGaussian(AbstractObservation):
    """p(x | z_0) as the mass of N(x_hat(z_0), sd^2) in the bin of each level; the two outer bins reach to infinity.

    Ho et al. 2020, arXiv 2006.11239, eq. 13, as in improved-diffusion: levels lie at 2 k / (V - 1) - 1, and the normal
    distribution function is taken as 1/2 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)) / 2.

    Args:
        sd: Standard deviation; DDPM takes the square root of the variance of its second step.
    """

    levels: int = eqx.field(static=True)
    _: KW_ONLY
    sd: Annotated[float, Ge(1e-5), Le(10)] = eqx.field(static=True, default=0.0074)

    def __check_init__(self) -> None:
        require_levels(self.levels, "the discretised Gaussian observation")

    @property
    def spacing(self) -> float:
        return 2 / (self.levels - 1)

    def encode(self, image: Integer[Array, "*shape"]) -> Float[Array, "*shape"]:
        return 2 * image.astype(float) / (self.levels - 1) - 1

    def log_prob(self, image: UInt8[Array, "h w c"], z_0: Image, gamma_0: Scalar, x_hat: Lazy) -> Scalar:
        return self._log_mass(image, x_hat()).sum()

    def log_probs(self, z_0: Image, gamma_0: Scalar, x_hat: Lazy) -> Float[Array, "h w c v"]:
        mean = x_hat()
        return jax.vmap(lambda level: self._log_mass(level, mean), out_axes=-1)(jnp.arange(self.levels))

    def _log_mass(self, level: Integer[Array, "*shape"], mean: Image) -> Image:
        distance, half = self.encode(level) - mean, 1 / (self.levels - 1)
        above, below = (_tanh_argument((distance + side) / self.sd) for side in (half, -half))
        inner = jnp.log(jnp.maximum((jnp.tanh(above) - jnp.tanh(below)) / 2, 1e-12))
        last = level == self.levels - 1
        return jnp.where(level == 0, _log_cdf(above), jnp.where(last, _log_cdf(-below), inner))

    def decode(self, z_0: Image, gamma_0: Scalar, x_hat: Lazy) -> UInt8[Array, "h w c"]:
        nearest = jnp.round((x_hat() + 1) / 2 * (self.levels - 1))
        return jnp.clip(nearest, 0, self.levels - 1).astype(jnp.uint8)


def _tanh_argument(x: Image) -> Image:
    return jnp.sqrt(2 / jnp.pi) * (x + 0.044715 * x**3)


def _log_cdf(argument: Image) -> Image:
    """Returns log((1 + tanh) / 2), at least log 1e-12."""
    return jnp.maximum(jax.nn.log_sigmoid(2 * argument), jnp.log(1e-12))
