# SPDX-License-Identifier: Apache-2.0
"""The map from images to real data, and the decoder p(x | z_0)."""

import abc
from collections.abc import Callable

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Real

from vdmkit.arguments import check_integer
from vdmkit.errors import RecipeError
from vdmkit.estimate import Estimate
from vdmkit.registry import define_kind
from vdmkit.typing import Image, Scalar

Lazy = Callable[[], Estimate]


def level_values(levels: int) -> Float[Array, " v"]:
    """Returns x_k = 2 (k + 1/2) / V - 1, the centres of V equal bins of [-1, 1]."""
    return value_of(jnp.arange(levels), levels)


def value_of(level: Int[Array, "*shape"], levels: int) -> Float[Array, "*shape"]:
    """Returns x_k of each level k."""
    return 2 * (level + 0.5) / levels - 1


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

    Images are uint8 levels 0..V-1, or the data x themselves where `levels` is 0. `estimate()` is what the model
    estimates at z_0, for decoders that ask: it calls the network.
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
    def log_prob(self, image: Real[Array, "h w c"], z_0: Image, gamma_0: Scalar, estimate: Lazy) -> Scalar:
        """Returns log p(x | z_0) in nats, summed over pixels and channels."""

    def log_probs(self, z_0: Image, gamma_0: Scalar, estimate: Lazy) -> Float[Array, "h w c v"]:
        """Returns log p(x = level k | z_0) of every pixel in nats, which compression needs; other uses do not call it.

        Raises:
            RecipeError: the observation does not give them.
        """
        raise RecipeError(f"observation {type(self).__name__} gives no probabilities of levels, for a codec.")

    @abc.abstractmethod
    def decode(self, z_0: Image, gamma_0: Scalar, estimate: Lazy) -> Real[Array, "h w c"]:
        """Returns the most probable image."""


define_kind("observation", "the decoder p(x | z_0), from the last latent to levels", AbstractObservation, ("levels",))
