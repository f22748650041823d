# SPDX-License-Identifier: Apache-2.0
"""Likelihoods and bounds without Monte Carlo, for toy data of a known distribution and their exact denoiser.

Gaussian data. Along an axis of the covariance with variance s^2, at distance y from the mean and with v = exp(gamma):

    E |eps - eps_hat|^2 = (y^2 v + s^4) / (s^2 + v)^2

    int 1/2 E |eps - eps_hat|^2 dgamma = 1/2 [ -y^2 / (s^2 + v) + log(v / (s^2 + v)) + s^2 / (s^2 + v) ]

Independent pixels with levels. Each pixel is a scalar problem: given level k, the latent divided by alpha is
x_k + exp(gamma / 2) eps, and each term of `vdmkit.losses` is a mean over one eps ~ N(0, 1). With d_l the distance to
level l in units of the noise:

    d_l = (x_k - x_l) exp(-gamma / 2) + eps
    p(l | z) ~ P(l) exp(-d_l^2 / 2),   eps_hat - eps = sum_l p(l | z) (d_l - d_k)

The mean is a trapezoid sum: with steps h its error is exp(-2 pi w / h) for a function analytic within w of the real
axis. Between levels s noise standard deviations apart, p has poles at w = pi / s, near |eps| = s / 2 where the density
is exp(-s^2 / 8): the error of h = 0.1 is 1e-13 for any s. The same number of Gauss-Hermite nodes would extend to 26
with a spacing of 0.23.

The true -log P also bounds what a likelihood can be: see `impossible_below`.
"""

from typing import Any

import numpy as np
from jaxtyping import Float, Real

from vdmkit.data.sources import Pixels
from vdmkit.decoders import AbstractObservation, CategoricalObservation, GaussianObservation
from vdmkit.errors import RecipeError
from vdmkit.likelihood.bound import VariationalBound
from vdmkit.likelihood.estimator import AbstractEstimator
from vdmkit.likelihood.importance import ImportanceWeighted
from vdmkit.likelihood.intervals import depth_beyond_doubt
from vdmkit.losses.bound import Bound, bits_per_dim
from vdmkit.model import DiffusionModel
from vdmkit.reverse import GaussianKernel
from vdmkit.toy_data import Exact, GaussianMixture, LevelMixture


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
    """Returns the expected prior and reconstruction terms of each image in nats, with the gaussian observation.

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


_EPS = np.linspace(-9, 9, 181)  # the probability beyond is 2e-19
_WEIGHT = np.exp(-(_EPS**2) / 2) / np.exp(-(_EPS**2) / 2).sum()
# The loss is analytic in gamma within about pi / 2, so Gauss-Legendre has an error of 1e-13 on these panels. It is
# larger for an improbable level, whose posterior switches in a fraction of a panel: 1e-5 of hundreds of nats.
_PANEL, _NODES = 0.5, 8
_STEEP = -600.0  # log P of a level, below which products may underflow (the smallest float64 is exp(-745))


def exact_terms(
    distribution: LevelMixture, gammas: Float[np.ndarray, " steps_plus_1"], *, continuous: bool = False
) -> Bound:
    """Returns expectations of the bound's three terms for every level of every pixel, float64 nats, (h, w, c, V).

    They hold on any path, with the categorical observation and the exact denoiser. See `terms_of_images`.

    Args:
        distribution: A distribution of one component.
        gammas: The schedule at t = 0, 1/T, ..., 1, for the bound of T steps.
        continuous: Whether to return the continuous-time bound between the first and the last of `gammas` instead.

    Raises:
        RecipeError: the pixels are not independent, or the gammas do not increase.
    """
    if len(distribution.weights) != 1:
        raise RecipeError(f"a mixture of {len(distribution.weights)} components: its pixels are not independent.")
    if len(gammas) < 2 or not (np.diff(gammas) > 0).all():
        raise RecipeError(f"gammas = {gammas}: expected at least two that rise.")
    log_probs = distribution.log_probs()[0].reshape(-1, distribution.levels)
    nodes, rates = _panels(gammas[0], gammas[-1]) if continuous else (gammas[1:], np.expm1(np.diff(gammas)))
    diffusion = sum(0.5 * rate * _expected_error(log_probs, gamma) for gamma, rate in zip(nodes, rates, strict=True))
    prior = prior_of(_values(distribution.levels), gammas[-1])
    reconstruction = _reconstruction(distribution.levels, gammas[0])
    shape = (*distribution.shape, distribution.levels)
    return Bound(
        *(np.broadcast_to(term, log_probs.shape).reshape(shape) for term in (prior, reconstruction, diffusion))
    )


def terms_of_images(table: Bound, images: Real[np.ndarray, "n h w c"]) -> Bound:
    """Returns the three terms of each image, (n,), as sums over the table of `exact_terms`."""
    index = images[..., None].astype(int)
    terms = (table.prior, table.reconstruction, table.diffusion)
    return Bound(*(np.take_along_axis(np.asarray(term)[None], index, -1).sum((1, 2, 3, 4)) for term in terms))


def has_known_ends(observation: AbstractObservation) -> bool:
    """Returns whether the decoder is exactly one of the two that `ends_of_images` supports."""
    return type(observation) in (CategoricalObservation, GaussianObservation)


def ends_of_images(
    images: Real[np.ndarray, "n h w c"], levels: int, gamma_0: float, gamma_1: float
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Returns the expected prior and reconstruction terms of each image in nats, which do not depend on the network.

    They hold for the categorical observation, or the gaussian one if `levels` is 0.
    """
    if not levels:
        return ends_of_continuous(images, gamma_0, gamma_1)
    prior, reconstruction = prior_of(_values(levels), gamma_1), _reconstruction(levels, gamma_0)
    return prior[images].sum((1, 2, 3)), reconstruction[images].sum((1, 2, 3))


