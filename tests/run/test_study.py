# SPDX-License-Identifier: Apache-2.0
"""The results that `vdmkit study` derives from its measurements."""

import json

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest

from vdmkit.schedule_search.measurement import Curve
from vdmkit.schedule_search.study import _variances
from vdmkit.schedules import AbstractSchedule


class _Standing(AbstractSchedule):
    """gamma(t) = -6 + 11 t^2, whose derivative is 0 at t = 0."""

    gamma_min: float = eqx.field(static=True, default=-6.0)
    gamma_max: float = eqx.field(static=True, default=5.0)

    def __call__(self, t):
        return self.gamma_min + (self.gamma_max - self.gamma_min) * jnp.asarray(t) ** 2


@pytest.mark.costly
def test_a_schedule_that_stands_still_at_an_end():
    """An infinite density at an end of a schedule is written as null, which is valid JSON."""
    rng = np.random.default_rng(0)
    curve = Curve(np.linspace(-6.0, 5.0, 31), rng.gamma(2.0, 1.0, (2, 31, 8)), np.zeros((2, 8)))
    rows = {row.schedule: row for row in _variances(_Standing(), curve, 16)}
    density = rows["this run's"].density
    assert density[0] is None or density[0] > density[1] > 0
    json.dumps([row.density for row in rows.values()], allow_nan=False)
