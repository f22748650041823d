# SPDX-License-Identifier: Apache-2.0
"""The prior and diffusion terms against closed forms: no denoiser, a perfect one, and exact ones."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vdmkit.losses import Elbo, LowDiscrepancy, Objective, bits_per_dim, prior_loss, reconstruction_loss
from vdmkit.losses.bound import diffusion_loss, noise_level
from vdmkit.losses.training_loss import Draws
from vdmkit.predictions import Categorical
from vdmkit.schedules import AbstractSchedule, FixedLinear, LearnedMonotone

ENDS = (-13.3, 5.0)


class _Cosine(AbstractSchedule):
    """The cosine schedule between the given ends: gamma = 2 log tan u, u linear in t."""

    gamma_min: float
    gamma_max: float

    def __call__(self, t):
        first, last = (jnp.arctan(jnp.exp(end / 2)) for end in (self.gamma_min, self.gamma_max))
        return 2 * jnp.log(jnp.tan(first + (last - first) * t))


class _Pinned(AbstractSchedule):
    """Any schedule, stretched to the given ends (eq. 59 of the paper)."""

    inner: AbstractSchedule
    gamma_min: float
    gamma_max: float

    def __call__(self, t):
        first, last = self.inner(jnp.zeros(())), self.inner(jnp.ones(()))
        return self.gamma_min + (self.gamma_max - self.gamma_min) * (self.inner(t) - first) / (last - first)


def _random_monotone(seed: int) -> AbstractSchedule:
    """The monotone network with large random weights, so that its slope varies fivefold, between the same ends."""
    scale = np.array([[6.0], [2.0], [50.0]])
    k2, b2, k3 = (jnp.asarray(w) for w in scale * np.random.default_rng(seed).normal(size=(3, 16)))
    inner = LearnedMonotone(jax.random.key(0), width=16)
    where = lambda s: (s.l2.kernel, s.l2.bias, s.l3.kernel)  # noqa: E731
    return _Pinned(eqx.tree_at(where, inner, (k2[None], b2, k3[:, None])), *ENDS)


SCHEDULES = {
    "cosine": lambda: _Cosine(*ENDS),
    "monotone_0": lambda: _random_monotone(0),
    "monotone_1": lambda: _random_monotone(1),
}


def _closed_form(variance: float, steps: int = 0) -> float:
    """Expected diffusion loss of Gaussian data under the exact denoiser, nats per dimension (PAPER 19.2)."""
    gamma = np.linspace(*ENDS, steps + 1) if steps else np.array(ENDS)
    snr = np.exp(-gamma)
    if not steps:
        return 0.5 * np.log((1 + variance * snr[0]) / (1 + variance * snr[1]))
    return 0.5 * ((snr[:-1] - snr[1:]) * variance / (1 + variance * snr[1:])).sum()


def _step_ends(steps: int):
    return jnp.arange(1, steps + 1) / steps


def test_no_denoising_costs_the_length_of_the_schedule(model_of, losses, times) -> None:
    """With eps_hat = 0 the diffusion loss is (gamma_1 - gamma_0) / 2 nats per dimension, 13.2007 bpd."""
    model = model_of(lambda z, gamma: 0 * z)
    eps = jnp.array([1.0, -1.0, 1.0, -1.0])[:, None, None]  # |eps|^2 = 4, its mean
    t, weight = times
    continuous = bits_per_dim(weight @ losses(model, 0 * eps, eps, t), 4)
    np.testing.assert_allclose(continuous, 18.3 / (2 * np.log(2)), rtol=1e-13)
    np.testing.assert_allclose(continuous, 13.2007, atol=5e-5)  # PAPER 19.6, four decimals
    for steps in (1, 1000):
        stepwise = losses(model, 0 * eps, eps, _step_ends(steps), steps).mean() / 4
        # t - 1/T cancels: an ulp of t over 1/T = 1e-13
        np.testing.assert_allclose(stepwise, steps / 2 * np.expm1(18.3 / steps), rtol=1e-12)


# PAPER 19.2, nats per dimension
TABLE = {
    1.0: {0: 6.646643, 10: 17.707852, 100: 7.243793, 250: 6.877095, 500: 6.760517, 1000: 6.703246, 10000: 6.652274},
    0.25: {0: 5.956015, 10: 15.727564, 100: 6.485690, 250: 6.160468, 500: 6.057048, 1000: 6.006237, 10000: 5.961011},
}


@pytest.mark.parametrize("variance", TABLE)
def test_gaussian_data_has_its_closed_form_bound(gaussian, four_points, losses, times, variance: float) -> None:
    """The exact denoiser of Gaussian data has the closed-form bound, in continuous time and with T steps."""
    model, (x, eps), (t, weight) = gaussian(variance), four_points(variance), times
    for steps, published in TABLE[variance].items():
        if steps:
            loss = losses(model, x, eps, _step_ends(steps), steps).mean() / 4
        else:
            loss = weight @ losses(model, x, eps, t) / 4
        # eps - eps_hat is accurate to 1e-16 / sigma_0 = 1e-13, the gap of gammas to T 1e-16 = 1e-12
        np.testing.assert_allclose(loss, _closed_form(variance, steps), rtol=1e-11)
        np.testing.assert_allclose(loss, published, rtol=0, atol=5.1e-7)  # six decimals


def test_objective_of_a_batch_is_the_closed_form_bound(gaussian, four_points, times) -> None:
    """The training objective of encoded images (V = 2: x = +-1/2, s^2 = 1/4) and weighted times is the closed form."""
    model, (x, eps) = gaussian(0.25), four_points(0.25)
    image = (x > 0).astype(jnp.uint8)

    def mean_loss(t, weight, steps):
        same = jnp.broadcast_to
        draws = Draws(
            same(eps, (len(t), *eps.shape)),
            same(eps, (len(t), *eps.shape)),
            t,
            weight,
            jax.random.split(jax.random.key(0), len(t)),
        )
        bound = Objective(LowDiscrepancy(), Elbo(), steps)(model, same(image, (len(t), *image.shape)), {}, draws)
        return bound.diffusion.mean() / 4

    t, weight = times
    continuous = jax.jit(lambda: mean_loss(t, weight * len(t), 0))()  # weights of draws with density 1 / (n w)
    np.testing.assert_allclose(continuous, _closed_form(0.25), rtol=1e-11)
    stepwise = jax.jit(lambda: mean_loss(_step_ends(250), jnp.ones(250), 250))()
    np.testing.assert_allclose(stepwise, _closed_form(0.25, 250), rtol=1e-11)


@pytest.mark.parametrize("shape", SCHEDULES)
def test_continuous_bound_does_not_depend_on_the_schedules_shape(model_of, losses, times, shape: str) -> None:
    """The continuous bound depends on gamma through its ends only, even for a single x and eps."""
    x, eps = jnp.asarray(np.random.default_rng(0).normal(size=(2, 4, 1, 1)))
    (t, weight), values = times, []
    for each in (FixedLinear(), SCHEDULES[shape]()):
        model = model_of(lambda z, gamma: gamma / 10 * jnp.tanh(2 * z), schedule=each)  # any function of z and gamma
        values.append(weight @ losses(model, x, eps, t))
    np.testing.assert_allclose(values[1], values[0], rtol=1e-10)


@pytest.mark.parametrize("shape", SCHEDULES)
def test_gaussian_bound_is_the_same_under_every_schedule(gaussian, four_points, losses, times, shape: str) -> None:
    """The bound of the exact denoiser is the closed form under nonlinear schedules too."""
    (t, weight), (x, eps) = times, four_points(0.25)
    loss = weight @ losses(gaussian(0.25, schedule=SCHEDULES[shape]()), x, eps, t) / 4
    np.testing.assert_allclose(loss, _closed_form(0.25), rtol=1e-10)


@pytest.mark.parametrize("steps", [0, 10])
def test_perfect_denoiser_has_no_diffusion_loss(path, model_of, losses, steps: int) -> None:
    """A denoiser with access to x, so that eps_hat = eps, has zero diffusion loss."""
    x, eps = jnp.asarray(np.random.default_rng(0).normal(size=(2, 4, 1, 1)))
    model = model_of(lambda z, gamma: (z - path.alpha(gamma) * x) / path.sigma(gamma), path=path)
    loss = losses(model, x, eps, jnp.linspace(0.1, 1, 10), steps)
    # eps is recovered to 1e-16 / sigma = 1e-13, and the rate is at most T expm1(1.83) / 2 = 30
    np.testing.assert_allclose(loss, 0, atol=1e-23)


def test_two_points_cost_their_mutual_information(model_of, losses, times, noise) -> None:
    """A nonlinear denoiser of x = +-1 has the loss of PAPER 19.4; here x = +-1/2, with gamma lower by ln 4."""
    schedule = FixedLinear(gamma_min=-8 - math.log(4), gamma_max=5 - math.log(4))
    prediction = Categorical(jnp.ones((1, 1, 1, 2), int))
    parts = {"prediction": prediction, "schedule": schedule, "shape": (1, 1, 1)}
    model = model_of(lambda z, gamma: jnp.zeros((1, 1, 1, 2)), **parts)
    (t, weight), (eps, density) = times, noise
    x = jnp.full((1, 1, 1), 0.5)  # -1/2 is its mirror image
    of_eps = jax.lax.map(lambda e: weight @ losses(model, x, e.reshape(1, 1, 1), t), eps)
    # the step 0.05 against the poles of tanh(alpha z / sigma^2), pi / 2 sqrt(SNR): below 1e-8 where that counts
    np.testing.assert_allclose(density @ of_eps, 0.689789, rtol=0, atol=6e-7)


@pytest.mark.parametrize("gamma_1", [-1.0, 0.5, 5.0])
def test_prior_term_is_the_divergence_of_two_gaussians(path, model_of, gamma_1: float) -> None:
    """The prior term is KL(q(z_1 | x) || N(0, (alpha^2 + sigma^2) I)) on every path."""
    model = model_of(lambda z, gamma: z, path=path, schedule=FixedLinear(gamma_max=gamma_1))
    x = jnp.array([0.3, -0.9, 0.0, 0.5])[:, None, None]
    alpha, sigma = path.alpha(jnp.array(gamma_1)), path.sigma(jnp.array(gamma_1))
    variance = alpha**2 + sigma**2
    expected = 0.5 * (sigma**2 / variance + alpha**2 * x**2 / variance - 1 - jnp.log(sigma**2 / variance)).sum()
    np.testing.assert_allclose(prior_loss(model, x), expected, rtol=1e-12)  # 1 - sigma^2 cancels: alpha^2 > 6e-3


def test_untrained_network_has_the_papers_terms(model_of, losses, times) -> None:
    """With eps_hat = z the terms equal those of the authors' code at initialisation."""
    model = model_of(lambda z, gamma: z)
    eps = jnp.array([1.0, -1.0, 1.0, -1.0])[:, None, None]
    t, weight = times

    def diffusion(x2: float) -> float:
        x = jnp.full_like(eps, jnp.sqrt(x2))
        return bits_per_dim(weight @ losses(model, x, eps, t), 4)

    def prior(x2: float) -> float:
        return bits_per_dim(prior_loss(model, jnp.full_like(eps, jnp.sqrt(x2))), 4)

    constant_200 = (200.5 / 128 - 1) ** 2
    np.testing.assert_allclose(diffusion(constant_200), 10.673981, rtol=0, atol=5e-7)  # PAPER 19.13
    np.testing.assert_allclose(prior(constant_200), 0.00156509, rtol=0, atol=5e-9)
    np.testing.assert_allclose(diffusion(0.254), 10.033, rtol=0, atol=5e-4)  # PAPER 19.6
    np.testing.assert_allclose(diffusion(1.254) - diffusion(0.254), 9.59, rtol=0, atol=5e-3)
    np.testing.assert_allclose(prior(0.254), 0.00124, rtol=0, atol=5e-6)


