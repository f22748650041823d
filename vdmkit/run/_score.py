# SPDX-License-Identifier: Apache-2.0
"""Samples of a run scored against real images, beside what other real images score."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from vdmkit.errors import DataError
from vdmkit.quality import FEATURES, Extractor, Neighbours, as_rgb, features_of, frechet_distance, neighbours
from vdmkit.run._evaluate import check_fits
from vdmkit.run._load import TrainedRun
from vdmkit.run._sample import Plan, draw_samples, procedure_of

_USUAL = 50_000


@dataclass(frozen=True)
class Fid:
    """The Frechet distance of Inception's features, of samples and of as many real images, to the same real ones.

    Those are test images, while most published FIDs are to the training images.
    """

    distance: float
    distance_of_real: float
    count: int

    def __str__(self) -> str:
        few = "" if self.count >= _USUAL else f", biased upwards: fewer than the usual {_USUAL:,}"
        return f"FID {self.distance:.4f} ({self.distance_of_real:.4f}) of {self.count:,} samples{few}"


@dataclass(frozen=True)
class Scores:
    """By features: the distance and the neighbours of samples, and of as many real images, to the same real ones."""

    count: int
    reference: str
    distance: dict[str, float]
    distance_of_real: dict[str, float]
    neighbours: dict[str, Neighbours]
    neighbours_of_real: dict[str, Neighbours]
    fid: Fid | None = None

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        names = ("Frechet distance", "precision", "recall", "density", "coverage")
        lines = [f"{self.count} samples against {self.reference}; in brackets as many real images of the training set"]
        lines.append(f"{'features':10} " + " ".join(f"{name:>20}" for name in names))
        for kind in self.distance:
            ours, theirs = (asdict(n[kind]) for n in (self.neighbours, self.neighbours_of_real))
            cells = [f"{self.distance[kind]:.4f} ({self.distance_of_real[kind]:.4f})"]
            cells += [f"{ours[name]:.3f} ({theirs[name]:.3f})" for name in names[1:]]
            lines.append(f"{kind:10} " + " ".join(f"{cell:>20}" for cell in cells))
        lines.append("None of these features is Inception's: these distances are no FID.")
        return "\n".join([*lines, str(self.fid)] if self.fid else lines)


def score(run: TrainedRun, count: int, inception: Extractor | None = None) -> Scores:
    """Draw `count` samples by the recipe's sampler and compare them with as many test images.

    Args:
        inception: adds FID, by these features.

    Raises:
        DataError: the test or the training set holds fewer images, they do not fit the model, or Inception cannot see
            them.
    """
    source, settings = run.recipe.data.build(), run.recipe.sampling
    test, train = source.load("test"), source.load("train")
    if count > min(len(test.pixels), len(train.pixels)):
        raise DataError(f"-n {count}: the test set holds {len(test.pixels):,}, the training set {len(train.pixels):,}.")
    model, plan = run.model(run.recipe.evaluation.weights), Plan(count, settings.steps)
    check_fits(model, test)
    if inception:
        as_rgb(test.pixels[:1], test.levels)  # refused before the samples are drawn
    samples = draw_samples(model, procedure_of(run.recipe), plan, seed=run.recipe.seed)
    rng = np.random.default_rng(run.recipe.seed)
    real, other = (images.pixels[np.sort(rng.permutation(len(images.pixels))[:count])] for images in (test, train))
    sets = {kind: [features_of(kind, images, test.levels) for images in (real, samples, other)] for kind in FEATURES}
    few = {kind: [x[rng.permutation(len(x))[:count]] for x in parts] for kind, parts in sets.items()}
    return Scores(
        count=count,
        reference=f"{test.identity.name}/{test.identity.split}",
        distance={kind: frechet_distance(a, b) for kind, (a, b, _) in sets.items()},
        distance_of_real={kind: frechet_distance(a, c) for kind, (a, _, c) in sets.items()},
        neighbours={kind: neighbours(a, b) for kind, (a, b, _) in few.items()},
        neighbours_of_real={kind: neighbours(a, c) for kind, (a, _, c) in few.items()},
        fid=_fid([inception(as_rgb(images, test.levels)) for images in (real, samples, other)]) if inception else None,
    )


def _fid(features: list[Float[np.ndarray, "n d"]]) -> Fid:
    real, samples, other = features
    return Fid(frechet_distance(real, samples), frechet_distance(real, other), len(samples))
