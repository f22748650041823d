# SPDX-License-Identifier: Apache-2.0
"""The importance-weighted bound for any kernel and grid: its weights are ratios of densities, in float32 too."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vdmkit
from vdmkit.errors import RecipeError
from vdmkit.likelihood import ImportanceWeighted, VariationalBound
from vdmkit.predictions import Estimate, estimate_from_logits, level_values
from vdmkit.process import VarianceExploding
from vdmkit.recipes import load_recipe
from vdmkit.recipes.build import build_estimator, build_state, training_counts
from vdmkit.registry import Choice, registry
from vdmkit.reverse import AbstractKernel, LearnedRange, MixtureKernel

RECIPES = Path(vdmkit.__file__).parents[1] / "recipes"
MEASURED = {"optimal_variance": {"gammas": (-13.0, 0.0, 5.0), "errors": (1e-4, 0.3, 0.9)}}
KERNELS = {name: Choice("kernel", name, MEASURED.get(name, {})) for name in registry("kernel").components}
KERNELS |= {"large": Choice("kernel", "gaussian", {"variance": "large"})}
MIXTURE, EVEN_IN_GAMMA = Choice("kernel", "mixture"), Choice("grid", "gamma")
SMALL = ["data.shape=[2, 3, 1]", "data.levels=5", "model.schedule.gamma_min=-9.0", "model.schedule.gamma_max=12.0"]
SMALL_MIXTURE = [*SMALL, "data.weights=[0.4, 0.6]", "data.means=[-0.5, 0.4]", "data.sds=[0.2, 0.3]"]


def by_density(kernel, estimate, x, eps, n, t, s):
    """log p(y_s | y_t) - log q(y_s | y_t, x), by the density of the step."""
    return AbstractKernel.log_ratio(kernel, estimate, x, eps, n, t, s)


def estimate_of(logits, x, eps, t) -> Estimate:
    """Returns the estimate for independent pixels whose levels have the given prior logits."""
    levels, y_t = level_values(logits.shape[-1]), x + jnp.exp(t / 2) * eps
    log_joint = logits - 0.5 * jnp.exp(-t) * (y_t[..., None] - levels) ** 2
    of_levels = estimate_from_logits(log_joint, levels, y_t, t, VarianceExploding())
    share = jnp.full_like(eps, 0.3)  # for learned variances
    return Estimate(of_levels.x_hat, of_levels.eps_hat, of_levels.log_probs, variance_share=share)


def pixels(levels: int = 16):
    """Returns logits of levels, an image drawn from them, and two draws of noise."""
    rng = np.random.default_rng(0)
    logits, (eps, n) = rng.normal(size=(4, 4, 1, levels)), rng.normal(size=(2, 4, 4, 1))
    x = np.asarray(level_values(levels))[rng.integers(0, levels, (4, 4, 1))]
    return tuple(map(jnp.asarray, (logits, x, eps, n)))


@pytest.mark.costly
@pytest.mark.parametrize("name", KERNELS)
def test_a_weight_is_the_ratio_of_densities(name: str) -> None:
    """A kernel's log weight is log p - log q of the step that it samples."""
    kernel, (logits, x, eps, n) = KERNELS[name].build(), pixels()
    for t, s in ((2.0, -3.0), (0.5, 0.4), (-1.0, -9.0)):
        t, s = jnp.asarray(t), jnp.asarray(s)
        arguments = (estimate_of(logits, x, eps, t), x, eps, n, t, s)
        # y_s is at most 300 standard deviations, with a float64 rounding of 1e-13
        np.testing.assert_allclose(kernel.log_ratio(*arguments), by_density(kernel, *arguments), rtol=0, atol=1e-10)


