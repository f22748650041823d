# SPDX-License-Identifier: Apache-2.0
"""Classification by Bayes' rule: equal to the closed form on mixtures whose components are the labels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax
from scipy.stats import t as student
from vdmkit_classification import classify
from vdmkit_classification.scores import compare_with_reference

from vdmkit.data import MixtureData
from vdmkit.decoders import CategoricalObservation, GaussianObservation
from vdmkit.errors import DataError, RecipeError, UntrustedError
from vdmkit.likelihood import ProbabilityFlow, VariationalBound
from vdmkit.likelihood.log_likelihood import log_likelihood
from vdmkit.model import DiffusionModel
from vdmkit.networks import NoNetwork
from vdmkit.networks.small import LabelNetwork
from vdmkit.predictions import Eps
from vdmkit.schedules import FixedLinear
from vdmkit.toy_data import ExactGivenLabel

KEY = jax.random.key(0)
SHAPE = (2, 2, 1)
CONTINUOUS = MixtureData(shape=SHAPE, levels=0, test_count=24)
LEVELS = MixtureData(shape=SHAPE, levels=5, test_count=24)


def oracle(source: MixtureData, ends: tuple[float, float]) -> DiffusionModel:
    """The exact denoiser of a mixture, given the label."""
    return DiffusionModel(
        schedule=FixedLinear(gamma_min=ends[0], gamma_max=ends[1]),
        prediction=ExactGivenLabel(source.distribution),
        network=LabelNetwork(1, 3),
        shape=SHAPE,
        observation=CategoricalObservation(source.levels) if source.levels else GaussianObservation(),
    )


def exact(source: MixtureData, frequencies: list[float]) -> np.ndarray:
    """log f_y p(x | y) of the test images in closed form."""
    pixels = source.load("test").pixels
    nats = [source.distribution.component(label).nats(pixels) for label in range(3)]
    return np.log(frequencies) - np.stack(nats, axis=1)


@pytest.mark.costly
def test_probabilities_by_the_flow_are_those_of_bayes_rule():
    """The posterior would not be Bayes' rule with the likelihoods given each label and these class frequencies.

    A component's denoiser is linear, and its divergence exact with one probe: the flow's likelihood is that of the
    component but for the ends (e^-20) and the solver's tolerance, 1e-6 relative to a log p of about 10.
    """
    frequencies = [0.2, 0.5, 0.3]
    flow = ProbabilityFlow(rtol=1e-6, atol=1e-6)
    given = {"frequencies": np.asarray(frequencies) * 70, "key": KEY, "estimator": flow, "passes": 1}
    pixels = CONTINUOUS.load("test").pixels
    model = oracle(CONTINUOUS, (-20.0, 24.0))
    found = classify(model, pixels, **given)
    posterior = log_softmax(exact(CONTINUOUS, frequencies), axis=1)
    np.testing.assert_allclose(np.exp(found.log_posterior), np.exp(posterior), rtol=0, atol=2e-4)
    np.testing.assert_array_equal(found.predicted, posterior.argmax(1))
    labels = CONTINUOUS.load("test").labels
    reference = compare_with_reference(CONTINUOUS.distribution, pixels, found, labels)
    assert reference.difference < 2e-4
    assert reference.other_decisions == 0
    assert reference.accuracy == (posterior.argmax(1) == labels).mean()
    own = log_likelihood(model, pixels, condition={"label": labels}, key=KEY, estimator=flow)
    expected = (exact(CONTINUOUS, frequencies) - np.log(frequencies))[np.arange(24), labels]
    np.testing.assert_allclose(own.log_prob, expected, rtol=0, atol=1e-3)


@pytest.mark.costly
def test_odds_by_the_bound_are_those_of_bayes_rule():
    """Log odds by the bound in continuous time would be biased, or their Monte Carlo error be too small.

    Of 48 odds none is further from the truth than Student's 1 - 1e-6 quantile of its own eight estimates.
    """
    pixels = LEVELS.load("test").pixels
    estimator = VariationalBound(draws=64)
    model = oracle(LEVELS, (-12.0, 12.0))
    found = classify(model, pixels, frequencies=np.ones(3), key=KEY, estimator=estimator).log_joint
    odds, truth = found[..., 1:] - found[..., :1], exact(LEVELS, [1 / 3] * 3)
    off = odds.mean(0) - (truth[:, 1:] - truth[:, :1])
    error = odds.std(0, ddof=1) / np.sqrt(len(odds))
    assert (abs(off) <= student.ppf(1 - 1e-6 / 2, len(odds) - 1) * error + 1e-3).all()  # ends: 1e-4
    assert 0.01 < error.mean() < 1  # nats: an interval that holds anything says nothing


@pytest.mark.costly
def test_a_network_that_ignores_labels_gives_the_frequencies():
    """The draws of an image would differ between labels, and decide for one of them."""
    model = DiffusionModel(
        schedule=FixedLinear(gamma_min=-8.0, gamma_max=5.0),
        prediction=Eps(),
        network=NoNetwork(1),
        shape=SHAPE,
        levels=5,
    )
    estimator = VariationalBound(draws=2)
    found = classify(
        model, LEVELS.load("test").pixels, frequencies=np.array([1, 2, 1]), key=KEY, estimator=estimator, passes=1
    )
    np.testing.assert_allclose(np.exp(found.log_posterior), [[0.25, 0.5, 0.25]] * 24, rtol=1e-6)
    assert not found.undecided.any()  # by the frequencies
    even = classify(model, LEVELS.load("test").pixels, frequencies=np.ones(3), key=KEY, estimator=estimator, passes=1)
    assert even.undecided.all()


@pytest.mark.costly
def test_images_are_classified_alike_in_other_batches_and_subsets():
    """A probability would depend on the other images, so that a part of a test set could not be classified."""
    pixels, model = LEVELS.load("test").pixels, oracle(LEVELS, (-8.0, 5.0))
    given = {"frequencies": np.ones(3), "key": KEY, "estimator": VariationalBound(draws=2), "passes": 1}
    whole = classify(model, pixels, batch_size=24, **given)
    some = classify(model, pixels, batch_size=3, index=np.array([7, 2, 19]), **given)
    np.testing.assert_array_equal(some.index, [2, 7, 19])
    np.testing.assert_allclose(some.log_joint, whole.log_joint[:, [2, 7, 19]], rtol=1e-5)


def test_wrong_arguments_are_refused():
    """Frequencies that Bayes' rule cannot use, counts below 1, and infinite terms are refused with the reason."""
    pixels, model = LEVELS.load("test").pixels, oracle(LEVELS, (-8.0, 5.0))
    for frequencies, reason in (
        ([3.0], r"shape \(1,\): expected one for each of at least 2"),
        ([3.0, 0.0], "label 1 has frequency 0: Bayes' rule needs training images of every label"),
        ([np.nan, 1.0], "label 0 has frequency nan"),
    ):
        with pytest.raises(DataError, match=reason):
            classify(model, pixels, frequencies=np.asarray(frequencies), key=KEY)
    with pytest.raises(RecipeError, match=r"^passes: expected an integer from 1"):
        classify(model, pixels, frequencies=np.ones(3), key=KEY, passes=0)
    few = VariationalBound(draws=2)
    with pytest.raises(UntrustedError, match="not likelihoods: a term is not finite given label 3"):
        classify(model, pixels, frequencies=jnp.ones(4), key=KEY, estimator=few, passes=1)
