# SPDX-License-Identifier: Apache-2.0
"""The statistics of an audit: what few images can decide, and strata of time that cover all of gamma."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest

from vdmkit.likelihood.consistency import Check, _mean_of, _strata
from vdmkit.schedules import Cosine, Tabulated


def verdict(nats: np.ndarray) -> str:
    """Returns the verdict for two estimates of each image whose mean should be 0."""
    difference, half_width, degrees = _mean_of([nats], 1)
    return Check("the mean is zero", difference, half_width, 0.0, 0.0, degrees).verdict


def test_two_images_raise_no_false_alarm():
    """Two images raise no false alarm: with 4 standard errors as the limit 6% of audits would fail, not 6e-5."""
    draws = np.random.default_rng(0).normal(size=(2_000, 2, 2))
    assert not any(verdict(one) == "fails" for one in draws)


def test_one_image_raises_as_many_false_alarms_as_any_number():
    """One image, whose spread is known from two estimates only, raises false alarms no more often than many."""
    draws = np.random.default_rng(0).normal(size=(2_000, 2, 1))
    assert sum(verdict(one) == "fails" for one in draws) < 3  # 0.13 are expected


def test_a_difference_of_many_images_still_fails():
    """The check has power: a shift of 7 standard errors of 64 images is detected."""
    draws = np.random.default_rng(0).normal(size=(200, 2, 64))
    shifted = draws + 7 / np.sqrt(2 * 64)
    assert np.mean([verdict(one) == "fails" for one in shifted]) > 0.95
    assert not any(verdict(one) == "fails" for one in draws)


@pytest.mark.parametrize(
    "schedule", [Tabulated(table="cosine"), Tabulated(), Cosine()], ids=["table", "linear", "cosine"]
)
def test_strata_of_time_have_small_rises_of_gamma(schedule):
    """No stratum of time covers a large rise of gamma, even at the end of the cosine table."""
    ends = _strata(schedule, 256)
    gammas = np.asarray(eqx.filter_vmap(schedule)(jnp.asarray(ends)), np.float64)
    assert (ends[0], ends[-1]) == (0.0, 1.0)
    assert np.diff(ends).min() > 0
    assert np.diff(ends).max() < 2.05 / 256  # 2, plus one interval of the grid on which the schedule is evaluated
    assert np.diff(gammas).max() / (gammas[-1] - gammas[0]) < 3 / 256
