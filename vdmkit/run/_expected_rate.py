# SPDX-License-Identifier: Apache-2.0
"""What a file of images would take, from the bound."""

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from vdmkit.data import ImageList
from vdmkit.errors import DataError
from vdmkit.likelihood import bound_of_images, interval
from vdmkit.objective import bits_per_dim
from vdmkit.report import progress
from vdmkit.run._arithmetic import Arithmetic, arithmetic, facts_of
from vdmkit.run._codec import Coding

_MOST = 256  # images that are looked at
_MOST_STEPS = 32  # of an image, each with two draws


@dataclass(frozen=True)
class ExpectedRate:
    """The T-step bound, bits per dimension, and the half-widths of its 95% intervals: of the draws, and of the sample.

    `initial` bits, of one image's dimensions, are what each chunk begins with: about `Codec.initial_bits`.
    """

    net: float
    half_width_monte_carlo: float
    half_width_sample: float
    initial: float
    images: int
    images_looked_at: int
    steps: str
    arithmetic: Arithmetic

    def as_json(self) -> dict[str, Any]:
        return facts_of(self)

    def __str__(self) -> str:
        errors = f"+/- {self.half_width_monte_carlo:.4f} (draws)"
        if self.images_looked_at < self.images:
            errors += f" +/- {self.half_width_sample:.4f} (a sample of {self.images_looked_at:,} images)"
        return (
            f"expected of {self.images:,} images: {self.net:.4f} {errors} bits/dim; {self.steps}\n"
            f"and what each chunk begins with, once: some {self.initial:.1f} bits/dim of one image; and headers\n"
            f"the bound in {self.arithmetic}"
        )


def expected_rate(coding: Coding, images: ImageList, *, seed: int) -> ExpectedRate:
    """From at most 256 images, evenly spaced.

    Raises:
        DataError: fewer than two images, or one with values that the model does not know.
    """
    model, bound = coding.codec.model, coding.bound
    chosen = (
        np.linspace(0, len(images) - 1, min(len(images), _MOST)).round().astype(int).tolist() if len(images) else []
    )
    pixels = np.concatenate([np.zeros((0, *model.shape), np.uint8), *(images.read(i, i + 1) for i in chosen)])
    if len(pixels) and pixels.max() >= model.observation.levels:
        raise DataError(f"values up to {pixels.max()}, and the model knows {model.observation.levels} levels.")
    draws = 2 * min(bound.steps, _MOST_STEPS)
    with progress("bound", draws * -(-len(pixels) // coding.codec.group)) as advance:
        terms = bound_of_images(
            model,
            pixels,
            draws=draws,
            steps=bound.steps,
            kernel=bound.kernel,
            grid=bound.grid,
            batch_size=coding.codec.group,
            key=jax.random.key(seed),
            on_draw=advance,
        )
    found = interval(np.asarray(terms.total, np.float64))
    mean, draws, sample = (
        bits_per_dim(value, model.dimensions)
        for value in (found.value, found.half_width_monte_carlo, found.half_width_test_set)
    )
    return ExpectedRate(
        mean, draws, sample, coding.codec.initial_bits, len(images), len(pixels), str(coding), arithmetic()
    )
