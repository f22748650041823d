# SPDX-License-Identifier: Apache-2.0
"""Guarded rounding: a network that differs by less than the margin decodes; one that differs more is refused."""

from dataclasses import dataclass

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array
from vdmkit_codec import network as network_module
from vdmkit_codec.network import MARGIN, OFFSETS, guarded_round, narrows

from vdmkit.errors import CodecError
from vdmkit.networks import AbstractNetwork
from vdmkit.predictions import AbstractPrediction, Eps, Estimate
from vdmkit.registry import Choice

KERNELS = [Choice("kernel", "gaussian"), Choice("kernel", "mixture")]


class Noisy(AbstractPrediction):
    """A prediction whose estimates are off by up to `size`, another way for each latent."""

    inner: AbstractPrediction
    size: Array

    @property
    def outputs(self) -> int:
        return self.inner.outputs

    def __call__(self, output, z, gamma, path) -> Estimate:
        estimate = self.inner(output, z, gamma, path)

        def off(values, salt):
            bits = jax.random.fold_in(jax.random.key(salt), jnp.sum(z * 1e4).astype(jnp.int32))
            return values + self.size * jax.random.uniform(bits, values.shape, values.dtype, -1, 1)

        logs = estimate.log_probs
        return Estimate(off(estimate.x_hat, 1), off(estimate.eps_hat, 2), None if logs is None else off(logs, 3))


@dataclass(frozen=True)
class Other:
    """A codec whose decoder has a noisy network."""

    codec: object

    def decode(self, payload, size: float):
        code = self.codec.chunk_code(8)
        network = code.chain.network
        with jax.enable_x64(True):
            prediction = Noisy(network.model.prediction, jnp.asarray(size, jnp.float64))
        model = eqx.tree_at(lambda model: model.prediction, network.model, prediction)
        noisy = type(network)(model, network.layers, network.batch, network.dtype)
        return type(code)(type(code.chain)(noisy), code.lanes, code.group, code.seed).decode(payload)


@pytest.mark.costly
@pytest.mark.parametrize("kernel", KERNELS, ids=str)
def test_noise_below_the_margin_decodes(make_codec, learned, images, kernel) -> None:
    """A decoder whose estimates differ by less than the margin gives the same pixels."""
    codec = make_codec(learned, 16, kernel)
    payload, _ = codec.chunk_code(8).encode(images)
    np.testing.assert_array_equal(Other(codec).decode(payload, 0.99 * MARGIN), images)


@pytest.mark.costly
@pytest.mark.parametrize("kernel", KERNELS, ids=str)
def test_noise_far_above_the_margin_is_refused(make_codec, learned, images, kernel) -> None:
    """A decoder whose estimates differ by much more is refused, or gives the same pixels."""
    codec = make_codec(learned, 16, kernel)
    payload, _ = codec.chunk_code(8).encode(images)
    with pytest.raises(CodecError):
        Other(codec).decode(payload, 1e-2)
    try:
        found = Other(codec).decode(payload, 1e-4)
    except CodecError:
        return
    np.testing.assert_array_equal(found, images)


@pytest.mark.costly
def test_a_wider_margin_takes_offsets_and_bears_more(make_codec, learned, images, monkeypatch) -> None:
    """Values near halfway between integers are moved, in the decoder by the same offset."""
    monkeypatch.setattr("vdmkit_codec.network.MARGIN", 2e-6)
    codec = make_codec(learned, 16, KERNELS[1], group=7)  # a size that no other test compiles with its margin
    offsets = []
    real = network_module.Network.encoded

    def kept(self, k, t):
        integers, found, clear = real(self, k, t)
        offsets.extend(found.tolist())
        return integers, found, clear

    monkeypatch.setattr(network_module.Network, "encoded", kept)
    payload, _ = codec.chunk_code(7).encode(images)
    assert max(offsets) > 0
    np.testing.assert_array_equal(Other(codec).decode(payload, 1.9e-6), images)
    monkeypatch.setattr("vdmkit_codec.network.MARGIN", 0.02)  # beyond every offset
    payload, bits = make_codec(learned, 16, KERNELS[1], group=6).chunk_code(6).encode(images)
    assert payload.stored.all()
    assert bits <= images.size * np.log2(5) + len(images)


def test_every_offset_is_tried() -> None:
    """A value that is guarded at an offset rounds to the same integer after a change below the margin."""
    margin = 1e-3
    for offset in range(OFFSETS):
        v = jnp.asarray([[[0.5 - offset / OFFSETS, 7.0]]]) + 3
        on_boundary = guarded_round(v, jnp.asarray(offset), jnp.asarray(margin))
        assert not bool(on_boundary[1])
        integers, clear = guarded_round(v, jnp.asarray((offset + 1) % OFFSETS), jnp.asarray(margin))
        assert bool(clear)
        for other in (v - 0.9 * margin, v + 0.9 * margin):
            np.testing.assert_array_equal(
                guarded_round(other, jnp.asarray((offset + 1) % OFFSETS), jnp.asarray(margin))[0], integers
            )


class NarrowSoftmax(AbstractNetwork):
    """A softmax in a type, in a function that is compiled, as that of jax.nn.dot_product_attention is in float32."""

    kind: str = eqx.field(static=True)

    def __call__(self, z, gamma, condition, *, key=None):
        return z[..., None] * jax.jit(jax.nn.softmax)(z.astype(self.kind)).astype(z.dtype)[..., None]


@pytest.mark.parametrize(("kind", "narrow"), [("float32", True), ("float64", False)])
def test_a_network_that_narrows_float64_is_seen(model_of, kind, narrow) -> None:
    """A network that computes in less than float64 is detected, because its files would not be portable."""
    with jax.enable_x64(True):
        assert narrows(model_of(Eps(), NarrowSoftmax(kind))) == narrow