@pytest.mark.costly
@pytest.mark.parametrize("name", KERNELS)
def test_weights_of_a_thousand_steps_in_float32(name: str) -> None:
    """log p - log q is computed without cancellation: float32 is accurate where the difference of densities is not."""
    kernel, gammas = KERNELS[name].build(), np.linspace(5.0, -13.3, 1001, dtype=np.float32)
    logits, x, _, _ = pixels()
    noise = np.random.default_rng(1).normal(size=(1000, 2, 4, 4, 1)).astype(np.float32)

    def weights(weight, dtype):
        def step(t, s, noise):
            estimate = estimate_of(*(a.astype(dtype) for a in (logits, x, noise[0], t)))
            return weight(estimate, x.astype(dtype), *noise, t, s).sum()

        arguments = (jnp.asarray(a, dtype) for a in (gammas[:-1], gammas[1:], noise))
        return jax.jit(lambda *a: jax.lax.map(lambda one: step(*one), a))(*arguments)

    with jax.enable_x64(True):
        exact = weights(lambda *a: by_density(kernel, *a), jnp.float64)
        found = weights(kernel.log_ratio, jnp.float32)
        rounded = weights(lambda *a: by_density(kernel, *a), jnp.float32)
    errors = [abs(np.asarray(w, np.float64) - np.asarray(exact)).sum() for w in (found, rounded)]
    # A step's is a sum of 16 values that are rounded by some 1e-7 each: 1000 sqrt(16) 1e-7 = 4e-4. The density rounds
    # y_s, which at the end of the chain is 1e4 standard deviations, by 6e-8 of itself.
    assert errors[0] < 2e-3, errors
    assert errors[1] > 1e-2, errors


def oracle(name: str, *overrides: str):
    """Returns the exact model of small images, 50 such images, and their -log P."""
    recipe = load_recipe(RECIPES / f"oracle_{name}.toml", [*SMALL, *overrides])
    source = recipe.data.build()
    images = source.load("test").pixels[:50]
    model = build_state(recipe, training_counts(recipe, source.load("train"))).model
    return model, images, source.distribution.nats(images)


def estimates(estimator, model, images, seed: int = 0) -> np.ndarray:
    """Returns both replicates' nats, shape (2, n)."""
    key = jax.random.key(seed, impl="rbg")  # compiles 5 times faster
    plan = estimator.plan(model, images, precision=0.0, key=key)
    batch = jnp.asarray(images), jnp.arange(len(images)), plan
    return np.stack([estimator(model, *batch, replicate=r, key=key).nats for r in (0, 1)])


@pytest.fixture(scope="module")
def independent():
    """An oracle with independent pixels, whose true reverse step is the mixture kernel."""
    return oracle("gaussian")


@pytest.mark.costly
@pytest.mark.parametrize("steps", [1, pytest.param(5, marks=pytest.mark.statistical)])
def test_every_chain_of_the_true_reverse_step_has_the_same_weight(independent, steps: int) -> None:
    """Along chains of the true reverse step every weight p / q is P(image), without any spread."""
    model, images, truth = independent
    estimator = ImportanceWeighted(samples=2, steps=steps, kernel=MIXTURE, grid=EVEN_IN_GAMMA)
    off = estimates(estimator, model, images) - truth
    # What is left are deviations at the two ends, of order exp(-12) and exp(-9); 4e-5 nats were measured.
    assert abs(off).max() < 1e-3
    wrong = ImportanceWeighted(samples=2, steps=steps, grid=EVEN_IN_GAMMA)
    assert (estimates(wrong, model, images) - truth).mean() > 1


@pytest.fixture(scope="module")
def dependent():
    """An oracle with dependent pixels, for which no kernel is exact."""
    return oracle("mixture")


@pytest.mark.parametrize(
    ("kernel", "grid"), [("mixture", "quadratic"), pytest.param("large", "gamma", marks=pytest.mark.slow)]
)
@pytest.mark.statistical
def test_one_sample_is_the_bound_of_its_kernel_and_grid(dependent, kernel: str, grid: str) -> None:
    """With one sample the expectation is the T-step bound with the same kernel and grid."""
    model, images, truth = dependent
    chosen = {"steps": 4, "kernel": KERNELS[kernel], "grid": Choice("grid", grid)}
    weighted, bound = ImportanceWeighted(samples=1, draws=16, **chosen), VariationalBound(draws=32, **chosen)
    pairs = np.stack([[estimates(e, model, images, seed).mean(0) for e in (weighted, bound)] for seed in range(4)])
    differences = (pairs[:, 0] - pairs[:, 1]).ravel()
    error = differences.std(ddof=1) / np.sqrt(len(differences))
    # The paper's kernel and grid are at 24 nats, the mixture at 8.9 and the truth at 8.4.
    assert abs(differences.mean()) < 4 * error < 0.5, (pairs.mean((0, 2)), error)
    assert pairs[:, 0].mean() > truth.mean()


