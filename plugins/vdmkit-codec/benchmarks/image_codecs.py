# SPDX-License-Identifier: Apache-2.0
"""What images take in other codecs: `uv run --group benchmarks python image_codecs.py [mnist | ARCHIVE]`, here.

Prints the table for the test images of digits, for those of `mnist_5k`, or for the first hundred of an archive of
CIFAR-10; `rates` makes it for any images.
Files are real ones. Code lengths are what an arithmetic coder would write, but for the last few bytes, of probabilities
that a decoder can compute from values decoded before. The file does not contain what the trained
coder learned, just as our files do not contain the checkpoint.
"""

import math
import sys

import numpy as np
from context_coder import FEW, order0_bits, trained_bits
from jaxtyping import UInt8
from real_codecs import Row, real_codecs

from vdmkit.data import Cifar10, Digits, Mnist5k


def rates(images: UInt8[np.ndarray, "n h w c"], levels: int, train: UInt8[np.ndarray, "m h w c"]) -> list[Row]:
    """A row for each codec, in bits per value. `train` is what the trained context coder learns from.

    Raises:
        ValueError: There are neither 1 nor 3 channels, or no image in `images` or in `train`.
        RuntimeError: A codec gave back other pixels.
    """
    if images.shape[-1] not in (1, 3) or not len(images) or not len(train):
        raise ValueError(f"images {images.shape}, train {train.shape}: expected 1 or 3 channels, and images in both.")
    return [*real_codecs(images), _order0(images, levels), _trained(images, levels, train)]


def break_even(checkpoint_bytes: int, ours: float, theirs: float, dimensions: int) -> float:
    """Number of images at which a checkpoint's own size is paid back; inf if never.

    Args:
        checkpoint_bytes: The size.
        ours: Bits per value, with the checkpoint.
        theirs: Bits per value, without.
        dimensions: Values of an image.
    """
    return 8 * checkpoint_bytes / ((theirs - ours) * dimensions) if ours < theirs else math.inf


def _order0(images: UInt8[np.ndarray, "n h w c"], levels: int) -> Row:
    bits = {"position": order0_bits(images.reshape(len(images), -1), levels)}
    if levels > FEW:
        bits["channel"] = order0_bits(images.reshape(-1, images.shape[-1]), levels)
    best = min(bits, key=lambda which: bits[which])
    note = f"code length: one histogram per {best}, from scratch"
    return Row("adaptive order 0", None, bits[best] / images.size, note)


def _trained(images: UInt8[np.ndarray, "n h w c"], levels: int, train: UInt8[np.ndarray, "m h w c"]) -> Row:
    alone, together = trained_bits(images, levels, train)
    what = "counts in contexts of neighbours" if levels <= FEW else "linear prediction, counts in contexts of errors"
    note = f"code length: {what}, from {len(train):,} training images"
    return Row("trained context coder", alone / images.size, together / images.size, note)


def main() -> None:
    """Print the table."""
    which = sys.argv[1] if len(sys.argv) > 1 else "digits"
    known = {"digits": (Digits(), None), "mnist": (Mnist5k(), None)}
    source, count = known.get(which, (Cifar10(path=which), 100))
    test, train = source.load("test"), source.load("train")
    images = test.pixels[:count]
    print(f"{test.identity}; the first {len(images)}. Bits per value, images each in a file, and in one.")
    for row in rates(images, test.levels, train.pixels):
        alone, together = ("-" if rate is None else f"{rate:.3f}" for rate in (row.per_image, row.together))
        print(f"{row.name:<24}{alone:>8}{together:>8}  {row.note}")


if __name__ == "__main__":
    main()
