# SPDX-License-Identifier: Apache-2.0
"""Distances between two sets of features, in float64."""

from dataclasses import dataclass

import numpy as np
import scipy
from jaxtyping import Float

from vdmkit.errors import DataError

_NEIGHBOURS = 5


def frechet_distance(a: Float[np.ndarray, "n d"], b: Float[np.ndarray, "m d"]) -> float:
    """Returns |mean_a - mean_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^1/2) of the Gaussians with the sets' moments.

    Heusel et al. 2017, arXiv 1706.08500, eq. 6. The estimate is biased upwards and falls with n, so compare it with the
    distance of as many real images.

    With S = R^T R, the last trace is the sum of the singular values of R_a R_b^T, because S_a S_b and the square of
    this matrix share their non-zero eigenvalues. This avoids roots of eigenvalues that are 0 up to rounding, as most
    are for n < d.
    """
    offset = a.mean(0) - b.mean(0)
    r_a, r_b = _factor(a), _factor(b)
    cross = np.linalg.norm(r_a @ r_b.T, ord="nuc")
    return max(float(offset @ offset + (r_a**2).sum() + (r_b**2).sum() - 2 * cross), 0.0)


def _factor(x: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "r d"]:
    """Returns R with min(n, d) rows such that R^T R is the covariance."""
    centred = (x - x.mean(0)) / np.sqrt(len(x) - 1)
    return np.asarray(np.linalg.qr(centred, mode="r"))  # asarray, because numpy's types declare a tuple


@dataclass(frozen=True)
class Neighbours:
    """Shares of samples near real images (precision, density) and of real images near samples (recall, coverage)."""

    precision: float
    recall: float
    density: float
    coverage: float


def neighbours(real: Float[np.ndarray, "n d"], samples: Float[np.ndarray, "m d"], k: int = _NEIGHBOURS) -> Neighbours:
    """Returns the shares by balls around each point, with the distance to its k-th neighbour in the same set as radius.

    Precision and recall: Kynkaanniemi et al. 2019, arXiv 1904.06991, eq. 2, with closed balls. Density and coverage:
    Naeem et al. 2020, arXiv 2002.09797, with open balls, as in their code. The distinction matters if images are
    repeated.

    Raises:
        DataError: one of the sets has at most k images.
    """
    if min(len(real), len(samples)) <= k:
        raise DataError(f"{len(real)} real images and {len(samples)} samples: expected more than {k} of each.")
    distance = scipy.spatial.distance.cdist(real, samples)
    reach_real, reach_samples = (np.sort(scipy.spatial.distance.cdist(x, x), axis=1)[:, k] for x in (real, samples))
    return Neighbours(
        precision=float((distance <= reach_real[:, None]).any(0).mean()),
        recall=float((distance <= reach_samples[None]).any(1).mean()),
        density=float((distance < reach_real[:, None]).sum(0).mean() / k),
        coverage=float((distance.min(1) < reach_real).mean()),
    )
