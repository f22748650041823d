# SPDX-License-Identifier: Apache-2.0
"""The evaluation of a run: consistent numbers over the whole test set, or an error."""

import functools
import json
from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vdmkit.data.identity import TrainedOn, image_hashes
from vdmkit.data.sources import identified
from vdmkit.errors import DataError, RecipeError, UntrustedError
from vdmkit.experiments.measure import evaluate
from vdmkit.likelihood import VariationalBound
from vdmkit.likelihood.log_likelihood import log_likelihood
from vdmkit.recipes import load_recipe
from vdmkit.schedules import AbstractSchedule


@pytest.fixture(scope="session")
def recipe(digits_toml):
    """`recipe(override, ...)` returns a recipe with few draws and seed 1."""
    fixed = ("seed=1", "evaluation.draws=2", "evaluation.batch_size=5")
    return lambda *overrides: load_recipe(digits_toml, [*fixed, *overrides])


@pytest.fixture(scope="module")
def evaluation(tiny_model, tiny_images, recipe):
    others = np.full((3, 4, 4, 1), 4, np.uint8)
    return evaluate(recipe(), tiny_model, tiny_images, TrainedOn(fingerprints=image_hashes(others)), step=7)


def test_the_numbers_agree(evaluation):
    """The terms sum to the bits/dim, which lie inside their interval, and the report is valid JSON."""
    assert evaluation.bpd == pytest.approx(sum(evaluation.terms.values()), rel=1e-12)  # float64 sums of a dozen numbers
    assert evaluation.bpd_low < evaluation.bpd < evaluation.bpd_high
    assert (evaluation.images, evaluation.images_in_test_set) == (12, 12)
    assert (evaluation.step, evaluation.weights, evaluation.dataset) == (7, "ema", "tiny/test")
    assert json.loads(json.dumps(evaluation.as_json(), allow_nan=False)) == evaluation.as_json()


@pytest.mark.costly
def test_the_numbers_can_be_computed_again_from_the_library(evaluation, tiny_model, tiny_images):
    """`log_likelihood` with the evaluation seed reproduces the report."""
    found = log_likelihood(tiny_model, tiny_images.pixels, estimator=VariationalBound(draws=2), key=jax.random.key(1))
    assert evaluation.bpd == found.bits_per_dim.value
    assert evaluation.seed == 1


def test_the_text_says_it_all(evaluation):
    """The text gives the number, its interval and terms, the estimator, the model and the images."""
    text = str(evaluation)
    width = (evaluation.bpd_high - evaluation.bpd_low) / 2
    assert text.startswith(f"{evaluation.bpd:.4f} +/- {width:.4f} bits/dim on these 12 images\n")
    assert " + ".join(f"{name} {value:.4f}" for name, value in evaluation.terms.items()) in text
    for row in ("estimator     variational bound, continuous time", "model         step 7, ema weights, float"):
        assert row in text
    assert "images        all 12 of tiny/test, not the published data set" in text
    assert "network       24 evaluations: 2 draws an image\n" in text


def test_evaluations_are_told_apart(evaluation):
    """Evaluations per image are reported separately from those of planning and solver error."""
    planned = replace(evaluation, evaluations=24 + 2304)
    assert "network       2,328 evaluations: 2 draws an image, 2,304 to plan them\n" in str(planned)
    facts = {"are_draws": False, "evaluations_per_image": 57.25, "evaluations_of_solver_error": 400}
    solved = replace(evaluation, evaluations=687 + 400, **facts)
    assert "network       1,087 evaluations: 57.2 an image, 400 for the solver's error\n" in str(solved)


def test_the_batch_size_does_not_matter(evaluation, tiny_model, tiny_images, recipe):
    """The draws of an image do not depend on the batch size."""
    other = evaluate(recipe("evaluation.batch_size=100"), tiny_model, tiny_images, TrainedOn(), step=7)
    # float32 sums over 16 pixels in a different order, then means in float64
    assert other.bpd == pytest.approx(evaluation.bpd, rel=1e-5)
    assert other.images == 12


def test_another_seed_gives_another_estimate(evaluation, tiny_model, tiny_images, recipe):
    """A different seed gives different draws."""
    assert evaluate(recipe("seed=2"), tiny_model, tiny_images, TrainedOn(), step=7).bpd != evaluation.bpd


