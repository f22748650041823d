# SPDX-License-Identifier: Apache-2.0
"""Estimators of the bound: unbiased for every image whatever the pilot, with correct error bars, in any batches."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vdmkit.decoders import CategoricalObservation
from vdmkit.errors import RecipeError
from vdmkit.likelihood import Estimates, ImportanceWeighted, VariationalBound
from vdmkit.likelihood.intervals import interval
from vdmkit.likelihood.pilot import _fit
from vdmkit.losses import prior_loss
from vdmkit.model import DiffusionModel
from vdmkit.schedules import FixedLinear

SHAPE, LEVELS, COUNT, STEPS = (3, 2, 1), 4, 40, 6
IMAGES = np.random.default_rng(0).choice(LEVELS, (COUNT, *SHAPE), p=[0.1, 0.2, 0.2, 0.5]).astype(np.uint8)
INDEX = np.arange(COUNT)


@pytest.fixture(scope="module")
def model(model_of) -> DiffusionModel:
    """The denoiser of x ~ N(0, 0.2 I), applied to data from a different distribution."""

    def eps_hat(z, gamma):
        alpha2 = jax.nn.sigmoid(-gamma)
        return jnp.sqrt(1 - alpha2) * z / (0.2 * alpha2 + 1 - alpha2)

    # gamma_0 = -5: 4 levels are decoded with certainty up to 1e-8 nats, so reconstruction has almost no variance
    schedule = FixedLinear(gamma_min=-5.0, gamma_max=4.0)
    return model_of(eps_hat, schedule=schedule, observation=CategoricalObservation(LEVELS), shape=SHAPE)


def loss(model: DiffusionModel, gamma: np.ndarray) -> np.ndarray:
    """Returns E |eps - eps_hat|^2 over eps in closed form, shape (image, gamma)."""
    x = np.asarray(jax.vmap(model.observation.encode)(jnp.asarray(IMAGES))).reshape(COUNT, -1, 1)
    alpha2 = 1 / (1 + np.exp(gamma))
    gain = np.sqrt(1 - alpha2) / (0.2 * alpha2 + 1 - alpha2)
    return ((gain * np.sqrt(alpha2) * x) ** 2 + (1 - np.sqrt(1 - alpha2) * gain) ** 2).sum(1)


@pytest.fixture(scope="module")
def exact(model):
    """`exact(steps)`: the diffusion loss of each image in nats."""

    def exact(steps: int) -> np.ndarray:
        if steps:
            gamma = np.linspace(-5, 4, steps + 1)
            return loss(model, gamma[1:]) @ np.expm1(np.diff(gamma)) / 2
        node, weight = np.polynomial.legendre.leggauss(60)  # a smooth function: exact to rounding
        return loss(model, -0.5 + 4.5 * node) @ weight * 4.5 / 2

    return exact


def run(estimator, model, plan=None, seed=0, index=INDEX, key=None) -> Estimates:
    """Returns both replicates; each array has shape (2, n)."""
    key = jax.random.key(seed, impl="rbg") if key is None else key  # compiles 5 times faster
    if plan is None:
        plan = estimator.plan(model, IMAGES, precision=0.0, key=key)
    images, numbers = jnp.asarray(IMAGES[index]), jnp.asarray(index)
    pair = [estimator(model, images, numbers, plan, replicate=r, key=key) for r in (0, 1)]
    return jax.tree.map(lambda *both: np.stack(both), *pair)


@pytest.fixture(
    scope="module", params=[0, pytest.param(STEPS, marks=pytest.mark.statistical)], ids=["continuous", "steps"]
)
def bound(request) -> VariationalBound:
    return VariationalBound(draws=8, steps=request.param)


@pytest.fixture(scope="module")
def plan(bound, model):
    return bound.fitted_plan(model, IMAGES, precision=0.0, key=jax.random.key(7, impl="rbg"))


@pytest.fixture(scope="module")
def repeated(bound, model, plan) -> np.ndarray:
    """The diffusion term for 100 different keys, shape (100, 2, n)."""
    return np.stack([run(bound, model, plan, seed).terms["diffusion"] for seed in range(100)])


@pytest.mark.costly
def test_the_bound_of_each_image_is_unbiased(bound, repeated, exact) -> None:
    """Every image's estimate is unbiased: control variates have mean zero and draws weigh 1 / density."""
    errors = (repeated - exact(bound.steps)).reshape(200, COUNT)
    z = errors.mean(0) / (errors.std(0, ddof=1) / np.sqrt(200))
    assert abs(z).max() < 4.5  # 40 images: false alarm 3e-4
    assert abs(z.mean()) < 4 / np.sqrt(COUNT)


def test_its_interval_covers_the_exact_value(bound, repeated, exact) -> None:
    """The 95% Monte Carlo interval covers the exact value; fewer than 90 of 100 has a probability of 1.2%."""
    intervals = [interval(once) for once in repeated]
    covered = sum(abs(i.value - exact(bound.steps).mean()) <= i.half_width_monte_carlo for i in intervals)
    assert 90 <= covered <= 100


