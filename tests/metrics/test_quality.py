# SPDX-License-Identifier: Apache-2.0
"""Distances between sets of images, against closed forms and extreme cases."""

import numpy as np
import pytest
from scipy.linalg import sqrtm

from vdmkit.errors import DataError
from vdmkit.metrics.features import FEATURES, features_of
from vdmkit.metrics.fid import frechet_distance, neighbours

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


def with_covariance(axes: np.ndarray, variances: np.ndarray) -> np.ndarray:
    """One image more than there are axes, of mean 0 and of exactly this covariance."""
    n = len(axes) + 1
    centred, _ = np.linalg.qr(np.eye(n)[:, 1:] - 1 / n)  # columns of sum 0
    return np.sqrt(n - 1) * centred * np.sqrt(variances) @ axes


# Float64 rounding of a sum of at most 2048 products, with room for 10 such sums: 2048 * 1e-16 * 10.
ROUNDING = 2e-12


def test_frechet_distance_of_fewer_images_than_features() -> None:
    """False if rounding in the 2000 directions that no image has were counted: roots of it would put 1e-6 here.

    The covariances commute, so the distance is sum (sqrt s_a - sqrt s_b)^2 over their axes, and 1 between the means.
    """
    axes = np.linalg.qr(RNG.normal(size=(2048, 30)))[0].T
    s_a, s_b = RNG.uniform(0.1, 4, (2, 20))
    a, b = with_covariance(axes[:20], s_a), with_covariance(axes[10:], s_b) + axes[0]
    expected = 1 + s_a[:10].sum() + ((np.sqrt(s_a[10:]) - np.sqrt(s_b[:10])) ** 2).sum() + s_b[10:].sum()
    np.testing.assert_allclose(frechet_distance(a, b), expected, rtol=ROUNDING)
    np.testing.assert_allclose(frechet_distance(a, a), 0, atol=ROUNDING * s_a.sum())


def test_frechet_distance_of_covariances_of_rank_one() -> None:
    """False if covariances that do not commute were wrong: of u u^T and v v^T the root's trace is |u.v|."""
    u, v = RNG.normal(size=(2, 2048))
    a, b = (np.stack([x, -x]) / np.sqrt(2) for x in (u, v))
    np.testing.assert_allclose(frechet_distance(a, b), u @ u + v @ v - 2 * abs(u @ v), rtol=ROUNDING)


def test_frechet_distance_of_few_against_many() -> None:
    """False if sets on the two sides of n = d were treated apart: a set counted twice differs by n - 1 alone."""
    a, b = RNG.normal(size=(30, 40)), RNG.normal(size=(30, 40)) + 0.3
    twice = np.concatenate([b, b])  # 60 rows of rank 29, in 40 dimensions
    r_a, r_b = ((x - x.mean(0)) / np.sqrt(n) for x, n in ((a, 29), (b, 29.5)))
    cross = np.linalg.svd(r_a @ r_b.T, compute_uv=False).sum()
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + (r_a**2).sum() + (r_b**2).sum() - 2 * cross
    np.testing.assert_allclose(frechet_distance(a, twice), expected, rtol=ROUNDING)


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


def test_the_edge_of_a_ball() -> None:
    """False if precision and recall left it out, or density and coverage had it: copies have balls that are a point.

    Kynkaanniemi et al. 2019, arXiv 1904.06991, eq. 2: at most the distance. Naeem et al. 2020, arXiv 2002.09797: less.
    """
    copies = np.repeat(RNG.normal(size=(10, 3)), 10, axis=0)
    found = neighbours(copies, copies)
    assert (found.precision, found.recall, found.density, found.coverage) == (1, 1, 0, 0)
    # On a line of whole numbers the second neighbour of both ends is 2 away: two of these four are on an edge.
    line, others = np.arange(10.0)[:, None], np.array([[-2.0], [-2.5], [11.0], [11.5]])
    found = neighbours(line, others, k=2)
    assert (found.precision, found.density, found.coverage) == (0.5, 0, 0)
    assert neighbours(others, line, k=2).recall == 0.5


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