def test_too_little_time_is_said(tiny_model, tiny_images, recipe):
    """A time limit reduces the number of images, and the report says so."""
    evaluation = evaluate(recipe(), tiny_model, tiny_images, TrainedOn(), step=7, seconds=0.0)
    assert (evaluation.images, evaluation.images_in_test_set) == (5, 12)
    assert "images        5 (drawn at random from 12) of tiny/test" in str(evaluation)


def test_images_trained_on_are_said(evaluation, tiny_model, tiny_images, recipe):
    """The report counts the test images that were trained on, or says that this is unknown."""
    of = functools.partial(evaluate, recipe(), tiny_model, tiny_images, step=7)
    trained, some = (of(TrainedOn(fingerprints=image_hashes(tiny_images.pixels[:n]))) for n in (12, 5))
    assert (trained.test_images_trained_on, some.test_images_trained_on, evaluation.test_images_trained_on) == (
        12,
        5,
        0,
    )
    assert "NOT A TEST LIKELIHOOD" in str(trained)
    assert "trained on 12 of the 12 images: not a test likelihood" in str(trained)
    assert "trained on 5 of the 12 images" in str(some)
    unknown = of(TrainedOn())
    assert unknown.test_images_trained_on is None
    assert "not known which images" in str(unknown)
    assert trained.bpd == unknown.bpd == evaluation.bpd


@pytest.mark.costly
@pytest.mark.parametrize(
    ("overrides", "estimator"),
    [
        ((), "continuous time"),
        (("objective.steps=3",), "T = 3 steps, kernel gaussian, grid uniform"),
        (
            ("objective.steps=3", "objective.kernel={name = 'gaussian', variance = 'large'}", "objective.grid=gamma"),
            "T = 3 steps, kernel gaussian (variance = large), grid gamma",
        ),
        (("objective.steps=3", "evaluation.steps=0"), "continuous time"),
        (("evaluation.steps=5",), "T = 5 steps, kernel gaussian, grid uniform"),
    ],
)
def test_the_bound_is_the_one_trained_on_unless_the_recipe_says_otherwise(
    tiny_model, tiny_images, evaluation, overrides, estimator, recipe
):
    """The evaluated bound has the steps of the training objective by default, and the report names it."""
    found = evaluate(recipe(*overrides), tiny_model, tiny_images, TrainedOn(), step=7)
    assert found.estimator == f"variational bound, {estimator}"
    assert (found.bpd == evaluation.bpd) == (estimator == "continuous time")


class _Bent(AbstractSchedule):
    """Rises from -6 to 5, but decreases or jumps in the middle."""

    jump: bool
    gamma_min: float = -6.0
    gamma_max: float = 5.0

    def __call__(self, t):
        fall = t - 3.0 * jnp.exp(-((t - 0.5) ** 2) * 200)
        return jnp.where(self.jump, 5 * t + jnp.where(t > 0.5, 1.0, 0.0), fall)


@pytest.mark.parametrize(("jump", "reason"), [(False, "does not rise"), (True, "without jumps")])
def test_a_schedule_without_a_bound_is_refused(tiny_model, tiny_images, jump, reason, recipe):
    """A schedule that decreases or jumps is refused."""
    model = eqx.tree_at(lambda m: m.schedule, tiny_model, _Bent(jump))
    with pytest.raises(RecipeError, match=reason):
        evaluate(recipe(), model, tiny_images, TrainedOn(), step=0)


def test_images_of_another_kind_are_refused(tiny_model, tiny_images, recipe):
    """Images with different levels or a different shape are refused."""
    for images in (replace(tiny_images, levels=17), replace(tiny_images, pixels=tiny_images.pixels[:, :2])):
        with pytest.raises(DataError, match="the model was trained on"):
            evaluate(recipe(), tiny_model, images, TrainedOn(), step=0)


def test_one_image_has_no_interval(tiny_model, tiny_images, recipe):
    """A test set of one image is refused, because it has no interval."""
    one = identified(tiny_images.pixels[:1], tiny_images.levels, name="one", split="test")
    with pytest.raises(DataError, match="an interval needs at least 2"):
        evaluate(recipe(), tiny_model, one, TrainedOn(), step=0)


def test_a_bound_that_is_not_finite_is_no_bound(tiny_model, tiny_images, recipe):
    """A NaN in a term raises an error that names the term and the image."""
    spoiled = eqx.tree_at(lambda m: m.network.bias, tiny_model, jnp.full(16, np.nan))
    with pytest.raises(UntrustedError, match="the diffusion term is not finite, first for image 0"):
        evaluate(recipe(), spoiled, tiny_images, TrainedOn(), step=0)
