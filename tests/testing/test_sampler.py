# SPDX-License-Identifier: Apache-2.0
"""Conformance of samplers: registered ones pass, and wrong ones are refused with a reason."""

import jax.numpy as jnp
import pytest

from vdmkit.conformance import check_sampler
from vdmkit.errors import ConformanceError
from vdmkit.registry import registry
from vdmkit.sampling import Ancestral


@pytest.mark.costly
@pytest.mark.parametrize("name", sorted(registry("sampler").components))
def test_samplers(build, name):
    """The chain of every registered sampler ends at the image that the denoiser predicts."""
    check_sampler(build("sampler", name))


class _TooSmall(Ancestral):
    """Makes steps of half the size."""

    def step(self, denoise, y_t, gamma_t, gamma_s, history, noise):
        y_s, estimate = super().step(denoise, y_t, gamma_t, gamma_s, history, noise)
        return (y_t + y_s) / 2, estimate


class _Noise(Ancestral):
    """Returns pure noise until the last step."""

    def step(self, denoise, y_t, gamma_t, gamma_s, history, noise):
        estimate = denoise(y_t, gamma_t)
        return jnp.where(jnp.isneginf(gamma_s), estimate.x_hat, 1000 * noise[0]), estimate


class _Quiet(Ancestral):
    """Adds half of the noise, which the last step hides."""

    def step(self, denoise, y_t, gamma_t, gamma_s, history, noise):
        return super().step(denoise, y_t, gamma_t, gamma_s, history, noise / 2)


WRONG = {
    _TooSmall: "the chain ends .* away from the only image",
    _Noise: "the noise is .* times as large as it should be at gamma = 2.9",
    _Quiet: "the noise is .* times as large as it should be",
}


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_samplers(wrong):
    """Samplers that do not draw from the model are refused."""
    with pytest.raises(ConformanceError, match=WRONG[wrong]):
        check_sampler(wrong())
