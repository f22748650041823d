# SPDX-License-Identifier: Apache-2.0
"""The literature is one model: identities between its schedules, weightings, predictions and samplers, in float64."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vdmkit.losses import P2, EdmWeighting, Elbo, MinSnr, Simple, Snr, TruncatedSnr, VelocityWeighting, VWeighting
from vdmkit.predictions import AbstractDirection, Estimate
from vdmkit.process import StraightLine, SubVariancePreserving, VariancePreserving
from vdmkit.registry import Choice, registry
from vdmkit.reverse import GaussianKernel, part_of_noise
from vdmkit.sampling import Ancestral, Ddim, DpmPlusPlus2M, DpmPlusPlus3MSde, Euler, EulerAncestral, Heun, Lms
from vdmkit.sampling.sampler import no_history
from vdmkit.schedules import Cosine, FlowMatching, Karras, LinearBeta, LogLinear, Tabulated, gamma_and_derivative
from vdmkit.toy_data import GaussianMixture

GAMMAS = np.array([-9.0, -3.0, 0.0, 2.0, 4.5])
EXACT = {"rtol": 1e-12, "atol": 1e-12}
PATHS = {name: c.build({}) for name, c in registry("path").components.items()}
DIRECTIONS = {
    name: c.build({})
    for name, c in registry("prediction").components.items()
    if isinstance(c.target, type) and issubclass(c.target, AbstractDirection)
}
SHAPE = (2, 1, 1)
LARGE = Choice("kernel", "gaussian", {"variance": "large"})
MIXTURE = GaussianMixture(SHAPE, (0.4, 0.6), ((-0.5, 0.3), (0.4, 0.1)), ((0.2, 0.3), (0.4, 0.2)))


def weights(weighting, schedule) -> tuple[np.ndarray, np.ndarray]:
    """Returns gamma and w at 19 times of a schedule."""
    gamma, rate = jax.vmap(lambda t: gamma_and_derivative(schedule, t))(jnp.linspace(0.05, 0.95, 19))
    return np.asarray(gamma), np.asarray(jax.vmap(weighting)(gamma, rate))


def test_v_loss_with_cosine_weighs_by_the_root_of_noise_to_signal() -> None:
    """The v loss with the cosine schedule has w = e^(gamma/2): Kingma & Gao 2023, arXiv 2303.00848, Table 1."""
    gamma, w = weights(VWeighting(), Cosine())
    np.testing.assert_allclose(w / w[0], np.exp((gamma - gamma[0]) / 2), rtol=1e-9)


def test_flow_matching_weighs_as_v_loss_with_cosine() -> None:
    """Flow matching has the weighting of v-prediction with cosine: Kingma & Gao 2023, App. D.3."""
    gamma, w = weights(VelocityWeighting(), FlowMatching())
    np.testing.assert_allclose(w / w[0], np.exp((gamma - gamma[0]) / 2), rtol=1e-9)


def test_eps_loss_with_log_linear_sigma_is_the_bound() -> None:
    """NCSN's loss weighs all gammas equally: Kingma et al. 2021, section 5.1, where gamma is linear in t."""
    _, w = weights(Simple(), LogLinear())
    np.testing.assert_allclose(w, w[0], **EXACT)


def test_snr_weightings_meet_at_their_limits() -> None:
    """Min-SNR, P2, truncated SNR and SNR weightings reduce to the simple, x and v losses (arXiv 2303.09556)."""
    for gamma in jnp.asarray(GAMMAS):
        rate = jnp.asarray(7.0)
        simple = Simple()(gamma, rate)
        np.testing.assert_allclose(Snr(power=1.0)(gamma, rate), simple, **EXACT)
        np.testing.assert_allclose(P2(power=0.0)(gamma, rate), simple, **EXACT)
        np.testing.assert_allclose(MinSnr(limit=1e12)(gamma, rate), simple, **EXACT)
        of_x = Snr(power=0.0)(gamma, rate)
        np.testing.assert_allclose(of_x, jnp.exp(gamma) * simple, **EXACT)
        np.testing.assert_allclose(TruncatedSnr()(gamma, rate), jnp.maximum(of_x, simple), **EXACT)
        np.testing.assert_allclose(VWeighting()(gamma, rate), of_x + simple, **EXACT)  # SNR + 1 (arXiv 2202.00512)


