# SPDX-License-Identifier: Apache-2.0
"""Axes: registered ones pass, and others are told why they do not."""

import jax.numpy as jnp
import pytest

from vdmkit.conformance import check_axis
from vdmkit.errors import ConformanceError
from vdmkit.networks._axis import AbstractAxis
from vdmkit.registry import registry


@pytest.mark.parametrize("name", sorted(registry("axis").components))
def test_axes(build, name):
    """A registered axis could not tell two noise levels apart."""
    check_axis(build("axis", name))


class _Falls(AbstractAxis):
    def __call__(self, gamma):
        return -gamma


class _OfZero(AbstractAxis):
    def __call__(self, gamma):
        return jnp.log(gamma)


class _Narrow(AbstractAxis):
    def __call__(self, gamma):
        return gamma.astype(jnp.float16)


class _Two(AbstractAxis):
    def __call__(self, gamma):
        return jnp.stack([gamma, gamma])


WRONG = {
    _Falls: "labels 13, 5, -0, -5 at gamma = .* do not rise",
    _OfZero: "labels nan, nan, -inf, .* are not finite",
    _Narrow: "a label of type float16 for gamma of type float32",
    _Two: r"a label of shape \(2,\): expected a number",
}


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_axes(wrong):
    """A network would be told nothing of the noise level, or NaN."""
    with pytest.raises(ConformanceError, match=WRONG[wrong]):
        check_axis(wrong())
