# SPDX-License-Identifier: Apache-2.0
"""Distances between sets of images, against closed forms and extreme cases."""

import numpy as np
import pytest
from scipy.linalg import sqrtm

from vdmkit.errors import DataError
from vdmkit.quality import FEATURES, features_of, frechet_distance, neighbours

RNG = np.random.default_rng(0)


def test_frechet_distance_is_that_of_the_formula() -> None:
    """False if the root of a product of covariances were taken otherwise than by its definition."""
    a, b = RNG.normal(size=(50, 4)), RNG.normal(size=(60, 4)) @ RNG.normal(size=(4, 4)) + 1
    s_a, s_b = np.cov(a.T), np.cov(b.T)
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(s_a + s_b - 2 * sqrtm(s_a @ s_b).real)
    np.testing.assert_allclose(frechet_distance(a, b), expected, rtol=1e-9)


def test_frechet_distance_of_a_shift_and_a_scale() -> None:
    """False if means or spreads did not count as the distance between Gaussians: |m|^2 + d (s - 1)^2."""
    a = RNG.normal(size=(40, 3))
    a -= a.mean(0)
    np.testing.assert_allclose(frechet_distance(a, a + np.array([3, 0, 4])), 25, rtol=1e-9)
    expected = np.trace(np.cov(a.T)) * (2 - 1) ** 2
    np.testing.assert_allclose(frechet_distance(a, 2 * a), expected, rtol=1e-9)
    np.testing.assert_allclose(frechet_distance(a, a), 0, atol=1e-9)


def test_neighbours_of_extremes() -> None:
    """False if samples that are real ones were not among them, or those elsewhere were."""
    real = RNG.normal(size=(100, 2))
    near = neighbours(real, real + 1e-6)
    assert (near.precision, near.recall, near.coverage) == (1, 1, 1)
    assert near.density == pytest.approx(1, abs=0.25)  # each ball holds its own k points, and perhaps the k + 1st
    far = neighbours(real, real + 100)
    assert (far.precision, far.recall, far.density, far.coverage) == (0, 0, 0, 0)


def test_samples_of_one_kind_only() -> None:
    """False if dropped modes cost precision and not recall and coverage: their difference is what these are for."""
    real = np.concatenate([RNG.normal(size=(50, 2)), RNG.normal(size=(50, 2)) + 50])
    found = neighbours(real, RNG.normal(size=(100, 2)))
    assert found.precision > 0.8
    assert found.coverage < 0.55
    assert found.recall < 0.55


def test_too_few_are_refused() -> None:
    """False if the k-th neighbour of fewer were looked for."""
    with pytest.raises(DataError, match="5 real images and 9 samples: expected more than 5 of each"):
        neighbours(np.zeros((5, 2)), np.zeros((9, 2)))


@pytest.mark.parametrize("kind", FEATURES)
def test_features_are_of_the_data_and_the_same_again(kind: str) -> None:
    """False if levels were not scaled to the data, or features were drawn anew at each call."""
    images = RNG.integers(0, 17, (6, 8, 8, 1)).astype(np.uint8)
    found = features_of(kind, images, 17)
    np.testing.assert_array_equal(found, features_of(kind, images, 17))
    x = (2 * (images + 0.5) / 17 - 1).astype(np.float64)
    np.testing.assert_allclose(found, features_of(kind, x, 0), rtol=1e-12)
    assert np.isfinite(found).all()
    assert len(found) == (24 if kind == "patches" else 6)


def test_patches_do_not_see_where_they_are_or_how_bright() -> None:
    """False if a brighter picture had other patches, or a patch were cut across two."""
    image = np.zeros((1, 8, 8, 1))
    image[0, :4, :4, 0] = np.arange(16).reshape(4, 4) / 16
    patches = features_of("patches", image, 0)
    np.testing.assert_allclose(patches[0], np.arange(16) / 16 - 7.5 / 16)
    np.testing.assert_allclose(patches[1:], 0, atol=1e-15)
    np.testing.assert_allclose(features_of("patches", image + 0.3, 0), patches, atol=1e-15)