def test_likelihood_weighting_of_the_score_is_the_bound() -> None:
    """g^2 |s - s_hat|^2 / 2 is the bound's integrand: Song et al. 2021, arXiv 2101.09258, theorem 1."""
    schedule = LinearBeta()
    for t in (0.1, 0.5, 0.9):
        gamma, rate = gamma_and_derivative(schedule, jnp.asarray(t))
        for path in PATHS.values():
            g2 = path.sigma(gamma) ** 2 * rate  # g^2 on this path
            of_score = _error_ratio("score", gamma, path)
            np.testing.assert_allclose(g2 * of_score, Elbo()(gamma, rate) * rate, rtol=1e-12)
    beta = 0.1 + 19.9 * (1e-5 + (1 - 1e-5) * 0.5)  # on the variance-preserving path g^2 is beta
    gamma, rate = gamma_and_derivative(schedule, jnp.asarray(0.5))
    np.testing.assert_allclose(VariancePreserving().sigma(gamma) ** 2 * rate, beta * (1 - 1e-5), rtol=1e-12)


def _error_ratio(name: str, gamma, path) -> float:
    """Ratio of the output's squared error to |eps - eps_hat|^2: (b alpha - a sigma)^2 / alpha^2."""
    a, b = DIRECTIONS[name].direction(gamma, path)
    return float(((b * path.alpha(gamma) - a * path.sigma(gamma)) / path.alpha(gamma)) ** 2)


LOSSES = {  # by prediction: the equivalent weighting of |eps - eps_hat|^2, and its paper's path
    "eps": (Simple(), "variance_preserving"),
    "x": (Snr(power=0.0), "variance_preserving"),
    "v": (VWeighting(), "variance_preserving"),
    "velocity": (VelocityWeighting(), "straight_line"),
    "edm": (EdmWeighting(), "variance_exploding"),
}


@pytest.mark.parametrize("name", LOSSES)
def test_the_loss_of_a_prediction_is_its_weighting(name: str) -> None:
    """The unweighted loss of a prediction equals the objective with its weighting (PAPER section 3)."""
    weighting, path = LOSSES[name]
    for gamma in jnp.asarray(GAMMAS):
        found = weighting(gamma, jnp.asarray(2.0))
        np.testing.assert_allclose(found, _error_ratio(name, gamma, PATHS[path]), rtol=1e-12)


@pytest.mark.costly
@pytest.mark.parametrize(("one", "other"), list(itertools.permutations(DIRECTIONS, 2)))
def test_any_prediction_is_any_other(path, one: str, other: str) -> None:
    """Conversion between any two predictions round-trips, and their losses are in the known ratio."""
    rng = np.random.default_rng(0)
    x, eps, output = jnp.asarray(rng.normal(size=(3, *SHAPE)))
    for gamma in jnp.asarray(GAMMAS):
        z = path.alpha(gamma) * x + path.sigma(gamma) * eps
        estimate = DIRECTIONS[one](_outputs(one, output), z, gamma, path)
        translated = _output(other, estimate, gamma, path)
        again = DIRECTIONS[other](_outputs(other, translated), z, gamma, path)
        size = 1e-14 * float(abs(estimate.x_hat).max() + abs(estimate.eps_hat).max()) * float(jnp.exp(abs(gamma) / 2))
        np.testing.assert_allclose(again.x_hat, estimate.x_hat, rtol=0, atol=10 * size)
        np.testing.assert_allclose(again.eps_hat, estimate.eps_hat, rtol=0, atol=10 * size)
        truth = Estimate(x, eps)
        losses = [
            float(((_output(name, truth, gamma, path) - _output(name, estimate, gamma, path)) ** 2).sum())
            / _error_ratio(name, gamma, path)
            for name in (one, other)
        ]
        np.testing.assert_allclose(losses[0], losses[1], rtol=1e-9)


def _outputs(name: str, direction):
    """Stacks the direction into as many outputs as the prediction reads; the first is the direction."""
    return jnp.stack([direction] * DIRECTIONS[name].outputs, axis=-1)


def _output(name: str, estimate: Estimate, gamma, path):
    a, b = DIRECTIONS[name].direction(gamma, path)
    return a * estimate.x_hat + b * estimate.eps_hat


def test_sub_variance_preserving_is_its_definition() -> None:
    """On the sub-VP path sigma = 1 - alpha^2: Song et al. 2021, arXiv 2011.13456, eq. 14."""
    path = SubVariancePreserving()
    np.testing.assert_allclose(
        jax.vmap(path.sigma)(jnp.asarray(GAMMAS)), 1 - jax.vmap(path.alpha)(jnp.asarray(GAMMAS)) ** 2, rtol=1e-9
    )


def test_velocity_is_the_flow_of_the_straight_line() -> None:
    """eps_hat - x_hat is dz/dsigma of the flow on the straight line: Lipman et al. 2023, arXiv 2210.02747, eq. 10."""
    path, z = StraightLine(), jnp.array([0.3, -0.7]).reshape(SHAPE)
    for gamma in jnp.asarray(GAMMAS):
        estimate = MIXTURE.estimate(z, gamma, path)
        drift = jax.grad(path.log_alpha)(gamma) * z + path.sigma(gamma) / 2 * estimate.eps_hat  # dz/dgamma
        np.testing.assert_allclose(
            drift / jax.grad(path.sigma)(gamma), estimate.eps_hat - estimate.x_hat, rtol=1e-9, atol=1e-12
        )


