# SPDX-License-Identifier: Apache-2.0
"""On oracles, a correct model is never refused for its Monte Carlo error, and an impossible number is."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vdmkit
from vdmkit.likelihood import ImportanceWeighted, VariationalBound
from vdmkit.likelihood.exact import below_the_truth, impossible_below
from vdmkit.likelihood.intervals import interval
from vdmkit.likelihood.log_likelihood import pass_over, sample_of
from vdmkit.losses import bits_per_dim
from vdmkit.model import DiffusionModel
from vdmkit.randomness import fold_purpose
from vdmkit.recipes import load_recipe
from vdmkit.recipes.build import build_state, training_counts

SEEDS = (15, 288)  # 2 of the 10 up to 345
RECIPES = Path(vdmkit.__file__).parents[1] / "recipes"


@dataclass(frozen=True)
class Oracle:
    """An exact model and test images chosen as by `vdmkit likelihood`, with their -log P."""

    model: DiffusionModel
    images: np.ndarray
    nats: np.ndarray

    def refused(self, nats: np.ndarray, estimator: Any) -> list[str]:
        """Returns the reasons not to trust these estimates."""
        value, exact, lowest = (
            bits_per_dim(float(x), self.model.dimensions)
            for x in (nats.mean(), self.nats.mean(), impossible_below(self.nats, nats, estimator))
        )
        return below_the_truth(value, exact, lowest, 17)

    def was_refused(self, nats: np.ndarray) -> bool:
        """Returns whether a rule refuses that takes the upper end of a 95% interval for certain."""
        found = interval(nats)
        return (self.nats.mean() - found.value - found.half_width_monte_carlo) * len(self.images) > 20


@pytest.fixture(scope="module")
def oracle():
    def oracle(name: str, count: int) -> Oracle:
        recipe = load_recipe(RECIPES / f"oracle_{name}.toml")
        source = recipe.data.build()
        model = build_state(recipe, training_counts(recipe, source.load("train"))).model
        pixels = source.load("test").pixels
        images = pixels[sample_of(len(pixels), count)]
        return Oracle(model, images, source.distribution.nats(images))

    return oracle


def by_seed(oracle: Oracle, draws: int, seed: int) -> tuple[np.ndarray, VariationalBound]:
    """Returns estimates as from `vdmkit likelihood --set seed=... --set likelihood.estimator.draws=...`."""
    key = jax.random.fold_in(fold_purpose(jax.random.key(seed), "likelihood"), 0)
    estimator, index = VariationalBound(draws=draws), np.arange(len(oracle.images))
    plan = estimator.plan(oracle.model, oracle.images, precision=0.0, key=fold_purpose(key, "plan"))
    estimates = pass_over(estimator, oracle.model, oracle.images, index, plan, batch_size=300, key=key)
    return np.asarray(estimates.nats), estimator


@pytest.fixture(scope="module")
def mixture(oracle) -> Oracle:
    return oracle("mixture", 300)


@pytest.mark.costly
def test_seeds_that_were_refused(mixture) -> None:
    """The exact denoiser is not refused for a Monte Carlo error downwards."""
    for seed in SEEDS:
        nats, estimator = by_seed(mixture, 4, seed)
        assert mixture.was_refused(nats)
        assert mixture.refused(nats, estimator) == []


@pytest.mark.costly
def test_probabilities_that_sum_to_more_than_one_are_refused(mixture) -> None:
    """Probabilities that sum to 1.15 at every pixel are refused at the usual settings."""
    nats, estimator = by_seed(mixture, 16, 1)
    assert mixture.refused(nats, estimator) == []
    (reason,) = mixture.refused(nats - 16 * np.log(1.15), estimator)
    value = bits_per_dim(float(nats.mean()), 16) - np.log2(1.15)
    assert reason == (
        f"{value:.4f} bits/dim is impossible: the distribution that these images were drawn from gives them 2.6995, "
        "so these probabilities do not sum to 1."
    )


def test_estimates_whose_exponential_is_unbiased_need_no_allowance() -> None:
    """Estimates whose exponential is unbiased get no allowance for Monte Carlo error."""
    rng = np.random.default_rng(0)
    exact = rng.normal(size=50)
    noise = rng.normal(size=(2, 50))
    noise -= noise.mean()
    for error, estimator in ((noise, ImportanceWeighted()), (np.zeros((2, 50)), VariationalBound())):
        lowest = impossible_below(exact, exact + error, estimator)
        assert exact.mean() - lowest == pytest.approx(20 / 50)
    assert impossible_below(exact, exact + noise, VariationalBound()) == -np.inf  # 100 values are too few


def test_a_density_integrates_to_one() -> None:
    """For continuous data, the reason speaks of a density."""
    (reason,) = below_the_truth(-0.7, -0.6159, -0.69, 0)
    assert reason.endswith("gives them -0.6159, so this density does not integrate to 1.")
    assert below_the_truth(-0.68, -0.6159, -0.69, 0) == []
    assert below_the_truth(-9.0, -0.6159, -np.inf, 0) == []


@pytest.mark.slow
@pytest.mark.parametrize(("name", "count", "draws"), [("mixture", 300, 4), ("gaussian", 2, 2)])
def test_2000_seeds(oracle, name, count, draws) -> None:
    """In 2,000 seeds a correct model is never refused, and its mean estimate is unbiased.

    A rule that takes the upper end of a 95% interval for certain refuses more than 0.5% of them.
    """
    oracle, repeats, at_once = oracle(name, count), 2000, 100
    estimator = VariationalBound(draws=draws)
    plan = estimator.even_plan(oracle.model)  # with few draws there is no pilot
    # Draws depend on the index of an image, so the same images with other indices are as good as a new seed.
    pixels = jnp.asarray(np.tile(oracle.images, (at_once, 1, 1, 1)))
    values, refused, was_refused = [], 0, 0
    for start in range(0, repeats, at_once):
        index = jnp.arange(start * count, (start + at_once) * count)
        pair = [estimator(oracle.model, pixels, index, plan, replicate=r, key=jax.random.key(0)).nats for r in (0, 1)]
        for nats in np.stack([np.asarray(one).reshape(at_once, count) for one in pair], axis=1):
            refused += len(oracle.refused(nats, estimator))
            was_refused += oracle.was_refused(nats)
            values.append(nats.mean())
    assert refused == 0
    assert was_refused > repeats / 200
    error = (np.mean(values) - oracle.nats.mean(), np.std(values) / np.sqrt(repeats))
    assert abs(error[0]) < 4 * error[1]  # false alarm 6e-5; the ends of the schedule add 1e-3 nats, a 40th of this