def test_the_variance_is_the_one_that_the_pilot_predicts(bound, repeated, plan) -> None:
    """The empirical variance agrees with the plan's prediction, from which draws are computed."""
    empirical = repeated.var(0, ddof=1).mean()  # 200 x 40 values: accurate to 3%; the pilot is accurate to 10%
    assert 0.75 < empirical / float(plan.variance) < 1.3


def test_a_wrong_pilot_biases_nothing(model, exact, bound, plan) -> None:
    """Wrong control-variate coefficients leave the estimate unbiased."""
    wrong = eqx.tree_at(lambda p: p.explained.coefficients, plan, plan.explained.coefficients * -1 + 0.3)
    errors = np.stack([run(bound, model, wrong, s).terms["diffusion"] for s in range(40)]) - exact(bound.steps)
    means = errors.mean((1, 2))
    assert abs(means.mean()) < 4 * means.std(ddof=1) / np.sqrt(40)


@pytest.mark.statistical
def test_the_bound_without_a_pilot_is_unbiased(model, exact, bound) -> None:
    """A pass too small for a pilot is planned without evaluations and stays unbiased."""
    plan = bound.plan(model, IMAGES, precision=0.0, key=jax.random.key(0))
    assert (plan.explained, plan.evaluations) == (None, 0)
    errors = np.stack([run(bound, model, plan, s).terms["diffusion"] for s in range(40)]) - exact(bound.steps)
    means = errors.mean((1, 2))
    assert abs(means.mean()) < 4 * means.std(ddof=1) / np.sqrt(40)


def test_control_variates_save_draws(model, bound, plan) -> None:
    """With the same draws, control variates reduce the variance by more than half."""
    none = eqx.tree_at(lambda p: p.explained.coefficients, plan, jnp.zeros_like(plan.explained.coefficients))
    runs = ([run(bound, model, p, seed).nats for seed in range(10)] for p in (plan, none))
    with_controls, without = (np.stack(nats).var(0).mean() for nats in runs)
    assert with_controls < 0.5 * without  # the Gaussian denoiser is nearly the model's: it explains most


def test_a_control_variate_that_is_nearly_always_zero_is_left_out() -> None:
    """Control variates of size 1e-9 get a coefficient near zero instead of one of millions."""
    rng = np.random.default_rng(0)
    loss, controls = rng.normal(size=48), 1e-9 * rng.normal(size=(48, 3))
    controls[:, 0] = loss + 0.1 * rng.normal(size=48)
    coefficients, sd, _ = _fit(loss, controls, np.zeros(48))
    np.testing.assert_allclose(coefficients, [1, 0, 0], rtol=0, atol=0.1)
    assert sd < 0.1


@pytest.mark.costly
def test_a_precision_beyond_reach_is_refused(model, bound) -> None:
    """Planning refuses a precision that would take more than 2,097,152 evaluations an image."""
    with pytest.raises(RecipeError, match="would take more than 2,097,152 evaluations an image"):
        bound.plan(model, IMAGES, precision=1e-12, key=jax.random.key(0, impl="rbg"))


@pytest.mark.statistical
def test_a_precision_is_planned_for(model, bound) -> None:
    """The planned number of draws reaches the requested precision."""
    plan = bound.plan(model, IMAGES, precision=0.05, key=jax.random.key(4, impl="rbg"))
    assert interval(run(bound, model, plan, 5).nats).half_width_monte_carlo < 0.05
    assert int(plan.draws) > 4


@pytest.mark.statistical
def test_estimates_belong_to_the_image(bound, model, plan) -> None:
    """An image's estimate does not depend on the other images in its batch."""
    key = jax.random.key(0)  # the rbg generator's numbers depend on the batch
    whole = run(bound, model, plan, key=key)
    parts = [run(bound, model, plan, index=INDEX[i : i + 8], key=key).nats for i in range(0, COUNT, 8)]
    np.testing.assert_allclose(np.concatenate(parts, axis=1), whole.nats, rtol=1e-12)  # different vectorisation
    assert (whole.evaluations == 4).all()


def test_terms_add_up(bound, model, plan) -> None:
    """The three terms sum to the reported number."""
    estimates = run(bound, model, plan)
    assert sorted(estimates.terms) == ["diffusion", "prior", "reconstruction"]
    np.testing.assert_allclose(sum(estimates.terms.values()), estimates.nats, rtol=1e-15)
    x = jax.vmap(model.observation.encode)(jnp.asarray(IMAGES))
    np.testing.assert_allclose(estimates.terms["prior"][0], jax.vmap(lambda x: prior_loss(model, x))(x), rtol=1e-12)


