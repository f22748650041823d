# SPDX-License-Identifier: Apache-2.0
"""Conformance of paths: registered ones pass, and wrong ones are refused with a reason."""

import jax
import jax.numpy as jnp
import pytest

from vdmkit.conformance import check_path
from vdmkit.errors import ConformanceError
from vdmkit.process import AbstractPath, VariancePreserving
from vdmkit.registry import registry


@pytest.mark.parametrize("name", sorted(registry("path").components))
def test_paths(build, name):
    """Every registered path has the SNR exp(-gamma) and passes its other checks."""
    check_path(build("path", name))


class _OtherSigma(AbstractPath):
    def log_alpha(self, gamma):
        return jnp.zeros_like(gamma)

    def sigma(self, gamma):
        return jnp.exp(gamma)


class _OtherLogAlpha(VariancePreserving):
    """alpha and sigma are right, but log alpha, which likelihoods by an ODE use, is wrong."""

    def log_alpha(self, gamma):
        return super().log_alpha(gamma) + (gamma + 8) / 13

    def alpha(self, gamma):
        return jnp.sqrt(jax.nn.sigmoid(-gamma))

    def sigma(self, gamma):
        return jnp.sqrt(jax.nn.sigmoid(gamma))


@jax.custom_jvp
def _with_other_slope(log_alpha):
    return log_alpha


@_with_other_slope.defjvp
def _(primals, tangents):
    return primals[0], 0.9 * tangents[0]


class _OtherSlope(VariancePreserving):
    """The derivative of log alpha, which likelihoods by an ODE use for the volume, is wrong."""

    def log_alpha(self, gamma):
        return _with_other_slope(super().log_alpha(gamma))


WRONG = {
    _OtherSigma: r"log sigma\^2 / alpha\^2",
    _OtherLogAlpha: "log alpha is .*, and alpha .*, at gamma = -13",
    _OtherSlope: "the derivative of log alpha by JAX is .*, and its difference quotient",
}


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_paths(wrong):
    """Paths that are not consistent with one diffusion process are refused."""
    with pytest.raises(ConformanceError, match=WRONG[wrong]):
        check_path(wrong())
