# SPDX-License-Identifier: Apache-2.0
"""On oracles with a known likelihood, the 95% interval of each estimator has its nominal coverage.

At 95%, fewer than 90 of 100 intervals cover the truth in 1.1% of such tests; the keys are fixed.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vdmkit
from vdmkit.likelihood import ImportanceWeighted, ProbabilityFlow, VariationalBound
from vdmkit.likelihood.exact import exact_terms, gaussian_terms, terms_of_images
from vdmkit.likelihood.intervals import interval, passes_for, quantile_of
from vdmkit.recipes import load_recipe
from vdmkit.recipes.build import build_state, training_counts

RECIPES = Path(vdmkit.__file__).parents[1] / "recipes"
SMALL = ["data.shape=[2, 2, 1]", "data.test_count=200", "model.schedule.gamma_min=-8.0", "model.schedule.gamma_max=8.0"]
LEVELS = ["data.levels=5"]
STEPS = 8
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def oracle():
    """`oracle(name)` returns the exact model, its distribution and 200 images."""

    def oracle(name: str):
        levels = [] if name.endswith("_continuous") else LEVELS
        recipe = load_recipe(RECIPES / f"oracle_{name}.toml", [*SMALL, *levels])
        source = recipe.data.build()
        model = build_state(recipe, training_counts(recipe, source.load("train"))).model
        return model, source.distribution, source.load("test").pixels

    return oracle


def covered(estimator, model, images: np.ndarray, truth: float) -> int:
    """Returns how many of 100 intervals for the mean over the images cover the truth, in nats."""
    plan = estimator.plan(model, images, precision=0.0, key=jax.random.key(0, impl="rbg"))
    pixels, index = jnp.asarray(images), jnp.arange(len(images))
    held = 0
    for seed in range(100):
        key = jax.random.key(seed, impl="rbg")  # compiles faster
        pair = [estimator(model, pixels, index, plan, replicate=r, key=key).nats for r in (0, 1)]
        found = interval(np.stack([np.asarray(nats) for nats in pair]))
        held += abs(found.value - truth) <= found.half_width_monte_carlo
    return held


def exact_bound(distribution, images: np.ndarray, steps: int) -> float:
    """Returns the mean bound of Gaussian images in nats, in closed form or by quadrature."""
    gammas = np.linspace(-8, 8, max(steps, 1) + 1)
    if distribution.levels:
        bound = terms_of_images(exact_terms(distribution, gammas, continuous=not steps), images)
    else:
        bound = gaussian_terms(distribution, images, gammas, continuous=not steps)
    return float(np.mean(bound.total))


GAUSSIANS = pytest.mark.parametrize("name", ["gaussian", "gaussian_continuous"])
MIXTURES = pytest.mark.parametrize("name", ["mixture", "mixture_continuous"])


@GAUSSIANS
@pytest.mark.parametrize("steps", [0, STEPS], ids=["continuous", "steps"])
def test_intervals_of_the_bound_hold_its_exact_value(oracle, name, steps):
    """The 95% intervals of the bound cover its exact value."""
    model, distribution, images = oracle(name)
    truth = exact_bound(distribution, images, steps)
    assert covered(VariationalBound(steps, draws=16), model, images, truth) >= 90


@pytest.mark.parametrize("count", [3, 5, 8, 16])
def test_intervals_of_a_wanted_precision_hold_the_exact_value(oracle, count):
    """Intervals of a requested precision cover the exact value.

    Keeping only the passes that reach the precision would bias them: then 0.93 of the intervals of 8 images covered it.
    """
    model, distribution, images = oracle("gaussian")
    images, estimator, repeats = images[:count], VariationalBound(draws=4), 2000
    key = jax.random.key(0, impl="rbg")
    of_draws = estimator.fitted_plan(model, images, precision=0.0, key=key)
    wanted = quantile_of(count) * np.sqrt(1.3 * float(of_draws.variance) / 2 / count)
    plan = estimator.plan(model, images, precision=wanted, key=key)

    def passes(numbers: np.ndarray) -> np.ndarray:
        """Returns two estimates of each image for each pass."""
        # Draws depend on the index of an image, so the same images with other indices are an independent pass.
        pixels = jnp.asarray(np.tile(images, (len(numbers), 1, 1, 1)))
        index = jnp.asarray((numbers[:, None] * count + np.arange(count)).ravel())
        pair = [estimator(model, pixels, index, plan, replicate=r, key=key).nats for r in (0, 1)]
        return np.stack([np.asarray(nats).reshape(-1, count) for nats in pair], axis=1)

    first = [interval(replicates) for replicates in passes(np.arange(repeats))]
    counts = np.array([passes_for(each.half_width_monte_carlo, wanted) for each in first])
    assert 0.02 < (counts > 1).mean() < 0.5
    total = np.array([each.value for each in first])
    more = np.repeat(np.arange(repeats), counts - 1)
    for start in range(0, len(more), repeats):
        some = more[start : start + repeats]
        found = passes(start + repeats + np.arange(repeats)).mean((1, 2))  # one shape, one compilation
        np.add.at(total, some, found[: len(some)])
    half_widths = np.array([each.half_width_monte_carlo for each in first]) / np.sqrt(counts)
    held = abs(total / counts - exact_bound(distribution, images, 0)) <= half_widths
    # 4 standard errors, false alarm 3e-5
    assert held.mean() > 0.95 - 4 * np.sqrt(0.95 * 0.05 / repeats)


@GAUSSIANS
def test_intervals_of_one_importance_sample_hold_the_bound_of_its_steps(oracle, name):
    """With one sample, intervals of the importance-weighted bound cover the bound of T steps."""
    model, distribution, images = oracle(name)
    truth = exact_bound(distribution, images, STEPS)
    assert covered(ImportanceWeighted(samples=1, steps=STEPS), model, images, truth) >= 90


@MIXTURES
def test_intervals_of_the_bound_hold_the_truth_where_pixels_depend_on_each_other(oracle, name):
    """The bound of the exact denoiser between wide ends is -log P, also for dependent pixels."""
    model, distribution, images = oracle(name)
    assert covered(VariationalBound(draws=16), model, images, float(distribution.nats(images).mean())) >= 90


@MIXTURES
def test_intervals_of_the_flow_hold_the_truth(oracle, name):
    """Intervals of the ODE likelihood include the error of its probes."""
    model, distribution, images = oracle(name)
    images = images[:50]
    # a tolerance of 1e-4 is a hundredth of the interval
    estimator = ProbabilityFlow(rtol=1e-4, atol=1e-4)
    assert covered(estimator, model, images, float(distribution.nats(images).mean())) >= 90