def test_terms_add_up_to_the_bound(model_of) -> None:
    """The objective's terms are those of its images and draws, and they sum to its total."""
    # so much noise at the end that no term is zero
    model = model_of(lambda z, gamma: z, schedule=FixedLinear(gamma_min=-1.0))
    rng = np.random.default_rng(0)
    images = jnp.array([[0, 1, 1, 0], [1, 1, 0, 1]], jnp.uint8)[..., None, None]
    eps_0, eps = jnp.asarray(rng.normal(size=(2, *images.shape)))
    draws = Draws(eps_0, eps, jnp.array([0.2, 0.7]), jnp.array([1.0, 3.0]), jax.random.split(jax.random.key(0), 2))
    bound = eqx.filter_jit(Objective(LowDiscrepancy(), Elbo(), 0))(model, images, {}, draws)

    @eqx.filter_jit
    @jax.vmap
    def terms(image, draws):
        x = model.observation.encode(image)
        diffusion = diffusion_loss(model, x, noise_level(model.schedule, draws.t), draws.eps, {})
        return prior_loss(model, x), reconstruction_loss(model, image, draws.eps_0), draws.weight * diffusion

    prior, reconstruction, diffusion = terms(images, draws)
    for value, expected in ((bound.prior, prior), (bound.reconstruction, reconstruction), (bound.diffusion, diffusion)):
        np.testing.assert_allclose(value, expected, rtol=1e-13)  # the same sums in a different order
    np.testing.assert_allclose(bound.total, prior + reconstruction + diffusion, rtol=1e-13)
