# SPDX-License-Identifier: Apache-2.0
"""Conformance of predictions: registered ones pass, and wrong ones are refused with a reason."""

import jax
import jax.numpy as jnp
import pytest

from vdmkit.conformance import check_prediction
from vdmkit.errors import ConformanceError
from vdmkit.predictions import Eps, Estimate, X, solve_direction
from vdmkit.registry import registry

SHAPE = (8, 8, 1)


@pytest.mark.costly
@pytest.mark.parametrize("name", sorted(registry("prediction").components))
def test_predictions(build, name):
    """x_hat and eps_hat of every registered prediction are consistent with z."""
    check_prediction(build("prediction", name), SHAPE)


class _Half(Eps):
    """eps_hat is half as large as it should be."""

    def __call__(self, output, z, gamma, path):
        estimate = super().__call__(output, z, gamma, path)
        return Estimate(estimate.x_hat, estimate.eps_hat / 2)


class _Parallel(Eps):
    """Predicts a direction parallel to z on the variance exploding path, which determines nothing there."""

    def direction(self, gamma, path):
        return jnp.ones_like(gamma), jnp.exp(gamma / 2)


class _Other(X):
    """Interprets the output as the data, and declares that it is -x."""

    def direction(self, gamma, path):
        return -jnp.ones_like(gamma), jnp.zeros_like(gamma)

    def __call__(self, output, z, gamma, path):
        return solve_direction(output[..., 0], z, (jnp.ones(()), jnp.zeros(())), gamma, path)


class _StoppedClean(Eps):
    """The gradient of the network is stopped at low noise."""

    def __call__(self, output, z, gamma, path):
        return super().__call__(jnp.where(gamma < 0, jax.lax.stop_gradient(output), output), z, gamma, path)


class _StoppedInput(Eps):
    """The gradient with respect to the input of the network is stopped."""

    def network_input(self, z, gamma, path):
        return jax.lax.stop_gradient(super().network_input(z, gamma, path))


WRONG = {
    _Half: r"alpha x_hat \+ sigma eps_hat is not z",
    _Parallel: r"alpha x_hat \+ sigma eps_hat is not z",
    _Other: r"given a x \+ b eps it does not give x and eps back",
    _StoppedClean: "the derivative of eps_hat by JAX .* gradient is stopped",
    _StoppedInput: "the derivative of what the network is shown of z by JAX is 0 .* gradient is stopped",
}


@pytest.mark.costly
@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_predictions(wrong):
    """Predictions that contradict z or stop gradients are refused."""
    with pytest.raises(ConformanceError, match=WRONG[wrong]):
        check_prediction(wrong(), SHAPE)
