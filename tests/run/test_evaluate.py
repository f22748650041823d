# SPDX-License-Identifier: Apache-2.0
"""What a run reports: numbers that agree with each other, about all of the test set, or an error."""

import json
from dataclasses import replace

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest

from vdmkit.data import identified
from vdmkit.errors import DataError, NonFiniteError
from vdmkit.recipe import EvaluationSettings
from vdmkit.run import evaluate

SETTINGS = EvaluationSettings(draws=2, batch_size=5)


@pytest.fixture(scope="module")
def evaluation(tiny_model, tiny_images):
    return evaluate(tiny_model, tiny_images, SETTINGS, step=7, seed=1)


def test_the_numbers_agree(evaluation):
    """The report would contradict itself."""
    terms = evaluation.prior + evaluation.reconstruction + evaluation.diffusion
    assert evaluation.bpd == pytest.approx(terms, rel=1e-12)  # float64 sums of a dozen numbers
    assert evaluation.bpd_low < evaluation.bpd < evaluation.bpd_high
    assert (evaluation.images, evaluation.images_in_test_set) == (12, 12)
    assert (evaluation.step, evaluation.weights, evaluation.dataset) == (7, "ema", "tiny/test")
    assert json.loads(json.dumps(evaluation.as_json(), allow_nan=False)) == evaluation.as_json()


def test_the_text_says_it_all(evaluation):
    """A reader could not tell on what, how and how exactly the number was measured."""
    text = str(evaluation)
    width = (evaluation.bpd_high - evaluation.bpd_low) / 2
    assert text.startswith(f"test bpd {evaluation.bpd:.4f} +/- {width:.4f} bits/dim (95%: finite test set ")
    terms = ("prior", "reconstruction", "diffusion")
    assert " + ".join(f"{name} {getattr(evaluation, name):.4f}" for name in terms) in text
    assert "variational bound, continuous time, 2 draws per image" in text
    assert "12 images of tiny/test, step 7, ema weights" in text
    assert "Not the published data set" in text
    assert "Only the first" not in text


def test_the_batch_size_does_not_matter(evaluation, tiny_model, tiny_images):
    """An image would get other draws, or count twice, when batches are cut elsewhere."""
    other = evaluate(tiny_model, tiny_images, replace(SETTINGS, batch_size=100), step=7, seed=1)
    # float32 sums over 16 pixels in another order; then means in float64
    assert other.bpd == pytest.approx(evaluation.bpd, rel=1e-5)
    assert other.images == 12


def test_another_seed_gives_another_estimate(evaluation, tiny_model, tiny_images):
    """The Monte Carlo error would not be what two runs differ by."""
    assert evaluate(tiny_model, tiny_images, SETTINGS, step=7, seed=2).bpd != evaluation.bpd


def test_too_little_time_is_said(tiny_model, tiny_images):
    """Part of the test set would be reported as all of it."""
    evaluation = evaluate(tiny_model, tiny_images, SETTINGS, step=7, seed=1, seconds=0.0)
    assert (evaluation.images, evaluation.images_in_test_set) == (5, 12)
    assert "Only the first 5 of 12 test images" in str(evaluation)


def test_images_of_another_kind_are_refused(tiny_model, tiny_images):
    """A likelihood over 17 levels would be reported as one over 5, or a wrong shape end in a traceback."""
    for images in (replace(tiny_images, levels=17), replace(tiny_images, pixels=tiny_images.pixels[:, :2])):
        with pytest.raises(DataError, match="the model was trained on"):
            evaluate(tiny_model, images, SETTINGS, step=0, seed=0)


def test_one_image_has_no_interval(tiny_model, tiny_images):
    """An interval of a single image would be reported as NaN."""
    one = identified(tiny_images.pixels[:1], tiny_images.levels, name="one", split="test")
    with pytest.raises(DataError, match="an interval needs at least 2"):
        evaluate(tiny_model, one, SETTINGS, step=0, seed=0)


def test_a_bound_that_is_not_finite_is_no_bound(tiny_model, tiny_images):
    """NaN would be reported as a likelihood."""
    spoiled = eqx.tree_at(lambda m: m.network.bias, tiny_model, jnp.full(16, np.nan))
    with pytest.raises(NonFiniteError, match="the diffusion term of test image 0 is not finite"):
        evaluate(spoiled, tiny_images, SETTINGS, step=0, seed=0)