def prior_of(x: Float[np.ndarray, "*values"], gamma_1: float) -> Float[np.ndarray, "*values"]:
    """Returns KL(N(alpha x, sigma^2), N(0, 1)) of each value in nats, with alpha^2 + sigma^2 = 1."""
    alpha2 = 1 / (1 + np.exp(gamma_1))
    return 0.5 * (alpha2 * x**2 - alpha2 + np.logaddexp(0, -gamma_1))


def _reconstruction(levels: int, gamma_0: float) -> Float[np.ndarray, " v"]:
    """Returns -E log p(k | z_0) with the posterior of equally probable levels."""
    half_squares = 0.5 * _distances(levels, gamma_0) ** 2
    log_prob = -np.diagonal(half_squares, axis1=0, axis2=1).T - np.logaddexp.reduce(-half_squares, axis=1)
    return -log_prob @ _WEIGHT


def _expected_error(log_probs: Float[np.ndarray, "pixels v"], gamma: float) -> Float[np.ndarray, "pixels v"]:
    """Returns E (eps - eps_hat)^2 at gamma for every pixel and level."""
    levels, steep = log_probs.shape[-1], log_probs.min(1) < _STEEP
    x = _values(levels)
    offsets = ((x[:, None] - x) * np.exp(-gamma / 2))[..., None]  # d_l - d_k without the cancellation of eps
    log_density = -0.5 * _distances(levels, gamma) ** 2
    error = np.empty_like(log_probs)
    error[~steep] = _error_of_pixels(np.exp(log_probs[~steep]), _scaled_exp(log_density), offsets)
    for pixel in np.flatnonzero(steep):
        joint = _scaled_exp(log_probs[pixel][:, None] + log_density)
        error[pixel] = _error_of_pixels(np.ones((1, levels)), joint, offsets)[0]
    return error


def _error_of_pixels(
    probs: Float[np.ndarray, "pixels l"], likelihood: Float[np.ndarray, "k l n"], offsets: Float[np.ndarray, "k l 1"]
) -> Float[np.ndarray, "pixels k"]:
    """Returns the error of pixels with these P(l), given p(z | l) for every true level k and every eps."""
    miss = (probs @ (offsets * likelihood)) / (probs @ likelihood)
    return (miss**2 @ _WEIGHT).T


