# SPDX-License-Identifier: Apache-2.0
"""Predictions of a direction a x + b eps. With z = alpha x + sigma eps, one 2x2 solve reads all of them."""

import equinox as eqx
from jaxtyping import Array, Float

from vdmkit.denoiser._prediction import AbstractPrediction, Estimate
from vdmkit.noise import AbstractPath
from vdmkit.registry import register


def solve_direction(
    output: Float[Array, "h w c"],
    z: Float[Array, "h w c"],
    direction: tuple[Float[Array, ""] | float, Float[Array, ""] | float],
    gamma: Float[Array, ""],
    path: AbstractPath,
) -> Estimate:
    """Solve a x + b eps = output, alpha x + sigma eps = z for (x, eps), where direction = (a, b)."""
    a, b = direction
    alpha, sigma = path.alpha(gamma), path.sigma(gamma)
    determinant = a * sigma - b * alpha
    return Estimate((sigma * output - b * z) / determinant, (a * z - alpha * output) / determinant)


@register("prediction", "eps")
class Eps(AbstractPrediction):
    """The network gives the noise eps (Kingma et al. 2021; Ho et al. 2020)."""

    outputs: int = eqx.field(static=True, default=1, init=False)

    def __call__(
        self, output: Float[Array, "h w c 1"], z: Float[Array, "h w c"], gamma: Float[Array, ""], path: AbstractPath
    ) -> Estimate:
        return solve_direction(output[..., 0], z, (0.0, 1.0), gamma, path)
