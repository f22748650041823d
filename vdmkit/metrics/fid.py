# SPDX-License-Identifier: Apache-2.0
"""Scores a model's samples against real images, with the scores of as many other real images for comparison.

Distances between two sets of features, in float64.
"""

from dataclasses import asdict, dataclass
from typing import Any

import jax
import numpy as np
import scipy
from jaxtyping import Float

from vdmkit.data.identity import check_fits
from vdmkit.data.sources import Images, Pixels, select
from vdmkit.devices import Arithmetic, arithmetic, facts_of
from vdmkit.errors import DataError
from vdmkit.metrics.features import FEATURES, Extractor, as_rgb, features_of
from vdmkit.model import DiffusionModel
from vdmkit.progress import Progress
from vdmkit.recipes.schema import Drawn
from vdmkit.sampling.sample import SamplingConfig, draw_samples

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


_USUAL = 50_000


@dataclass(frozen=True)
class Fid:
    """FID of samples, and of as many training images, to the same test images.

    Most published FIDs use training images as the reference.
    """

    distance: float
    distance_of_real: float
    count: int

    def __str__(self) -> str:
        few = "" if self.count >= _USUAL else f", biased upwards: fewer than the usual {_USUAL:,}"
        return f"FID {self.distance:.4f} ({self.distance_of_real:.4f}) of {self.count:,} samples{few}"


@dataclass(frozen=True)
class Scores:
    """Frechet distances and neighbours of samples, and of as many training images, to the same test images."""

    count: int
    reference: str
    drawn: Drawn
    distance: dict[str, float]
    distance_of_real: dict[str, float]
    neighbours: dict[str, Neighbours]
    neighbours_of_real: dict[str, Neighbours]
    arithmetic: Arithmetic
    fid: Fid | None = None

    def as_json(self) -> dict[str, Any]:
        return facts_of(self)

    def __str__(self) -> str:
        names = ("Frechet distance", "precision", "recall", "density", "coverage")
        lines = [f"{self.count} samples against {self.reference}; in brackets as many real images of the training set"]
        lines += [f"drawn by {self.drawn}", f"computed in {self.arithmetic}"]
        lines.append(f"{'features':10} " + " ".join(f"{name:>20}" for name in names))
        for kind in self.distance:
            ours, theirs = (asdict(n[kind]) for n in (self.neighbours, self.neighbours_of_real))
            cells = [f"{self.distance[kind]:.4f} ({self.distance_of_real[kind]:.4f})"]
            cells += [f"{ours[name]:.3f} ({theirs[name]:.3f})" for name in names[1:]]
            lines.append(f"{kind:10} " + " ".join(f"{cell:>20}" for cell in cells))
        lines.append("These features are not Inception's, so these distances are not FID.")
        return "\n".join([*lines, str(self.fid)] if self.fid else lines)


def score(
    model: DiffusionModel,
    config: SamplingConfig,
    count: int,
    *,
    test: Images,
    train: Images,
    drawn: Drawn,
    seed: int,
    inception: Extractor | None = None,
    progress: Progress = None,
) -> Scores:
    """Draws `count` samples and compares them with as many test images, of the samples' label if they have one.

    Args:
        model: The model.
        config: Settings of sampling.
        count: Number of samples.
        test: Test images, the reference.
        train: Training images, which are scored in the same way for comparison.
        drawn: Record of how the samples are drawn, including their label.
        seed: Seed of the samples, and of the choice of real images.
        inception: Extractor of Inception's features; if it is given, FID is computed too.
        progress: None, "auto" for a bar on standard error, or an object like `vdmkit.progress.Meter`.

    Raises:
        DataError: the test or the training set has fewer images, the images do not fit the model, or Inception does not
            support them.
        NonFiniteError: some samples are not finite.
    """
    check_fits(model, test)
    sets = [_of_label(images, drawn.label) for images in (test, train)]
    _refuse_too_many(count, [len(images) for images in sets], drawn.label)
    if inception:
        as_rgb(test.pixels[:1], test.levels)  # raises for unsupported images before samples are drawn
    samples = draw_samples(model, config, count, key=jax.random.key(seed), progress=progress)
    rng = np.random.default_rng(seed)
    real, other = (images[np.sort(rng.permutation(len(images))[:count])] for images in sets)
    seen = {kind: [features_of(kind, images, test.levels) for images in (real, samples, other)] for kind in FEATURES}
    few = {kind: [x[rng.permutation(len(x))[:count]] for x in parts] for kind, parts in seen.items()}
    return Scores(
        count=count,
        reference=f"{test.identity.name}/{test.identity.split}{_words(drawn.label)}",
        drawn=drawn,
        distance={kind: frechet_distance(a, b) for kind, (a, b, _) in seen.items()},
        distance_of_real={kind: frechet_distance(a, c) for kind, (a, _, c) in seen.items()},
        neighbours={kind: neighbours(a, b) for kind, (a, b, _) in few.items()},
        neighbours_of_real={kind: neighbours(a, c) for kind, (a, _, c) in few.items()},
        arithmetic=arithmetic(),
        fid=_fid([inception(as_rgb(images, test.levels)) for images in (real, samples, other)]) if inception else None,
    )


def _of_label(images: Images, label: int | None) -> Pixels:
    """Returns the images of a label, because samples of one label should be compared only with images of that label."""
    if label is None:
        return images.pixels
    assert images.labels is not None, "guidance was refused"
    return select(images.pixels, np.flatnonzero(images.labels == label))


def _refuse_too_many(count: int, sizes: list[int], label: int | None) -> None:
    most, name = min(zip(sizes, ("test", "training"), strict=True))
    if count > most:
        what = f"the size of the {name} set" if label is None else f"the {name} images{_words(label)}"
        raise DataError(f"-n {count}: at most {most:,}, {what}.")


def _words(label: int | None) -> str:
    return "" if label is None else f" of label {label}"


def _fid(features: list[Float[np.ndarray, "n d"]]) -> Fid:
    real, samples, other = features
    return Fid(frechet_distance(real, samples), frechet_distance(real, other), len(samples))
