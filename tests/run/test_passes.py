# SPDX-License-Identifier: Apache-2.0
"""How many passes a wanted precision takes, and what is made of them."""

import jax
import numpy as np
import pytest

from vdmkit.data import Images, identified
from vdmkit.likelihood import AbstractEstimator, Estimates, interval
from vdmkit.objective import bits_per_dim
from vdmkit.recipe import load_recipe
from vdmkit.run import RunFolder, TrainedRun
from vdmkit.run._pass import pass_over
from vdmkit.run._passes import key_of, measure_passes

COUNT, DIMENSIONS = 5, 16
INDEX = np.arange(COUNT)


class Noisy(AbstractEstimator[None]):
    """One standard normal draw, whatever the precision asked for."""

    def describe(self, levels):
        return "noise"

    def plan(self, model, images, *, precision, key):
        return None

    def rounds(self, plan):
        return 1

    def __call__(self, model, images, index, plan, *, replicate, key, on_round=lambda: None):
        of_replicate = jax.random.fold_in(key, replicate)
        draws = jax.vmap(lambda i: jax.random.normal(jax.random.fold_in(of_replicate, i)))(index)
        on_round()
        return Estimates({"noise": np.asarray(draws, np.float64)}, np.ones(COUNT, int), np.zeros(COUNT, bool))


@pytest.fixture
def images(tiny_images) -> Images:
    return identified(tiny_images.pixels[:COUNT], tiny_images.levels, name="few", split="test")


@pytest.fixture
def run(digits_toml, tmp_path, tiny_model):
    """`run(precision)`: what a measurement needs of a run."""

    class Untrained(TrainedRun):
        def model(self, weights):
            return tiny_model

    def run(precision: float) -> TrainedRun:
        untrained = object.__new__(Untrained)
        recipe = load_recipe(digits_toml, [f"likelihood.precision={precision}"])
        untrained.__dict__.update(recipe=recipe, folder=RunFolder(tmp_path), plugins=(), step=1)
        return untrained

    return run


def pass_of(run: TrainedRun, images: Images, stage: int) -> np.ndarray:
    found = pass_over(Noisy(), run.model("ema"), images.pixels, INDEX, None, batch_size=COUNT, key=key_of(run, stage))
    return np.asarray(found.nats)


def test_without_a_precision_there_is_one_pass(run, images) -> None:
    """False if a recipe's number of draws were not what is drawn."""
    passes = measure_passes(run(0.0), images, Noisy(), INDEX)
    np.testing.assert_array_equal(passes.estimates.nats, pass_of(run(0.0), images, 0))
    assert passes.half_width == interval(np.asarray(passes.estimates.nats)).half_width_monte_carlo
    assert passes.evaluations == 2 * COUNT


def test_a_pass_that_misses_is_averaged_with_more_and_none_is_thrown_away(run, images, capsys) -> None:
    """False if passes were chosen by how good they look: then 0.93 of 95% intervals of few images hold the truth."""
    first = interval(pass_of(run(0.0), images, 0)).half_width_monte_carlo
    wanted = run(bits_per_dim(first, DIMENSIONS) / 2.5)  # 2.5^2 = 6.25
    passes = measure_passes(wanted, images, Noisy(), INDEX)
    mean = np.mean([pass_of(wanted, images, stage) for stage in range(7)], axis=0)
    np.testing.assert_allclose(passes.estimates.nats, mean, rtol=1e-12)  # float64
    assert passes.half_width == pytest.approx(first / np.sqrt(7), rel=1e-12)
    assert passes.evaluations == 7 * 2 * COUNT
    assert "with this pass: 6 more of the same, and their mean" in capsys.readouterr().err
    assert len(list(passes.kept.folder.parent.iterdir())) == 7  # what is on disk goes on after a kill
