# SPDX-License-Identifier: Apache-2.0
r"""The bound's terms without Monte Carlo, for independent pixels of a known distribution and their exact denoiser.

Pixels are then scalar problems: given level k, the latent divided by alpha is x_k + exp(gamma / 2) eps, and each term
of `vdmkit.objective` is a mean over one eps ~ N(0, 1). In units of the noise the distance to level l is d_l:

    d_l = (x_k - x_l) exp(-gamma / 2) + eps
    p(l | z) ~ P(l) exp(-d_l^2 / 2),   eps_hat - eps = sum_l p(l | z) (d_l - d_k)

The mean is a trapezoid sum: with steps h its error is exp(-2 pi w / h) for a function analytic within w of the real
axis. Between levels s noises apart, p has poles at w = pi / s, near |eps| = s / 2 where the density is exp(-s^2 / 8):
the error of h = 0.1 is 1e-13 for any s. As many Gauss-Hermite nodes reach to 26 and are 0.23 apart.
"""

import numpy as np
from jaxtyping import Float, Real

from vdmkit.distribution import LevelMixture
from vdmkit.errors import RecipeError
from vdmkit.likelihood._gaussian import ends_of_continuous
from vdmkit.objective import Bound
from vdmkit.observation import AbstractObservation, CategoricalObservation, GaussianObservation

_EPS = np.linspace(-9, 9, 181)  # the probability beyond is 2e-19
_WEIGHT = np.exp(-(_EPS**2) / 2) / np.exp(-(_EPS**2) / 2).sum()
# The loss is analytic in gamma within about pi / 2, so Gauss-Legendre has an error of 1e-13 on such panels. It is
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
        RecipeError: pixels are not independent, or gammas do not rise.
    """
    if len(distribution.weights) != 1:
        raise RecipeError(f"a mixture of {len(distribution.weights)} components: its pixels are not independent.")
    if len(gammas) < 2 or not (np.diff(gammas) > 0).all():
        raise RecipeError(f"gammas = {gammas}: expected at least two that rise.")
    log_probs = distribution.log_probs()[0].reshape(-1, distribution.levels)
    nodes, rates = _panels(gammas[0], gammas[-1]) if continuous else (gammas[1:], np.expm1(np.diff(gammas)))
    diffusion = sum(0.5 * rate * _error(log_probs, gamma) for gamma, rate in zip(nodes, rates, strict=True))
    prior = prior_of(_values(distribution.levels), gammas[-1])
    reconstruction = _reconstruction(distribution.levels, gammas[0])
    shape = (*distribution.shape, distribution.levels)
    return Bound(
        *(np.broadcast_to(term, log_probs.shape).reshape(shape) for term in (prior, reconstruction, diffusion))
    )


def terms_of_images(table: Bound, images: Real[np.ndarray, "n h w c"]) -> Bound:
    """Returns the three terms of each image, (n,), from those of its pixels' levels."""
    index = images[..., None].astype(int)
    terms = (table.prior, table.reconstruction, table.diffusion)
    return Bound(*(np.take_along_axis(np.asarray(term)[None], index, -1).sum((1, 2, 3, 4)) for term in terms))


def has_known_ends(observation: AbstractObservation) -> bool:
    """Returns whether the decoder is exactly one of the two that `ends_of_images` covers."""
    return type(observation) in (CategoricalObservation, GaussianObservation)


def ends_of_images(
    images: Real[np.ndarray, "n h w c"], levels: int, gamma_0: float, gamma_1: float
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Returns the expectations of each image's prior and reconstruction terms in nats; they do not depend on a network.

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


def _error(log_probs: Float[np.ndarray, "pixels v"], gamma: float) -> Float[np.ndarray, "pixels v"]:
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
    """Returns nodes and weights of an integral from low to high."""
    edges = np.linspace(low, high, int(np.ceil((high - low) / _PANEL)) + 1)
    node, weight = np.polynomial.legendre.leggauss(_NODES)
    half = np.diff(edges)[:, None] / 2
    return (edges[:-1, None] + half * (1 + node)).ravel(), (half * weight).ravel()
