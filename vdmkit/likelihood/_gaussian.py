# SPDX-License-Identifier: Apache-2.0
r"""The terms of the bound in closed form, for continuous Gaussian data and its exact denoiser.

Along an axis of the covariance with variance s^2, at distance y from the mean and with v = exp(gamma):

    E |eps - eps_hat|^2 = (y^2 v + s^4) / (s^2 + v)^2

    int 1/2 E |eps - eps_hat|^2 dgamma = 1/2 [ -y^2 / (s^2 + v) + log(v / (s^2 + v)) + s^2 / (s^2 + v) ]
"""

import numpy as np
from jaxtyping import Float

from vdmkit.distribution import GaussianMixture
from vdmkit.errors import RecipeError
from vdmkit.objective import Bound


def gaussian_terms(
    distribution: GaussianMixture,
    images: Float[np.ndarray, "n h w c"],
    gammas: Float[np.ndarray, " steps_plus_1"],
    *,
    continuous: bool = False,
) -> Bound:
    """Returns expectations of the bound's three terms for each image, in float64 nats, of shape (n,).

    They hold on any path, with the gaussian observation and the exact denoiser.

    Args:
        distribution: A distribution of one component.
        images: The images.
        gammas: The schedule at t = 0, 1/T, ..., 1, for the bound of T steps.
        continuous: Whether to return the continuous-time bound between the first and the last of `gammas` instead.

    Raises:
        RecipeError: the distribution is a mixture, whose terms have no closed form.
    """
    if len(distribution.weights) != 1:
        raise RecipeError(f"a mixture of {len(distribution.weights)} components: its bound has no closed form.")
    x = images.astype(np.float64)
    y2 = np.asarray(distribution.coordinates(x) - distribution.coordinates(distribution.mean())) ** 2
    s2 = distribution.variances()
    if continuous:
        diffusion = _integral(y2, s2, np.exp(gammas[-1])) - _integral(y2, s2, np.exp(gammas[0]))
    else:
        rates = np.expm1(np.diff(gammas)) / 2
        diffusion = sum(r * _error(y2, s2, np.exp(g)) for r, g in zip(rates, gammas[1:], strict=True))
    prior, reconstruction = ends_of_continuous(x, gammas[0], gammas[-1])
    return Bound(prior, reconstruction, np.asarray(diffusion).sum((1, 2, 3)))


def ends_of_continuous(
    images: Float[np.ndarray, "n h w c"], gamma_0: float, gamma_1: float
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Returns the expectations of each image's prior and reconstruction terms in nats, with the gaussian observation.

    They do not depend on the network.
    """
    alpha2 = 1 / (1 + np.exp(gamma_1))
    prior = 0.5 * (alpha2 * images.astype(np.float64) ** 2 - alpha2 + np.logaddexp(0, -gamma_1)).sum((1, 2, 3))
    return prior, np.full(len(images), images[0].size * (1 + gamma_0 + np.log(2 * np.pi)) / 2)


def _error(y2: Float[np.ndarray, "n h w c"], s2: Float[np.ndarray, "h w c"], v: float) -> Float[np.ndarray, "n h w c"]:
    return (y2 * v + s2**2) / (s2 + v) ** 2


def _integral(
    y2: Float[np.ndarray, "n h w c"], s2: Float[np.ndarray, "h w c"], v: float
) -> Float[np.ndarray, "n h w c"]:
    """Returns the indefinite integral of half the error over log v."""
    return ((s2 - y2) / (s2 + v) - np.log1p(s2 / v)) / 2
