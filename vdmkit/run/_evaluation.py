# SPDX-License-Identifier: Apache-2.0
"""A reported bound, with everything that a reader needs to trust it."""

from dataclasses import dataclass
from typing import Any

from vdmkit.run._arithmetic import Arithmetic, facts_of


@dataclass(frozen=True)
class Evaluation:
    """Bits per dimension of a test set, its terms, its 95% interval and where that comes from.

    `test_images_trained_on` counts images of the test set that the model was trained on, and
    `test_images_near_trained_on` near copies of training images; None: not known. `held_out` is false if there are any
    of the first, or more of the second than training images are near copies of each other.
    """

    bpd: float
    bpd_low: float
    bpd_high: float
    half_width_test_set: float
    half_width_monte_carlo: float
    prior: float
    reconstruction: float
    diffusion: float
    levels: int
    images: int
    images_in_test_set: int
    distinct_images: int
    test_images_trained_on: int | None
    test_images_near_trained_on: int | None
    held_out: bool | None
    dataset: str
    sha256: str
    published: str | None
    estimator: str
    draws: int
    seed: int
    step: int
    weights: str
    arithmetic: Arithmetic
    remarks: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        return facts_of(self) | {"remarks": list(self.remarks)}

    def __str__(self) -> str:
        width = (self.bpd_high - self.bpd_low) / 2
        what = "bpd" if self._is_training_set() else "test bpd"
        units = "bits/dim" if self.levels else "bits/dim of a density"
        lines = [
            f"{what} {_4(self.bpd)} +/- {_4(width)} {units} (95%: {self._parts()})",
            f"prior {_4(self.prior)} + reconstruction {_4(self.reconstruction)} + diffusion {_4(self.diffusion)}",
            f"{self.estimator}, {self.draws} draws per image",
            f"{self.images:,} images of {self.dataset}, step {self.step:,}, {self.weights} weights, {self.arithmetic}",
            *self._caveats(),
        ]
        return "\n  ".join(lines)

    def _is_training_set(self) -> bool:
        copies = (self.test_images_trained_on or 0) + (self.test_images_near_trained_on or 0)
        return self.held_out is False and copies == self.images_in_test_set

    def _parts(self) -> str:
        """Of the interval. A part of zero only says that the other hides it."""
        monte_carlo = f"Monte Carlo {_4(self.half_width_monte_carlo)}"
        if not self.half_width_test_set:
            return f"{monte_carlo}, too much to tell what other test images would change: take more evaluation.draws"
        return f"finite test set {_4(self.half_width_test_set)}, {monte_carlo}"

    def _caveats(self) -> list[str]:
        lines = []
        if self.images < self.images_in_test_set:
            count = f"{self.images:,} of {self.images_in_test_set:,}"
            lines.append(f"Only {count} test images, drawn at random, for lack of time: vdmkit evaluate does all.")
        if self.test_images_trained_on is None:
            lines.append("It is not known which images this model was trained on.")
        elif self.test_images_trained_on == self.images_in_test_set:
            lines.append("It was trained on all of these images: not a test bound.")
        elif self.test_images_trained_on:
            lines.append(
                f"It was trained on {self.test_images_trained_on:,} of the {self.images_in_test_set:,} images."
            )
        lines += self.remarks
        if not self.published:
            lines.append("Not the published data set: do not compare with published figures.")
        return lines


def _4(value: float) -> str:
    """Four decimals, without the sign of a rounded zero."""
    return f"{round(value, 4) + 0.0:.4f}"
