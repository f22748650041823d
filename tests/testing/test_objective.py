# SPDX-License-Identifier: Apache-2.0
"""Conformance of time samplers and weightings: registered ones pass, and wrong ones are refused with a reason."""

import jax.numpy as jnp
import pytest

from vdmkit.conformance import check_time_sampler, check_weighting
from vdmkit.conformance.components import gammas_between
from vdmkit.errors import ConformanceError
from vdmkit.losses import Elbo, Uniform
from vdmkit.registry import registry
from vdmkit.schedules import FixedLinear


@pytest.mark.parametrize("name", sorted(registry("weighting").components))
def test_weightings(build, name):
    """Every registered weighting passes its conformance checks."""
    check_weighting(build("weighting", name))


@pytest.mark.parametrize("name", sorted(registry("time_sampler").components))
def test_times(build, name):
    """Every registered time sampler passes its conformance checks."""
    check_time_sampler(build("time_sampler", name))


class _NegativeBetween(Elbo):
    """A weighting that is negative between the gammas of a coarse check."""

    def __call__(self, gamma, rate):
        return jnp.where((gamma > -4) & (gamma < -1), -1.0, 1.0)


def test_a_weighting_that_is_negative_between():
    """A weighting that is negative inside the range of gamma is refused."""
    with pytest.raises(ConformanceError, match=r"w = -1 at gamma = -[123]"):
        check_weighting(_NegativeBetween(), gammas_between(FixedLinear()))


class _TwoPoints(Uniform):
    """Draws the two Gauss points only: the means of 1, t and t^2 are right, but no other time is drawn."""

    def __call__(self, n, *, key):
        t, weight = super().__call__(n, key=key)
        return jnp.where(t < 0.5, 0.5 - 12**-0.5, 0.5 + 12**-0.5), weight


def test_times_that_are_two_points():
    """A time sampler that draws two values only is refused."""
    with pytest.raises(ConformanceError, match=r"only 2 times are drawn, .* off the midpoints of equal parts"):
        check_time_sampler(_TwoPoints())
