# SPDX-License-Identifier: Apache-2.0
"""Conformance of noise embeddings: registered ones pass, and wrong ones are refused with a reason."""

import jax.numpy as jnp
import pytest

from vdmkit.conformance import check_noise_embedding
from vdmkit.errors import ConformanceError
from vdmkit.networks import AbstractNoiseEmbedding
from vdmkit.registry import registry


@pytest.mark.parametrize("name", sorted(registry("noise_embedding").components))
def test_noise_embeddings(build, name):
    """Every registered noise embedding is finite and increases with gamma."""
    check_noise_embedding(build("noise_embedding", name))


class _Falls(AbstractNoiseEmbedding):
    def __call__(self, gamma):
        return -gamma


class _OfZero(AbstractNoiseEmbedding):
    def __call__(self, gamma):
        return jnp.log(gamma)


class _Narrow(AbstractNoiseEmbedding):
    def __call__(self, gamma):
        return gamma.astype(jnp.float16)


class _Two(AbstractNoiseEmbedding):
    def __call__(self, gamma):
        return jnp.stack([gamma, gamma])


WRONG = {
    _Falls: "labels 13, 5, -0, -5 at gamma = .* do not rise",
    _OfZero: "labels nan, nan, -inf, .* are not finite",
    _Narrow: "a label of type float16 for gamma of type float32",
    _Two: r"a label of shape \(2,\): expected a number",
}


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_noise_embeddings(wrong):
    """A noise embedding that decreases, is not finite, or has a wrong type or shape is refused."""
    with pytest.raises(ConformanceError, match=WRONG[wrong]):
        check_noise_embedding(wrong())