def _scaled_exp(exponents: Float[np.ndarray, "k l n"]) -> Float[np.ndarray, "k l n"]:
    """Returns the exponentials, divided by the largest over l."""
    return np.exp(exponents - exponents.max(1, keepdims=True))


def _distances(levels: int, gamma: float) -> Float[np.ndarray, "k l n"]:
    """Returns d_l for every level k, level l and eps."""
    x = _values(levels)
    return ((x[:, None] - x) * np.exp(-gamma / 2))[..., None] + _EPS


def _values(levels: int) -> Float[np.ndarray, " v"]:
    """Returns `level_values` in float64, which may be disabled in JAX."""
    return 2 * (np.arange(levels) + 0.5) / levels - 1


def _panels(low: float, high: float) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Returns nodes and weights of Gauss-Legendre quadrature from low to high."""
    edges = np.linspace(low, high, int(np.ceil((high - low) / _PANEL)) + 1)
    node, weight = np.polynomial.legendre.leggauss(_NODES)
    half = np.diff(edges)[:, None] / 2
    return (edges[:-1, None] + half * (1 + node)).ravel(), (half * weight).ravel()


_NATS = 20.0
_FALSE_ALARM = 9e-7  # probability allotted to Monte Carlo; with exp(-20) for the images it is about 1e-6


def impossible_below(
    exact: Float[np.ndarray, " m"], nats: Float[np.ndarray, "2 m"], estimator: AbstractEstimator[Any]
) -> float:
    """Returns the mean in nats per image below which these estimates cannot be likelihoods.

    It is minus infinity if the Monte Carlo error is too large to decide.

    For images drawn from P, sum log(p / P) exceeds 20 nats with probability at most exp(-20), for any normalised p that
    does not depend on the images (Markov's inequality). The estimates bound -log p in expectation only, and their
    errors are skewed, so an allowance is subtracted: see `depth_beyond_doubt`. Importance-weighted bounds need no
    allowance, because the expectation of exp(-nats) is at most p and Markov's inequality applies directly. Estimates
    without Monte Carlo error need none either.

    Args:
        exact: -log P of each image.
        nats: Two independent estimates of a bound on -log p for each image.
        estimator: The estimator of `nats`.
    """
    without_allowance = isinstance(estimator, ImportanceWeighted) or bool((nats[0] == nats[1]).all())
    depth = 0.0 if without_allowance else depth_beyond_doubt((nats - exact).ravel(), _FALSE_ALARM)
    return float(exact.mean()) - _NATS / len(exact) - depth


def below_the_truth(value: float, exact: float, lowest: float, levels: int) -> list[str]:
    """Returns a reason not to trust a value in bits/dim that is less than the `lowest` possible one."""
    if not value < lowest:
        return []
    failure = "these probabilities do not sum to 1" if levels else "this density does not integrate to 1"
    return [
        f"{value:.4f} bits/dim is impossible: the distribution that these images were drawn from gives them "
        f"{exact:.4f}, so {failure}."
    ]


def exact_bound(model: DiffusionModel, images: Pixels, estimator: AbstractEstimator[Any]) -> float | None:
    """Returns the expectation of the bound for the exact denoiser of independent pixels or a Gaussian, else None."""
    if not (isinstance(model.prediction, Exact) and isinstance(estimator, VariationalBound)):
        return None
    distribution = model.prediction.distribution
    if not has_known_ends(model.observation):
        return None
    if len(distribution.weights) > 1:
        return None
    if estimator.steps and estimator.kernel != GaussianKernel():
        return None
    gammas, images = estimator.gammas(model.schedule), images[:]
    match distribution:
        case GaussianMixture():
            bound = gaussian_terms(distribution, images, gammas, continuous=not estimator.steps)
        case LevelMixture():
            bound = terms_of_images(exact_terms(distribution, gammas, continuous=not estimator.steps), images)
        case _:
            return None
    return bits_per_dim(float(np.mean(bound.total)), model.dimensions)
