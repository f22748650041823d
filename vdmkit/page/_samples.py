# SPDX-License-Identifier: Apache-2.0
"""Samples beside the nearest training images, one chain from noise to an image, and the run's own picture."""

import os
from collections.abc import Iterator

import numpy as np

from vdmkit.data.folder import read_image
from vdmkit.errors import DataError
from vdmkit.page._blocks import Block, Command, Picture, Section, Words, section
from vdmkit.page._seen import Samples
from vdmkit.page._shown import Shown
from vdmkit.report._grid import grid

_WIDTH, _HEIGHT = 520, 140  # largest size of rows of images, in CSS pixels; few steps make a short row


def samples(shown: Shown) -> list[Section]:
    """Returns the section on samples."""
    return section("Samples", _blocks(shown))


def _blocks(shown: Shown) -> Iterator[Block]:
    if shown.seen and shown.seen.samples:
        found, levels = shown.seen.samples, shown.seen.levels
        yield _beside_nearest(found, levels)
        yield _chain(found)
        yield Words(f"The first {len(found.images)} samples of the recipe's seed, by {found.how}.")
        many = ("-n", str(len(found.images)), "--steps", str(found.steps))
        yield Command("They are drawn again by", shown.command("sample", "--ckpt", "RUN", *many))
    if shown.seen:
        yield from (Words(f"Not everything could be shown: {reason}", marked=True) for reason in shown.seen.reasons)
    path = shown.files.path / "samples.png"
    if os.path.lexists(path):
        words = "Samples of the end of training, on the left, and real images, on the right (samples.png)."
        try:
            yield Picture(read_image(path), words, words)
        except DataError as error:
            yield Words(f"Not shown: {error}", marked=True)


def _beside_nearest(found: Samples, levels: int) -> Picture:
    if found.nearest is None or found.distance is None:
        return _rows([_row(found.images, levels)], f"{len(found.images)} samples in a row.", "Samples.")
    rows = [_row(found.images, levels), _row(found.nearest, levels)]
    unit = "levels" if levels else "units of data"
    distances = ", ".join(f"{one:.3g}" for one in found.distance)
    among = "training image" if found.every == 1 else f"of one in {found.every} training images"
    return _rows(
        rows,
        f"{len(found.images)} samples in a row, and below each the nearest {among}.",
        f"Samples, and below each the nearest {among}; root mean square differences in {unit}: {distances}.",
    )


def _chain(found: Samples) -> Picture:
    rows = [_row(np.clip(np.stack(part), -1, 1), 0) for part in list(zip(*found.chain, strict=True))[1:]]
    gammas = ", ".join(f"{gamma:.2f}" for gamma, _, _ in found.chain)
    return _rows(
        rows,
        "Latents of one chain from noise to an image in a row, and below each the model's estimate of the image.",
        f"The chain of the first sample: z above, x_hat(z) below, both clipped to [-1, 1], at gamma = {gammas}.",
    )


def _row(images: np.ndarray, levels: int) -> np.ndarray:
    """Returns images of levels, or of [-1, 1] if levels = 0, side by side on white."""
    tiles = [grid(one[None], levels) for one in images]
    gap = np.full((tiles[0].shape[0], 2, tiles[0].shape[2]), 255, np.uint8)
    return np.concatenate([part for tile in tiles for part in (tile, gap)][:-1], axis=1)


def _rows(rows: list[np.ndarray], alt: str, caption: str) -> Picture:
    gap = np.full((4, *rows[0].shape[1:]), 255, np.uint8)
    picture = np.concatenate([part for row in rows for part in (row, gap)][:-1])
    scale = min(_WIDTH / picture.shape[1], _HEIGHT / picture.shape[0])
    return Picture(picture, alt, caption, scale)
