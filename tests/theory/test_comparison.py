# SPDX-License-Identifier: Apache-2.0
"""What `vdmkit compare` reports as enough to decide a difference."""

import pytest

from vdmkit.devices import arithmetic
from vdmkit.likelihood import Comparison, Interval, LikelihoodReport

FINITE = dict.fromkeys(("bpd", "bpd_low", "bpd_high", "half_width_monte_carlo", "half_width_test_set"), 1.0)
UNKNOWN = ("exact", "impossible_below", "exact_bound", "discretisation", "test_images_trained_on", "published", "label")
COUNTS = ("evaluations", "evaluations_of_solver_error", "levels", "images", "images_in_test_set", "distinct_images")
REPORT = LikelihoodReport(
    **FINITE,
    **dict.fromkeys((*UNKNOWN, "test_images_near_trained_on", "held_out"), None),
    **dict.fromkeys((*COUNTS, "seed", "step"), 9),
    **dict.fromkeys(("estimator", "dataset", "sha256", "weights"), "any"),
    **dict.fromkeys(("are_draws", "trusted"), True),
    **dict.fromkeys(("reasons", "remarks"), ()),
    terms={},
    evaluations_per_image=1.0,
    arithmetic=arithmetic(),
)


def comparison(value: float, total: float, monte_carlo: float) -> Comparison:
    return Comparison(REPORT, REPORT, Interval(value, total, total, monte_carlo))


@pytest.mark.parametrize(
    ("value", "draws", "images"),
    [(-0.05, None, None), (0.01, 4.0, 16.0), (0.03, None, 16 / 9), (0.0, float("inf"), float("inf"))],
)
def test_what_would_decide(value, draws, images):
    """The reported factors for draws and images follow from half-widths that fall with the root of the sample size."""
    found = comparison(value, 0.04, 0.02)
    assert (found.times_draws, found.times_images) == (pytest.approx(draws), pytest.approx(images))


def test_the_better_one_is_named():
    """The report names the better of the two models, or estimates how many more images would decide."""
    assert "on other images: the first is better" in str(comparison(-0.05, 0.04, 0.02))
    assert "on these images: the second is better" in str(comparison(0.03, 0.04, 0.02))
    assert "on other images: not decided; about 1.8 times as many images would" in str(comparison(0.03, 0.04, 0.02))
