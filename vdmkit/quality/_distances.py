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
    """
    offset = a.mean(0) - b.mean(0)
    s_a, s_b = (np.atleast_2d(np.cov(x, rowvar=False)) for x in (a, b))
    values, axes = np.linalg.eigh(s_a)
    root = axes * np.sqrt(np.maximum(values, 0)) @ axes.T
    cross = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ s_b @ root), 0)).sum()
    return max(float(offset @ offset + np.trace(s_a) + np.trace(s_b) - 2 * cross), 0.0)


@dataclass(frozen=True)
class Neighbours:
    """Shares of samples among the real (precision, density) and of the real among samples (recall, coverage)."""

    precision: float
    recall: float
    density: float
    coverage: float


def neighbours(real: Float[np.ndarray, "n d"], samples: Float[np.ndarray, "m d"], k: int = _NEIGHBOURS) -> Neighbours:
    """By balls around each point that reach to its k-th neighbour of the same set.

    Precision and recall: Kynkaanniemi et al. 2019, arXiv 1904.06991. Density and coverage: Naeem et al. 2020,
    arXiv 2002.09797.

    Raises:
        DataError: fewer than k + 1 of either.
    """
    if min(len(real), len(samples)) <= k:
        raise DataError(f"{len(real)} real images and {len(samples)} samples: expected more than {k} of each.")
    distance = cdist(real, samples)
    reach_real, reach_samples = (np.sort(cdist(x, x), axis=1)[:, k] for x in (real, samples))
    inside = distance < reach_real[:, None]
    return Neighbours(
        precision=float(inside.any(0).mean()),
        recall=float((distance < reach_samples[None]).any(1).mean()),
        density=float(inside.sum(0).mean() / k),
        coverage=float((distance.min(1) < reach_real).mean()),
    )
