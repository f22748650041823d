# SPDX-License-Identifier: Apache-2.0
"""The parts of the literature's U-Nets, against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vdmkit.networks import GammaEmbedding, LogSigmaEmbedding, SdeTimeEmbedding, TimestepEmbedding
from vdmkit.networks.layers import ConvDown, Embedding, FourierFeatures, PositionalFeatures, downsample, upsample
from vdmkit.schedules import LinearBeta, SubVpLinearBeta, Tabulated

KEY = jax.random.key(0)
X = np.random.default_rng(0).normal(size=(6, 8, 2))


def filtered(x, taps, pads):
    """Correlation with the outer product of the taps after padding by zeros, pixel by pixel."""
    x = np.pad(x, [pads, pads, (0, 0)])
    kernel, n = np.outer(taps, taps), len(taps)
    rows, columns = x.shape[0] - n + 1, x.shape[1] - n + 1
    return sum(kernel[i, j] * x[i : i + rows, j : j + columns] for i in range(n) for j in range(n))


@pytest.mark.parametrize(("taps", "up", "down"), [((1.0, 1.0), (1, 0), (0, 0)), ((1.0, 3.0, 3.0, 1.0), (2, 1), (1, 1))])
def test_filters(taps, up, down):
    """Resampling is StyleGAN2's filter with its padding, on every second pixel, without a shift."""
    scaled = np.array(taps) / sum(taps)
    np.testing.assert_allclose(downsample(jnp.asarray(X), taps), filtered(X, scaled, down)[::2, ::2], atol=1e-6)
    spread = np.zeros((12, 16, 2))
    spread[::2, ::2] = X
    np.testing.assert_allclose(upsample(jnp.asarray(X), taps), filtered(spread, 2 * scaled, up), atol=1e-6)


def test_two_taps_are_means_and_nearest_pixels():
    """With two taps, halving averages 2x2 pixels and doubling repeats pixels, as in DDPM++ and ADM."""
    x = jnp.asarray(X)
    np.testing.assert_allclose(downsample(x, (1.0, 1.0)), X.reshape(3, 2, 4, 2, 2).mean((1, 3)), atol=1e-6)
    np.testing.assert_allclose(upsample(x, (1.0, 1.0)), X.repeat(2, 0).repeat(2, 1), atol=1e-6)


def test_a_convolution_of_stride_2_pads_where_it_says():
    """Padding is at the end, as in DDPM, or on both sides, as in iDDPM."""
    layer = ConvDown(1, 1, KEY, padding=(0, 1))
    layer = jax.tree.map(jnp.ones_like, layer)
    ones = jnp.ones((4, 4, 1))
    np.testing.assert_array_equal(layer(ones)[..., 0], np.array([[9, 6], [6, 4]]) + 1)
    both = jax.tree.map(jnp.ones_like, ConvDown(1, 1, KEY, padding=(1, 1)))
    np.testing.assert_array_equal(both(ones)[..., 0], np.array([[4, 6], [6, 9]]) + 1)


def test_positional_features():
    """Order and frequencies are DDPM's and ADM's."""
    label = jnp.asarray(3.0)
    ddpm, adm = PositionalFeatures(4, cosines_first=False, shift=1), PositionalFeatures(4, cosines_first=True, shift=0)
    np.testing.assert_allclose(ddpm(label), [np.sin(3), np.sin(3e-4), np.cos(3), np.cos(3e-4)], rtol=1e-5)
    np.testing.assert_allclose(adm(label), [np.cos(3), np.cos(0.03), np.sin(3), np.sin(0.03)], rtol=1e-5)


def test_fourier_frequencies_are_constants():
    """Frequencies are integers, which training, averaging and bfloat16 leave alone."""
    features = FourierFeatures(64, KEY)
    assert features.bits.dtype == jnp.int32
    values = features(jnp.asarray(0.01))
    angles = np.arctan2(values[:32], values[32:]) / (2 * np.pi * 0.01)  # frequencies below 50
    np.testing.assert_allclose(angles, 16 * jax.random.normal(KEY, (32,)), atol=1e-3)


def test_axes_invert_their_schedules():
    """The embedding of gamma(t) is the time at which the authors trained the network."""
    with jax.enable_x64(True):
        t = jnp.linspace(0, 1, 11)
        for schedule, sde in ((LinearBeta(), "vp"), (SubVpLinearBeta(), "sub_vp")):
            labels = jax.vmap(lambda t, of=schedule, sde=sde: SdeTimeEmbedding(sde=sde)(of(t)))(t)
            np.testing.assert_allclose(labels, 999 * (1e-5 + (1 - 1e-5) * np.asarray(t)), rtol=1e-9)
        for table, steps, rescaled in (("linear", 1000, False), ("cosine", 4000, True)):
            gammas = Tabulated(table=table, steps=steps).gammas()
            embedding = TimestepEmbedding(table=table, steps=steps, rescaled=rescaled)
            labels = jax.vmap(embedding)(jnp.asarray(gammas))
            np.testing.assert_allclose(labels, np.arange(steps) * (1000 / steps if rescaled else 1), rtol=1e-9)


def test_labels_of_sigma_and_gamma():
    """Noise embeddings of EDM, NCSN++ and VDM have the papers' units."""
    gamma = jnp.asarray(2 * np.log(4.2))
    np.testing.assert_allclose(LogSigmaEmbedding()(gamma), np.log(4.2) / 4, rtol=1e-6)
    np.testing.assert_allclose(LogSigmaEmbedding(factor=1.0, unit=2.0)(gamma), np.log(2.1), rtol=1e-6)
    np.testing.assert_allclose(GammaEmbedding((-8.0, 2.0))(jnp.asarray(-3.0)), 500, rtol=1e-6)


@pytest.mark.parametrize("at", ["features", "output"])
def test_classes_and_augmentation_reach_the_embedding(at):
    """The embedding depends on class and augmentation, and no class differs from every class."""
    features = PositionalFeatures(4, cosines_first=False, shift=1)
    embedding = Embedding(features, 4, 8, KEY, labels=3, label_at=at, augment=2)
    of = lambda classes, augment=None: embedding(jnp.asarray(1.0), classes, augment)  # noqa: E731
    outputs = [of(None), *map(of, jnp.eye(3)), of(None, jnp.ones(2))]
    for i, first in enumerate(outputs):
        assert all(float(abs(first - other).max()) > 1e-4 for other in outputs[:i])
    np.testing.assert_array_equal(of(None), of(jnp.zeros(3)))
    assert (embedding.label.bias is None) == (at == "output")
