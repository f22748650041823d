# SPDX-License-Identifier: Apache-2.0
"""What files of few and of many images take: `uv run python file_sizes.py RUN`, in this folder.

Prints the bytes of one file of the first test images of a run's data, then training images, and of one white image,
with the default settings of `vdmkit compress`; every file is decoded. The columns are the rows of `vdmkit inspect`.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from vdmkit_codec import inspect
from vdmkit_codec.coding import Coding, coding_of, with_steps_of_codec
from vdmkit_codec.encoding import to_bytes

from vdmkit.data import Images as Split
from vdmkit.data.folder import ImageList
from vdmkit.experiments import load_run

COUNTS = (1, 10, 100, 297, 1000)
BATCH, CHUNK = 64, 1024  # the defaults of `vdmkit compress`
PARTS = ("stacks", "initial", "unused", "groups", "rest")  # as `inspect` orders them


def size(coding: Coding, images: UInt8[np.ndarray, "n h w c"]) -> tuple[list[int], float]:
    """Returns the bytes of a file by purpose, and its bits per dimension."""
    listed = ImageList(coding.codec.model.shape, None, [], images)
    data, _ = to_bytes(coding, listed, chunk=CHUNK, verify=True)
    return list(inspect(data).bytes.values()), 8 * len(data) / images.size


def table_of_sizes(coding: Coding, test: Split, train: Split, counts: Sequence[int] = COUNTS) -> None:
    """Prints it."""
    images = np.concatenate([test.pixels, train.pixels])
    white = np.full_like(images[:1], test.levels - 1)
    print(f"{'images':>12}{'bytes':>9}" + "".join(f"{part:>12}" for part in PARTS) + f"{'bits/dim':>10}")
    for name, some in [*((f"{count:,}", images[:count]) for count in counts), ("one white", white)]:
        parts, rate = size(coding, some)
        print(f"{name:>12}{sum(parts):>9,}" + "".join(f"{part:>12,}" for part in parts) + f"{rate:>10.4f}", flush=True)


def main() -> None:
    """Print the table of a run."""
    run = with_steps_of_codec(load_run(Path(sys.argv[1])), [])
    data = run.recipe.data.build()
    table_of_sizes(coding_of(run, profile="portable", group=BATCH), data.load("test"), data.load("train"))


if __name__ == "__main__":
    main()
