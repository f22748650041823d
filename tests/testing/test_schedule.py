# SPDX-License-Identifier: Apache-2.0
"""Conformance of schedules: registered ones pass, and wrong ones are refused with a reason."""

import pytest

from vdmkit.conformance import check_schedule
from vdmkit.errors import ConformanceError, RecipeError
from vdmkit.registry import registry
from vdmkit.schedules import AbstractSchedule


@pytest.mark.costly
@pytest.mark.parametrize("name", sorted(registry("schedule").components))
def test_schedules(build, name):
    """Every registered schedule passes its conformance checks."""
    check_schedule(build("schedule", name))


class _Falling(AbstractSchedule):
    gamma_min: float = -1.0
    gamma_max: float = 1.0

    def __call__(self, t):
        return 1 - 2 * t


class _ElsewhereEnding(AbstractSchedule):
    gamma_min: float = -1.0
    gamma_max: float = 2.0

    def __call__(self, t):
        return 2 * t - 1


class _NearlyEnding(AbstractSchedule):
    """Has no parameters, and ends 0.009 off."""

    gamma_min: float = -1.0
    gamma_max: float = 1.009

    def __call__(self, t):
        return 2 * t - 1


WRONG = {
    _Falling: (RecipeError, "does not rise"),
    _ElsewhereEnding: (ConformanceError, "gamma_max = 2, but gamma is 1 there"),
    _NearlyEnding: (ConformanceError, "gamma_max = 1.009, but gamma is 1 there"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_schedules(wrong):
    """Schedules that decrease, or whose ends differ from those declared, are refused."""
    error, message = WRONG[wrong]
    with pytest.raises(error, match=message):
        check_schedule(wrong())