@pytest.mark.statistical
def test_one_importance_sample_is_the_bound_of_t_steps(model, exact) -> None:
    """With one importance sample the mean of the negative log weight is the T-step bound."""
    estimator = ImportanceWeighted(samples=1, steps=STEPS)
    bound = run(VariationalBound(draws=2, steps=STEPS), model)
    expected = exact(STEPS) + bound.terms["prior"][0] + bound.terms["reconstruction"].mean(0)
    nats = np.stack([run(estimator, model, seed=s).nats for s in range(50)])
    means = (nats - expected).mean((1, 2))
    assert abs(means.mean()) < 4 * means.std(ddof=1) / np.sqrt(50)
    assert (run(estimator, model).evaluations == STEPS).all()


@pytest.mark.costly
def test_importance_samples_of_the_papers_steps_are_what_they_were(model) -> None:
    """A fixed seed reproduces the recorded values from before other kernels were added."""
    estimator, key = ImportanceWeighted(samples=4, steps=STEPS), jax.random.key(3)
    found = estimator(model, jnp.asarray(IMAGES[:3]), jnp.arange(3), None, replicate=0, key=key).nats
    before = [18.015267112234778, 23.42299192169728, 20.886978635769356]
    np.testing.assert_allclose(found, before, rtol=1e-10)  # float64, sums of about 100 terms


@pytest.mark.statistical
def test_more_importance_samples_are_tighter(model) -> None:
    """The importance-weighted bound falls with K."""
    mean = {
        k: np.mean([run(ImportanceWeighted(samples=k, steps=STEPS), model, seed=s).nats.mean() for s in range(20)])
        for k in (1, 4, 16)
    }
    assert mean[1] > mean[4] + 0.05 > mean[16] + 0.1


@pytest.mark.costly
def test_many_importance_samples_give_the_likelihood(model_of) -> None:
    """Many samples approach the exact likelihood, which is known because one step of a linear denoiser is Gaussian."""
    s0, s1, c = jax.nn.sigmoid(-2.0), jax.nn.sigmoid(2.0), -jnp.expm1(-4.0)
    gain = jnp.sqrt(s1) / (0.25 * (1 - s1) + s1)
    schedule = FixedLinear(gamma_min=-2.0, gamma_max=2.0)
    model = model_of(
        lambda z, gamma: gain * z, schedule=schedule, observation=CategoricalObservation(3), shape=(1, 1, 1)
    )
    estimator = ImportanceWeighted(samples=4000, steps=1)
    images, index = jnp.asarray([[[[0]]], [[[1]]]], jnp.uint8), jnp.arange(2)
    found = estimator(model, images, index, None, replicate=0, key=jax.random.key(0, impl="rbg")).nats
    # z_0 = (alpha_0 / alpha_1) (1 - sigma_1 c gain) z_1 + std n with z_1 ~ N(0, 1), and P(x) = E p(x | z_0)
    variance = (1 - s0) / (1 - s1) * (1 - jnp.sqrt(s1) * c * gain) ** 2 + s0 * c
    node, weight = np.polynomial.hermite_e.hermegauss(80)
    z_0 = jnp.sqrt(variance / (1 - s0)) * jnp.asarray(node)
    log_p = model.observation.log_probs(z_0[:, None, None], jnp.asarray(-2.0), lambda: z_0[:, None, None])[:, 0, 0]
    expected = -jnp.log((jnp.exp(log_p[:, :2]) * weight[:, None]).sum(0) / weight.sum())
    np.testing.assert_allclose(found, expected, atol=0.1)  # 4,000 samples: 0.02; log K is 8.3


def test_importance_samples_take_no_precision(model) -> None:
    """The importance-weighted estimator refuses --precision."""
    with pytest.raises(RecipeError, match="cannot plan for a precision"):
        ImportanceWeighted().plan(model, IMAGES, precision=0.1, key=jax.random.key(0))


def test_the_bound_is_the_one_trained_on_by_default() -> None:
    """Estimators default to the number of steps of training, and name it in their description."""
    assert (VariationalBound(250).steps, VariationalBound(250, steps=0).steps, VariationalBound().steps) == (250, 0, 0)
    assert (ImportanceWeighted(250).steps, ImportanceWeighted().steps) == (250, 100)
    words = "variational bound, T = 250 steps, kernel gaussian, grid uniform"
    assert VariationalBound(250).describe(17) == words
    assert VariationalBound(250, steps=0).describe(17) == "variational bound, continuous time"


def test_steps_too_long_for_float32_are_refused(model) -> None:
    """Steps so long that expm1(44) amplifies float32 rounding of eps - eps_hat to 1e4 nats a pixel are refused."""
    long = eqx.tree_at(lambda m: m.schedule, model, FixedLinear(gamma_min=-20.0, gamma_max=24.0))
    key = jax.random.key(0)
    with jax.enable_x64(False):
        for estimator in (VariationalBound(1), ImportanceWeighted(steps=1)):
            with pytest.raises(RecipeError, match="T = 1 steps from gamma = -20 to 24 are too few for the rounding"):
                estimator.plan(long, IMAGES, precision=0.0, key=key)
        VariationalBound(4).plan(long, IMAGES, precision=0.0, key=key)
