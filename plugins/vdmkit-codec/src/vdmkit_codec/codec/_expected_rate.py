# SPDX-License-Identifier: Apache-2.0
"""Forecasts the size of a file: the bound of its images, and everything else in the file."""

from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Float, UInt8

from vdmkit.data._image_list import ImageList
from vdmkit.devices import Arithmetic, arithmetic, facts_of
from vdmkit.errors import DataError
from vdmkit.likelihood import interval, pass_over
from vdmkit.progress import Progress, track
from vdmkit_codec.codec._coding import Coding
from vdmkit_codec.codec._compress import most_images
from vdmkit_codec.compression import Rate, forecast, shares_of_pixels
from vdmkit_codec.container import size_of_file

_MOST = 256  # images in the sample
_MOST_STEPS = 32  # steps per image, each with two draws


@dataclass(frozen=True)
class ExpectedRate:
    """The expected `Compressed`, in bits per dimension; `net` is the T-step bound, at most the raw size of an image.

    The 95% half-widths of `net` are those of the draws, and of the sample if not every image was measured.
    """

    images: int
    images_looked_at: int
    stored: int
    bytes: int
    gross: float
    net: float
    half_width_monte_carlo: float
    half_width_sample: float
    initial: float
    steps: str
    arithmetic: Arithmetic

    def as_json(self) -> dict[str, Any]:
        return facts_of(self)

    def __str__(self) -> str:
        errors = f"+/- {self.half_width_monte_carlo:.4f} (draws)"
        if self.images_looked_at < self.images:
            errors += f" +/- {self.half_width_sample:.4f} (a sample of {self.images_looked_at:,} images)"
        rest = self.gross - self.net - self.initial
        lines = [
            f"expected: {self.images:,} images in {self.bytes:,} bytes: {self.gross:.4f} bits/dim; {self.steps}",
            f"= {self.net:.4f} {errors} the images + {self.initial:.4f} what chunks begin with "
            f"+ {rest:.4f} headers, index, checksums",
        ]
        if self.stored:
            lines += [f"stored as they are, since the model would make them larger: about {self.stored:,}"]
        return "\n".join([*lines, f"the bound in {self.arithmetic}"])


def expected_rate(
    coding: Coding, images: ImageList, *, chunk: int, seed: int, progress: Progress = None
) -> ExpectedRate:
    """Forecasts the size of a file from at most 256 images, evenly spaced.

    The other parts of the file are built and measured, or simulated lane by lane.

    Raises:
        DataError: there are no images.
    """
    codec, dimensions = coding.codec, coding.codec.model.dimensions
    pixels, chunk = _sample(images), min(chunk, most_images(codec))
    rate, bits = _rate(coding, pixels, seed, progress)
    sizes = [min(chunk, len(images) - first) for first in range(0, len(images), chunk)]
    chunks = {size: forecast(codec.chunk_code(), rate, size) for size in set(sizes)}
    parts = [(size, round(chunks[size].bytes)) for size in sizes]
    file = size_of_file(coding.header(chunk), parts, images.names)
    initial = sum(chunks[size].initial_bits for size in sizes)
    found, values = interval(bits), len(images) * dimensions
    return ExpectedRate(
        images=len(images),
        images_looked_at=min(len(images), len(pixels)),
        stored=round(len(images) * rate.stored),
        bytes=file,
        gross=8 * file / values,
        net=found.value / dimensions,
        half_width_monte_carlo=found.half_width_monte_carlo / dimensions,
        half_width_sample=found.half_width_test_set / dimensions,
        initial=initial / values,
        steps=str(coding),
        arithmetic=arithmetic(),
    )


def _sample(images: ImageList) -> UInt8[np.ndarray, "n h w c"]:
    """Returns evenly spaced images; a single image is repeated, because one estimate has no error."""
    if not len(images):
        raise DataError("there are no images. Give some.")
    chosen = np.linspace(0, len(images) - 1, min(max(len(images), 2), _MOST)).round().astype(int)
    return np.concatenate([images.read(i, i + 1) for i in chosen.tolist()])


def _rate(
    coding: Coding, pixels: UInt8[np.ndarray, "n h w c"], seed: int, progress: Progress
) -> tuple[Rate, Float[np.ndarray, "2 n"]]:
    """Returns the mean bits, and two estimates for each image: of the bound, or of the raw size if that is less."""
    model, levels = coding.codec.model, coding.codec.model.observation.levels
    known = pixels.reshape(len(pixels), -1).max(1) < levels
    terms = _bound(coding, pixels[known], seed, progress)
    total = np.full((2, len(pixels)), np.inf)
    total[:, known] = sum(terms.values())
    raw = model.dimensions * np.where(known, np.log2(levels), 8.0)
    stored = total.mean(0) >= raw
    kept = ~stored[known]
    of = ("reconstruction", "diffusion", "prior")
    means = [float(terms[name][:, kept].mean()) if kept.any() else 0.0 for name in of]
    rate = Rate(
        *means,
        raw=float(raw[stored].mean()) if stored.any() else 0.0,
        stored=float(stored.mean()),
        variance=float(coding.codec.layers.x[np.minimum(pixels, levels - 1)].var(0).mean()),
        pixels=shares_of_pixels(pixels),
    )
    return rate, np.where(stored, raw, total)


def _bound(
    coding: Coding, pixels: UInt8[np.ndarray, "n h w c"], seed: int, progress: Progress
) -> dict[str, Float[np.ndarray, "2 n"]]:
    """Returns two estimates of each image by term, in bits."""
    model, bound = coding.codec.model, coding.bound
    if not len(pixels):
        return {name: np.zeros((2, 0)) for name in ("reconstruction", "diffusion", "prior")}
    strata = min(bound.steps, _MOST_STEPS)
    plan = eqx.tree_at(lambda plan: plan.draws, bound.even_plan(model), np.asarray(strata))
    index, group = np.arange(len(pixels)), coding.codec.group
    with track(progress, "bound", 2 * strata * -(-len(pixels) // group)) as advance:
        how = {"batch_size": group, "key": jax.random.key(seed), "on_round": advance}
        found = pass_over(bound, model, pixels, index, plan, **how)
    return {name: np.asarray(nats, np.float64) / np.log(2) for name, nats in found.terms.items()}