@pytest.mark.statistical
def test_more_samples_of_any_kernel_are_lower(dependent) -> None:
    """The bound of the mixture kernel falls with K, and stays above -log P."""
    model, images, truth = dependent
    chosen = {"steps": 4, "kernel": MIXTURE, "grid": Choice("grid", "quadratic")}
    mean = {k: estimates(ImportanceWeighted(samples=k, **chosen), model, images).mean() for k in (16, 256)}
    one = estimates(ImportanceWeighted(samples=1, draws=16, **chosen), model, images).mean()
    # The same keys draw the chains of one and of 16, so that this holds in every draw (Jensen's inequality).
    assert one > mean[16] + 0.1, (one, mean)
    assert mean[16] > mean[256] > truth.mean() - 0.01, (mean, truth.mean())


def test_it_is_of_the_steps_of_training() -> None:
    """A model trained with a mixture kernel and its own grid is measured with these by default."""
    of_samples = ["likelihood.estimator.name=importance", "likelihood.estimator.samples=4"]
    recipe, other = (load_recipe(RECIPES / "digits_few_steps.toml", overrides) for overrides in ([], of_samples))
    bound, weighted = build_estimator(recipe, 17), build_estimator(other, 17)
    steps = "T = 10 steps, kernel mixture (draws = 1), grid gammas"
    assert (bound.describe(17), weighted.describe(17)) == (
        f"variational bound, {steps}",
        f"importance-weighted bound, 4 samples, {steps}",
    )
    assert (bound.kernel, bound.grid) == (weighted.kernel, weighted.grid)
    assert isinstance(weighted.kernel, MixtureKernel)
    schedule = recipe.model.schedule.build(key=jax.random.key(0))
    np.testing.assert_array_equal(weighted.gammas(schedule), bound.gammas(schedule))
    assert len(set(np.diff(weighted.gammas(schedule)).round(3))) > 1  # uneven steps


def test_other_steps_than_those_of_training_are_the_papers() -> None:
    """With a different T the paper's kernel and grid are used, and the description names what was measured."""
    trained = (10, MIXTURE, Choice("grid", "gammas", {"gammas": (1.0, 0.0)}))
    papers = ImportanceWeighted(*trained, samples=2, steps=20)
    assert papers.describe(17) == "importance-weighted bound, 2 samples, T = 20 steps, kernel gaussian, grid uniform"
    large = ImportanceWeighted(*trained, samples=2, kernel=KERNELS["large"], grid=EVEN_IN_GAMMA)
    words = "T = 10 steps, kernel gaussian (variance = large), grid gamma"
    assert large.describe(17) == f"importance-weighted bound, 2 samples, {words}"
    assert VariationalBound(*trained, kernel=KERNELS["large"], grid=EVEN_IN_GAMMA).describe(17).endswith(words)


class _OfAPlugin(LearnedRange):
    """A kernel whose name is not registered."""


@pytest.mark.parametrize("kernel", [Choice("kernel", "learned_range"), _OfAPlugin()], ids=["registered", "plugin"])
def test_a_kernel_that_reads_variances_is_that_of_any_steps(kernel) -> None:
    """A kernel with learned variances is kept when T differs from that of training."""
    learned = ImportanceWeighted(10, kernel, EVEN_IN_GAMMA, samples=2, steps=20)
    assert learned.describe(17).endswith(f"T = 20 steps, kernel {Choice.of('kernel', kernel)}, grid uniform")


@pytest.mark.costly
def test_a_kernel_without_what_it_needs_is_refused(model_of) -> None:
    """The mixture kernel refuses a prediction that gives no probabilities of levels."""
    model = model_of(lambda z, gamma: 0 * z)
    images = np.zeros((2, *model.shape), np.uint8)
    with pytest.raises(RecipeError, match="gives no probabilities of levels"):
        estimates(ImportanceWeighted(steps=2, kernel=MIXTURE), model, images)
