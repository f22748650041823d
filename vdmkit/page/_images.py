# SPDX-License-Identifier: Apache-2.0
"""The bits/dim of each test image: their histogram, and the images that take the most and the fewest."""

import math
from typing import TYPE_CHECKING

import numpy as np

from vdmkit.page._blocks import Block, Command, Picture, Section, Words, section
from vdmkit.page._figures import COLOURS, chart
from vdmkit.page._files import Result
from vdmkit.page._shown import Shown
from vdmkit.report._grid import grid

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_TITLE = "Bits/dim of each image"
_FEW = 16


def images(shown: Shown) -> list[Section]:
    """Returns the section on single images, of the first likelihood of which they were kept."""
    kept = [one for one in shown.files.likelihoods if "nats" in one.arrays]
    if not kept:
        asked = Command(
            "Not kept yet for each image. This measures them:", shown.command("likelihood", "--ckpt", "RUN")
        )
        return section(_TITLE, [asked])
    bits = bits_of(shown, kept[0])
    return section(_TITLE, [_histogram(kept[0], bits), *_extremes(shown, kept[0], bits)])


def bits_of(shown: Shown, result: Result) -> np.ndarray:
    """Returns the bits/dim of each image of a result."""
    return result.arrays["nats"] / (math.log(2) * shown.files.dimensions)


def _histogram(result: Result, bits: np.ndarray) -> Block:
    from matplotlib.ticker import MaxNLocator

    def draw(axes: "Axes") -> None:
        axes.hist(bits, bins=min(40, max(5, len(bits) // 8)), color=COLOURS[0])
        axes.axvline(bits.mean(), color=COLOURS[1], linestyle="--")
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))

    low, middle, high = np.quantile(bits, (0.05, 0.5, 0.95))
    about = (
        f"{len(bits):,} images from {bits.min():.4f} to {bits.max():.4f}, median {middle:.4f}, mean {bits.mean():.4f}"
    )
    caption = f"{about} (dashed); nine in ten from {low:.4f} to {high:.4f}. By {result.facts['estimator']}."
    return chart(draw, alt=f"Histogram of bits per dimension of {about}.", caption=caption, x="bits/dim", y="images")


def _extremes(shown: Shown, result: Result, bits: np.ndarray) -> list[Block]:
    test = shown.seen and shown.seen.test
    if test is None:
        return []
    if test.identity.sha256 != result.facts["sha256"]:
        return [Words("The images of this result are not those of the recipe, so none of them are shown.")]
    order, few = np.argsort(bits), min(_FEW, len(bits) // 2)
    parts = {"fewest": order[:few], "most": order[: -few - 1 : -1]} if few else {}
    index = result.arrays["index"]
    return [_picture(test.pixels[index[some]], test.levels, bits[some], words) for words, some in parts.items()]


def _picture(pixels: np.ndarray, levels: int, bits: np.ndarray, words: str) -> Picture:
    picture = grid(pixels, levels)
    about = f"The {len(pixels)} images with the {words} bits/dim, row by row from {bits[0]:.4f} to {bits[-1]:.4f}"
    return Picture(picture, f"{about}.", f"{about}.", max(1, 280 // picture.shape[1]))