def test_karras_steps_are_linear_in_sigma_or_in_its_logarithm() -> None:
    """rho = 1 is linear in sigma and rho -> infinity in log sigma: Karras et al. 2022, arXiv 2206.00364, App. D.1."""
    t = jnp.linspace(0, 1, 9)
    sigma = np.exp(jax.vmap(Karras(rho=1.0))(t) / 2)
    np.testing.assert_allclose(np.diff(sigma), np.diff(sigma)[0], rtol=1e-9)
    gamma = np.asarray(jax.vmap(Karras(rho=1e5))(t))
    np.testing.assert_allclose(np.diff(gamma), np.diff(gamma)[0], rtol=1e-3)


def test_many_betas_are_the_sde() -> None:
    """DDPM's betas converge to the SDE, beta from 0.1 to 20: Song et al. 2021, arXiv 2011.13456, App. B."""
    table = Tabulated(steps=10_000)
    t = np.linspace(0.05, 1, 20)
    sde = jax.vmap(LinearBeta(epsilon=1e-9))(jnp.asarray(t))
    found = jax.vmap(table)(jnp.asarray((t * 10_000 - 1) / 9_999))  # the i-th beta leads to t = i / T
    np.testing.assert_allclose(found, sde, atol=2e-2)  # error of first order in 1 / T, largest at the noisy end


def one_step(sampler):
    gamma_t, gamma_s = jnp.asarray(2.0), jnp.asarray(0.5)
    y = jnp.array([0.8, -1.7]).reshape(SHAPE)
    noise = jnp.array([0.3, 0.9]).reshape(1, *SHAPE)[: sampler.noise_draws]
    denoise = lambda y, gamma: MIXTURE.estimate(y, gamma, PATHS["variance_exploding"])  # noqa: E731
    return sampler.step(denoise, y, gamma_t, gamma_s, no_history(SHAPE, jnp.asarray(1)), noise)[0]


SAME = {
    "DDIM is Euler's method in sigma (Song et al. 2021, arXiv 2010.02502, section 4.3)": (Ddim(), Euler()),
    "DDIM with eta = 1 is ancestral (arXiv 2010.02502, section 4.1)": (Ddim(eta=1.0), Ancestral()),
    "DPM-Solver++ of order 1 is DDIM (Lu et al. 2022, arXiv 2211.01095, section 4)": (DpmPlusPlus2M(), Ddim()),
    "the third-order SDE starts as the second-order one": (DpmPlusPlus3MSde(), DpmPlusPlus2M(eta=1.0)),
    "a multistep method of one step is Euler's": (Lms(), Euler()),
    "k-diffusion's Euler ancestral is DDPM's ancestral": (EulerAncestral(), Ancestral()),
    "Euler ancestral without noise is Euler's": (EulerAncestral(eta=0.0), Euler()),
}


@pytest.mark.costly
@pytest.mark.parametrize("claim", SAME)
def test_samplers_that_are_the_same(claim: str) -> None:
    """Samplers that the literature identifies make the same step."""
    one, other = SAME[claim]
    np.testing.assert_allclose(one_step(one), one_step(other), **EXACT)


def test_samplers_that_are_not_the_same() -> None:
    """Different samplers make different steps, so the comparison above has power."""
    different = [Euler(), Heun(), Ancestral(), Ancestral(kernel=LARGE), Euler(axis="variance"), Ddim(eta=0.5)]
    ends = [np.asarray(one_step(sampler)) for sampler in different]
    assert all(abs(a - b).max() > 1e-3 for a, b in itertools.combinations(ends, 2))


def test_the_paths_kl_of_a_step_is_the_bounds() -> None:
    """The small variance's KL is expm1(gamma_t - gamma_s) / 2 times the error (Kingma et al. 2021, eq. 13)."""
    for t, s in itertools.pairwise(jnp.asarray(GAMMAS[::-1])):
        x, eps, key = jnp.zeros(SHAPE), jnp.full(SHAPE, 0.7), jax.random.key(0)
        wrong, right = Estimate(x, eps - 0.3), Estimate(x, eps)
        np.testing.assert_allclose(
            GaussianKernel().kl(wrong, x, eps, t, s, key=key), jnp.expm1(t - s) / 2 * 0.09, rtol=1e-12
        )
        of_large = GaussianKernel(variance="large").kl(right, x, eps, t, s, key=key)
        assert (of_large > 0).all()  # the large variance costs bits even for a perfect estimate
        assert 0 < part_of_noise(t, s) < 1
