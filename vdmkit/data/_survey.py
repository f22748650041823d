# SPDX-License-Identifier: Apache-2.0
"""What a start must know of images without reading them, found when all are read once."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from vdmkit.data._copies import Prints, prints_of_block
from vdmkit.data._pixels import Pixels, blocks
from vdmkit.data._source import hash_and_range
from vdmkit.progress import Advance


@dataclass(frozen=True)
class Survey:
    """SHA-256, least and largest value of some images, and the prints of each."""

    sha256: str
    low: float
    high: float
    prints: Prints


def survey(pixels: Pixels, levels: int, advance: Advance) -> Survey:
    """Reads all images once, in blocks."""
    prints: list[Prints] = []

    def read() -> Iterator[np.ndarray]:
        for block in blocks(pixels):
            yield block
            prints.append(prints_of_block(block, levels))
            advance(len(block))

    return Survey(*hash_and_range(read()), np.concatenate(prints))
