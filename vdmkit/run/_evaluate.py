# SPDX-License-Identifier: Apache-2.0
"""The test bound of a model, with everything that a reader needs to trust it."""

import time
from dataclasses import asdict, dataclass
from typing import Any

import jax
import numpy as np

from vdmkit.data import Images
from vdmkit.errors import DataError
from vdmkit.likelihood import bound_of_images, interval
from vdmkit.model import DiffusionModel
from vdmkit.noise import check_increasing
from vdmkit.objective import Bound, bits_per_dim
from vdmkit.randomness import fold_purpose
from vdmkit.recipe import EvaluationSettings
from vdmkit.report import progress
from vdmkit.run._manifest import device


@dataclass(frozen=True)
class Evaluation:
    """Bits per dimension of a test set, its terms, its 95% interval and where that comes from."""

    bpd: float
    bpd_low: float
    bpd_high: float
    half_width_test_set: float
    half_width_monte_carlo: float
    prior: float
    reconstruction: float
    diffusion: float
    images: int
    images_in_test_set: int
    dataset: str
    sha256: str
    published: str | None
    estimator: str
    draws: int
    step: int
    weights: str
    device: str

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        width = (self.bpd_high - self.bpd_low) / 2
        lines = [
            f"test bpd {self.bpd:.4f} +/- {width:.4f} bits/dim (95%: finite test set {self.half_width_test_set:.4f}, "
            f"Monte Carlo {self.half_width_monte_carlo:.4f})",
            f"prior {self.prior:.4f} + reconstruction {self.reconstruction:.4f} + diffusion {self.diffusion:.4f}",
            f"{self.estimator}, {self.draws} draws per image",
            f"{self.images:,} images of {self.dataset}, step {self.step:,}, {self.weights} weights",
        ]
        if self.images < self.images_in_test_set:
            count = f"{self.images:,} of {self.images_in_test_set:,}"
            lines.append(f"Only the first {count} test images, for lack of time: vdmkit evaluate does all.")
        if not self.published:
            lines.append("Not the published data set: do not compare with published figures.")
        return "\n  ".join(lines)


def evaluate(
    model: DiffusionModel,
    test: Images,
    settings: EvaluationSettings,
    *,
    step: int,
    seed: int,
    seconds: float = float("inf"),
) -> Evaluation:
    """Estimate the bound of every test image once. `step` is the checkpoint's, for the record.

    After `seconds`, the images done so far are reported.

    Raises:
        DataError: the images are not of the model's shape or number of levels.
        RecipeError: the schedule does not rise.
        NonFiniteError: a term of the bound is not finite.
    """
    _check_fits(model, test)
    check_increasing(model.schedule)
    batches = -(-len(test.pixels) // settings.batch_size)
    end = time.monotonic() + seconds
    with progress("evaluating", batches * settings.draws) as advance:
        bound = bound_of_images(
            model,
            test.pixels,
            draws=settings.draws,
            steps=settings.steps,
            batch_size=settings.batch_size,
            key=fold_purpose(jax.random.key(seed), "evaluate"),
            on_draw=advance,
            stop=lambda: time.monotonic() > end,
        )
    return _evaluation(jax.tree.map(lambda nats: bits_per_dim(nats, model.dimensions), bound), test, settings, step)


def _evaluation(bound: Bound, test: Images, settings: EvaluationSettings, step: int) -> Evaluation:
    """What to report of a bound in bits per dimension, two estimates an image."""
    total = interval(np.asarray(bound.total))
    return Evaluation(
        bpd=total.value,
        bpd_low=total.low,
        bpd_high=total.high,
        half_width_test_set=total.half_width_test_set,
        half_width_monte_carlo=total.half_width_monte_carlo,
        prior=float(bound.prior.mean()),
        reconstruction=float(bound.reconstruction.mean()),
        diffusion=float(bound.diffusion.mean()),
        images=bound.total.shape[-1],
        images_in_test_set=len(test.pixels),
        dataset=f"{test.identity.name}/{test.identity.split}",
        sha256=test.identity.sha256,
        published=test.identity.published,
        estimator="variational bound, " + (f"T = {settings.steps} steps" if settings.steps else "continuous time"),
        draws=settings.draws,
        step=step,
        weights=settings.weights,
        device=device(),
    )


def _check_fits(model: DiffusionModel, test: Images) -> None:
    found = (*test.pixels.shape[1:], test.levels)
    expected = (*model.shape, model.observation.levels)
    if found != expected:
        raise DataError(
            f"{test.identity.name}: images of (height, width, channels, levels) {found}; the model was trained on "
            f"{expected}. A likelihood of one is not a likelihood of the other."
        )
