# SPDX-License-Identifier: Apache-2.0
"""Distances between two sets of features, float64."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.spatial.distance import cdist

from vdmkit.errors import DataError

_NEIGHBOURS = 5


def frechet_distance(a: Float[np.ndarray, "n d"], b: Float[np.ndarray, "m d"]) -> float:
    """|mean_a - mean_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^1/2) of the Gaussians with their moments.

    Heusel et al. 2017, arXiv 1706.08500, eq. 6. It is never below 0, and falls with n: compare with as many real ones.

    With S = R^T R, the last trace is the sum of the singular values of R_a R_b^T: S_a S_b and the square of this
    matrix share their non-zero eigenvalues. So no root is taken of eigenvalues that are 0 but for rounding, which most
    are where n < d.
    """
    offset = a.mean(0) - b.mean(0)
    r_a, r_b = _factor(a), _factor(b)
    cross = np.linalg.norm(r_a @ r_b.T, ord="nuc")
    return max(float(offset @ offset + (r_a**2).sum() + (r_b**2).sum() - 2 * cross), 0.0)


def _factor(x: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "r d"]:
    """R of min(n, d) rows: R^T R is the covariance."""
    centred = (x - x.mean(0)) / np.sqrt(len(x) - 1)
    return np.asarray(np.linalg.qr(centred, mode="r"))  # asarray, since numpy's types say that it is a tuple


@dataclass(frozen=True)
class Neighbours:
    """Shares of samples among the real (precision, density) and of the real among samples (recall, coverage)."""

    precision: float
    recall: float
    density: float
    coverage: float


def neighbours(real: Float[np.ndarray, "n d"], samples: Float[np.ndarray, "m d"], k: int = _NEIGHBOURS) -> Neighbours:
    """By balls around each point that reach to its k-th neighbour of the same set.

    Precision and recall: Kynkaanniemi et al. 2019, arXiv 1904.06991, eq. 2, with the edge of a ball. Density and
    coverage: Naeem et al. 2020, arXiv 2002.09797, without it, as in their code. It matters where images are repeated.

    Raises:
        DataError: fewer than k + 1 of either.
    """
    if min(len(real), len(samples)) <= k:
        raise DataError(f"{len(real)} real images and {len(samples)} samples: expected more than {k} of each.")
    distance = cdist(real, samples)
    reach_real, reach_samples = (np.sort(cdist(x, x), axis=1)[:, k] for x in (real, samples))
    return Neighbours(
        precision=float((distance <= reach_real[:, None]).any(0).mean()),
        recall=float((distance <= reach_samples[None]).any(1).mean()),
        density=float((distance < reach_real[:, None]).sum(0).mean() / k),
        coverage=float((distance.min(1) < reach_real).mean()),
    )
