# SPDX-License-Identifier: Apache-2.0
"""Likelihoods of images given their labels: the same numbers as from a separate model for each label."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vdmkit.data import MixtureData
from vdmkit.errors import DataError, RecipeError, UntrustedError
from vdmkit.likelihood import AbstractEstimator, ImportanceWeighted, VariationalBound
from vdmkit.likelihood.log_likelihood import log_likelihood
from vdmkit.model import DiffusionModel
from vdmkit.networks import LabelConditioned
from vdmkit.networks.small import LabelNetwork
from vdmkit.registry import Choice
from vdmkit.schedules import FixedLinear
from vdmkit.toy_data import ExactGivenLabel

SOURCE = MixtureData(shape=(2, 2, 1), levels=5, test_count=6)
IMAGES = SOURCE.load("test")
LABELS = np.arange(6) % 3
KEY = jax.random.key(0)
ESTIMATORS = {
    "bound": VariationalBound(draws=2),
    "steps": VariationalBound(draws=2, steps=5),
    "importance": ImportanceWeighted(samples=2, steps=4),
}


@pytest.fixture(scope="module")
def model() -> DiffusionModel:
    """A model with the exact denoiser of a mixture given its component."""
    schedule = FixedLinear(gamma_min=-8.0, gamma_max=5.0)
    prediction, network = ExactGivenLabel(SOURCE.distribution), LabelNetwork(1, 3)
    return DiffusionModel(schedule=schedule, prediction=prediction, network=network, shape=SOURCE.shape, levels=5)


@pytest.mark.costly
@pytest.mark.parametrize("name", ESTIMATORS)
def test_each_image_is_given_its_own_label(model, name):
    """Each image is measured with its own label, and its draws do not depend on the labels of other images."""
    given = {"key": KEY, "estimator": ESTIMATORS[name]}
    found = log_likelihood(model, IMAGES.pixels, condition={"label": LABELS}, **given).nats
    for label in range(3):
        of_label = log_likelihood(model, IMAGES.pixels, condition={"label": np.full(6, label)}, **given).nats
        np.testing.assert_array_equal(found[:, label::3], of_label[:, label::3])
        assert (abs(found - of_label) > 1e-3).any()


@pytest.mark.costly
def test_a_model_given_a_label_has_the_likelihood_of_images_with_it(model):
    """`model.given(label)` has the likelihood that the conditional model gives with this label for every image."""
    given = {"key": KEY, "estimator": ESTIMATORS["bound"]}
    told = log_likelihood(model, IMAGES.pixels, condition={"label": np.full(6, 1)}, **given).nats
    alone = log_likelihood(model.given({"label": 1}), IMAGES.pixels, **given).nats
    np.testing.assert_allclose(told, alone, rtol=1e-5)  # float32, different program
    without = log_likelihood(model, IMAGES.pixels, **given).nats
    assert (abs(told - without) > 1e-3).any(axis=1).all()


@pytest.mark.costly
def test_the_pilot_is_told_the_labels_of_its_images(model):
    """The pilot's allocation of draws depends on the labels of its images."""
    estimator = VariationalBound(draws=16)
    plan = lambda labels: estimator.fitted_plan(  # noqa: E731
        model, IMAGES.pixels, precision=0.0, key=KEY, condition={"label": jnp.asarray(labels)}
    )
    own, other = plan(LABELS), plan(np.zeros(6, int))
    assert float(abs(own.allocation.mean - other.allocation.mean).max()) > 1e-3
    some = plan(LABELS[np.random.default_rng(0).permutation(6)])
    assert float(abs(own.allocation.mean - some.allocation.mean).max()) > 1e-3


def test_a_component_has_the_likelihood_of_its_images():
    """The mixture's P is the sum over its components, and an image's label is the component it was drawn from."""
    mixture = SOURCE.distribution
    joint = [np.log(w) - mixture.component(c).nats(IMAGES.pixels) for c, w in enumerate(mixture.weights)]
    np.testing.assert_allclose(-np.logaddexp.reduce(joint), mixture.nats(IMAGES.pixels), rtol=1e-12)
    apart = MixtureData(levels=0, means=(2.0, -2.0, 0.0), sds=(0.1, 0.1, 0.1), weights=(0.2, 0.5, 0.3))
    for split in ("train", "test"):
        images = apart.load(split)
        corner = images.pixels[:, 0, 0, 0].round().astype(int)
        np.testing.assert_array_equal(images.labels, np.select([corner == 2, corner == -2], [0, 1], 2))
    assert (apart.classes, apart.labels_are_components) == (3, True)


class _OfOld(AbstractEstimator[None]):
    """An estimator with the plan signature from before labels were supported."""

    def describe(self, levels):
        return "old"

    def plan(self, model, images, *, precision, key):
        return None

    def rounds(self, plan):
        return 1

    def __call__(self, model, images, index, plan, *, replicate, key, on_round=lambda: None):
        raise NotImplementedError


def test_side_information_that_does_not_fit_is_refused(model):
    """Labels of the wrong shape or type are refused, as are estimators whose plan takes no condition."""
    for labels, reason in (
        (LABELS[:5], r"condition 'label' of shape \(5,\): expected a row for each of 6 images"),
        (np.asarray(3), r"of shape \(\): expected a row for each of 6 images"),
        (LABELS - 1, "condition 'label' of type int64, from -1: expected integers from 0"),
        (LABELS / 2, "condition 'label' of type float64, from 0.0: expected integers from 0"),
    ):
        with pytest.raises(DataError, match=reason):
            log_likelihood(model, IMAGES.pixels, key=KEY, condition={"label": labels})
    with pytest.raises(RecipeError, match="estimator _OfOld cannot measure images given their labels: its plan has no"):
        log_likelihood(model, IMAGES.pixels, key=KEY, estimator=_OfOld(), condition={"label": LABELS})


@pytest.mark.costly
def test_a_label_that_does_not_exist_gives_no_number(model):
    """A label beyond the last class gives NaN instead of the last class's likelihood."""
    few = VariationalBound(draws=2)
    found = log_likelihood(model, IMAGES.pixels, key=KEY, estimator=few, condition={"label": LABELS + 1})
    with pytest.raises(UntrustedError, match="the diffusion term is not finite"):
        _ = found.bits_per_dim
    inner = Choice("network", "none")
    network = LabelConditioned((2, 2, 1), 1, (-8.0, 5.0), 3, KEY, network=inner)
    assert np.isnan(network.embeddings.at[jnp.asarray(4)].get(mode="fill", fill_value=jnp.nan)).all()
