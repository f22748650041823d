# SPDX-License-Identifier: Apache-2.0
"""Conformance of grids: registered ones pass, and wrong ones are refused with a reason."""

import jax.numpy as jnp
import pytest

from vdmkit.conformance import check_grid
from vdmkit.errors import ConformanceError
from vdmkit.process import AbstractGrid, UniformInTime
from vdmkit.registry import registry
from vdmkit.schedules import FixedLinear


@pytest.mark.parametrize("name", sorted(registry("grid").components))
def test_grids(build, name):
    """Every registered grid passes its conformance checks."""
    params = {"gammas": (5.0, -13.3)} if name == "gammas" else {}
    check_grid(build("grid", name, **params), FixedLinear(), 1 if name in ("tabulated", "gammas") else 7)


class _Short(AbstractGrid):
    def __call__(self, schedule, steps):
        return jnp.linspace(5.0, -13.3, steps)


class _ShortSteps(UniformInTime):
    """Makes single steps slightly too short, which a bound sums over a thousand steps."""

    def ends_of_step(self, schedule, t, steps):
        gamma_t, gamma_s = super().ends_of_step(schedule, t, steps)
        return gamma_t, jnp.minimum(gamma_s + 0.0085, gamma_t)


WRONG = {
    _Short: (7, r"7 steps give \(7,\) gammas: expected 8"),
    _ShortSteps: (1000, "a step asked for by its time has gammas 0.0085 off the grid's, where the step is of 0.0183"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_grids(wrong):
    """Grids that do not span the schedule, which would make a T-step bound too low, are refused."""
    steps, message = WRONG[wrong]
    with pytest.raises(ConformanceError, match=message):
        check_grid(wrong(), FixedLinear(), steps)
