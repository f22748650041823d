# SPDX-License-Identifier: Apache-2.0
"""Layers and embeddings against closed forms."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vdmkit.networks.layers import Attention, Conditioning, Conv, GroupNorm, sinusoid
from vdmkit.networks.small import ModulatedBlock
from vdmkit.networks.vdm_unet import with_fourier_features

KEY = jax.random.key(0)


def test_fourier_features_of_clean_levels():
    """On level k the sines are (-1)^k and 0, the cosines 0 and -1.

    1e-4: the arguments reach 800, so their float32 rounding is a phase of 5e-5.
    """
    levels = jnp.arange(256.0).reshape(16, 16, 1)
    features = with_fourier_features((2 * levels + 1) / 256 - 1)
    parity = jnp.where(levels % 2 == 0, 1.0, -1.0)
    expected = jnp.concatenate([parity, 0 * parity, 0 * parity, 0 * parity - 1], axis=-1)
    np.testing.assert_allclose(features[..., 1:], expected, atol=1e-4)


def test_fourier_features_are_in_the_authors_order():
    """Features are ordered as an imported first convolution expects: per channel both frequencies, sines first."""
    features = with_fourier_features(jnp.array([0.3, -0.7, 0.01]).reshape(1, 1, 3))[0, 0]
    sines = [0.951060, 0.587768, 0.951059, 0.587773, -0.770513, 0.982287]
    cosines = [0.309007, -0.809030, 0.309010, -0.809026, -0.637424, -0.187382]
    np.testing.assert_allclose(features, [0.3, -0.7, 0.01, *sines, *cosines], atol=1e-4)


def test_sinusoid():
    """The embedding of gamma equals the authors' (values of their formula, six digits)."""
    expected = [-0.970528, -0.820565, 0.512942, 0.024997, 0.240988, 0.571553, 0.858423, 0.999688]
    np.testing.assert_allclose(sinusoid(jnp.asarray(0.25), 8), expected, atol=1e-4)
    np.testing.assert_array_equal(sinusoid(jnp.asarray(0.0), 8), [0, 0, 0, 0, 1, 1, 1, 1])


def test_conditioning_reads_gamma_and_the_flag():
    """The conditioning vector depends on gamma and on the flag of augmented images."""
    layer = Conditioning(8, 16, (-13.3, 5.0), KEY)
    plain = layer(jnp.asarray(1.0), {})
    np.testing.assert_array_equal(plain, layer(jnp.asarray(1.0), {"augmented": jnp.asarray(0.0)}))
    assert not jnp.allclose(plain, layer(jnp.asarray(1.0), {"augmented": jnp.asarray(1.0)}))
    assert not jnp.allclose(plain, layer(jnp.asarray(1.1), {}))


def test_group_norm_normalises_each_group():
    """Each group has mean 0 and variance 1 over all pixels."""
    x = 3 + 2 * jax.random.normal(KEY, (4, 6, 8)) * jnp.arange(1, 9)
    y = np.asarray(GroupNorm(8, 2)(x)).reshape(24, 2, 4)
    # 1e-5: sums of 96 float32 numbers
    np.testing.assert_allclose(y.mean((0, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(y.var((0, 2)), 1, atol=1e-5)


def test_group_norm_epsilon():
    """Epsilon is Flax's 1e-6: values +-1e-3, whose variance is 1e-6, become +-1 / sqrt(2)."""
    x = jnp.array([1e-3, -1e-3]).reshape(2, 1, 1)
    np.testing.assert_allclose(GroupNorm(1, 1)(x).ravel(), [0.5**0.5, -(0.5**0.5)], rtol=1e-5)


def test_convolution_pads_with_zeros():
    """Padding is zero: with ones everywhere a 3x3 sum counts the neighbours inside the image."""
    layer = Conv(1, 1, KEY, initializer=jax.nn.initializers.ones)
    expected = np.array([[4, 6, 4], [6, 9, 6], [4, 6, 4]])
    np.testing.assert_array_equal(layer(jnp.ones((3, 3, 1)))[..., 0], expected)


@pytest.mark.costly
def test_attention_follows_its_formula():
    """Attention equals softmax(q k^T / sqrt(d)) v, computed head by head in numpy, plus the residual."""
    layer = Attention(8, KEY, groups=2, heads=2)
    layer = jax.tree.map(lambda leaf: leaf + 0.1 * jax.random.normal(KEY, leaf.shape), layer)
    x = jax.random.normal(KEY, (2, 3, 8))
    n = layer.norm(x).reshape(6, 8)
    q, k, v = (np.asarray(part(n), np.float64) for part in (layer.q, layer.k, layer.v))
    heads = []
    for columns in (slice(0, 4), slice(4, 8)):
        weights = np.exp(q[:, columns] @ k[:, columns].T / 2)
        heads.append(weights / weights.sum(1, keepdims=True) @ v[:, columns])
    expected = x + layer.proj_out(jnp.asarray(np.concatenate(heads, 1), jnp.float32)).reshape(x.shape)
    np.testing.assert_allclose(layer(x), expected, rtol=1e-5, atol=1e-5)


def test_modulation_scales_by_one_plus_its_output():
    """The scale is 1 + output: an output of -1, not of 0, leaves only the shift."""
    shapes = eqx.filter_eval_shape(lambda: ModulatedBlock(8, 8, 4, KEY, groups=8, dropout=0.0))
    block = jax.tree.map(lambda leaf: jnp.linspace(-1, 1, leaf.size).reshape(leaf.shape), shapes)
    shift = jnp.linspace(-1, 1, 8)
    where = lambda b: (b.scale_shift.kernel, b.scale_shift.bias)  # noqa: E731
    block = eqx.tree_at(where, block, (jnp.zeros((4, 16)), jnp.append(jnp.full(8, -1.0), shift)))
    x = jnp.sin(jnp.arange(192.0)).reshape(4, 6, 8)
    expected = x + block.conv2(jnp.broadcast_to(jax.nn.silu(shift), x.shape))
    np.testing.assert_allclose(block(x, jnp.ones(4), key=None), expected, rtol=1e-5, atol=1e-5)  # sums of 72 products


def test_initial_kernels_are_lecun_normal():
    """Kernels start with variance 1 / fan-in, cut at two deviations (before rescaling).

    At n = 147,456 the standard deviation of a sample deviation is 0.2%; 1% is five of them.
    """
    kernel = np.asarray(Conv(128, 128, KEY).kernel)
    deviation = (9 * 128) ** -0.5
    np.testing.assert_allclose(kernel.std(), deviation, rtol=0.01)
    assert np.abs(kernel).max() <= 2 * deviation / 0.8796 * 1.0001
