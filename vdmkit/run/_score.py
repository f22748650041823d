# SPDX-License-Identifier: Apache-2.0
"""Samples of a run scored against real images, beside what other real images score."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Real

from vdmkit.data import Images
from vdmkit.errors import DataError
from vdmkit.quality import FEATURES, Extractor, Neighbours, as_rgb, features_of, frechet_distance, neighbours
from vdmkit.run._arithmetic import Arithmetic, arithmetic, facts_of
from vdmkit.run._evaluate import check_fits
from vdmkit.run._load import TrainedRun
from vdmkit.run._sample import Drawn, Plan, draw_samples, drawn_by, procedure_of

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
        lines.append("None of these features is Inception's: these distances are no FID.")
        return "\n".join([*lines, str(self.fid)] if self.fid else lines)


def score(run: TrainedRun, count: int, inception: Extractor | None = None) -> Scores:
    """Draw `count` samples by the recipe's sampler and compare them with as many test images, of the samples' label.

    Args:
        inception: adds FID, by these features.

    Raises:
        DataError: the test or the training set holds fewer images, they do not fit the model, or Inception cannot see
            them.
        NonFiniteError: some samples are not finite.
        RecipeError: samples would have labels that would not be used.
    """
    source, settings, procedure = run.recipe.data.build(), run.recipe.sampling, procedure_of(run.recipe)
    test, train = source.load("test"), source.load("train")
    model, plan = run.model(run.recipe.evaluation.weights), Plan(count, settings.steps)
    check_fits(model, test)
    sets = [_of_label(images, settings.label) for images in (test, train)]
    _refuse_too_many(count, [len(images) for images in sets], settings.label)
    if inception:
        as_rgb(test.pixels[:1], test.levels)  # refused before the samples are drawn
    samples = draw_samples(model, procedure, plan, seed=run.recipe.seed)
    rng = np.random.default_rng(run.recipe.seed)
    real, other = (images[np.sort(rng.permutation(len(images))[:count])] for images in sets)
    seen = {kind: [features_of(kind, images, test.levels) for images in (real, samples, other)] for kind in FEATURES}
    few = {kind: [x[rng.permutation(len(x))[:count]] for x in parts] for kind, parts in seen.items()}
    return Scores(
        count=count,
        reference=f"{test.identity.name}/{test.identity.split}{_words(settings.label)}",
        drawn=drawn_by(run.recipe),
        distance={kind: frechet_distance(a, b) for kind, (a, b, _) in seen.items()},
        distance_of_real={kind: frechet_distance(a, c) for kind, (a, _, c) in seen.items()},
        neighbours={kind: neighbours(a, b) for kind, (a, b, _) in few.items()},
        neighbours_of_real={kind: neighbours(a, c) for kind, (a, _, c) in few.items()},
        arithmetic=arithmetic(),
        fid=_fid([inception(as_rgb(images, test.levels)) for images in (real, samples, other)]) if inception else None,
    )


def _of_label(images: Images, label: int | None) -> Real[np.ndarray, "n h w c"]:
    """The images that show it: to others, samples of one label are not alike, and should not be."""
    if label is None:
        return images.pixels
    assert images.labels is not None, "guidance was refused"
    return images.pixels[images.labels == label]


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
