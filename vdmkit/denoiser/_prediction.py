# SPDX-License-Identifier: Apache-2.0
"""The interface of predictions, which turn a network's output into an estimate of the data."""

import abc

import equinox as eqx
from jaxtyping import Array, Float

from vdmkit.estimate import Estimate
from vdmkit.noise import AbstractPath
from vdmkit.registry import define_kind
from vdmkit.typing import Image, Scalar


class AbstractPrediction(eqx.Module):
    """The meaning of a network's output.

    An implementer sets `outputs`, the number of values per pixel and channel, and maps them to an estimate.
    """

    outputs: eqx.AbstractVar[int]

    @abc.abstractmethod
    def __call__(self, output: Float[Array, "h w c k"], z: Image, gamma: Scalar, path: AbstractPath) -> Estimate:
        """Returns the estimate for z at gamma from the network's `output`."""

    def network_input(self, z: Image, gamma: Scalar, path: AbstractPath) -> Image:
        """Returns the network's input: z rescaled to the latent of the variance preserving path."""
        return z / path.scale(gamma)


define_kind(
    "prediction",
    "what the network's output means: eps, or a distribution over levels, ...",
    AbstractPrediction,
    ("shape", "levels", "level_counts", "distribution"),
)
