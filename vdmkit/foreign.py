# SPDX-License-Identifier: Apache-2.0
"""What a file from elsewhere may ask for: all limits, and one form of the refusal.

A genuine file is far below its limit. Beyond it, `TooMuch` is raised before memory or time is spent; readers put its
words behind the name of the file. `vdmkit.importers` and files `.vdmz` check more, which depends on their formats.
"""

import os
from pathlib import Path
from typing import Any

MAX_JSON = 2**26  # bytes; a manifest has a kilobyte for each session, and a large model's checksums a megabyte
MAX_KEPT = 2**30  # bytes that a run folder keeps about its images, 40 for each
MAX_METRICS = 2**28  # bytes of lines of JSON; a million of them have 200 million
MAX_RECIPE = 2**18  # bytes of TOML; the longest recipe of vdmkit has 2,000, and a grid of 10,000 steps 200,000
MAX_KEYS = 2_000  # of TOML, tables included; the longest recipe has about 60
MAX_BITS = 1_000  # of an integer in TOML, which is to have 64: for larger ones Python's words are not about the file
MAX_EXTENDED = 20  # recipes, each of which extends the next
MAX_PLUGIN = 2**24  # bytes of Python
MAX_IMAGE_FILE = 2**28  # bytes, compressed
MAX_IMAGE_PIXELS = 2**26  # 8192 x 8192
MAX_SCANNED_PIXELS = 10 * MAX_IMAGE_PIXELS  # of a JPEG, once for each scan, of which a progressive one has 10
MAX_UNPACKED = 2**28  # bytes of a tar archive; CIFAR-10's has 186 million
MAX_MEMBERS = 1_000  # of a tar archive; CIFAR-10's has 9
MAX_PICKLE_FILE = 2**31  # bytes; a batch of ImageNet 64x64 has 1.6 billion
MAX_PICKLE_OPERATIONS = 2_000_000  # of a data set; a batch of ImageNet has 400,000
MAX_MEASURED = 2**28  # bytes of the arrays of a measurement; of 50,000 images they have 4 million for each term
FREELY_UNPACKED = 2**26  # bytes of an array of npz, however well it is compressed; MNIST's have 47 million
MAX_COMPRESSION = 250  # unpacked bytes for each of a file of npz above that; photographs take 1 to 3, plain shapes 100

# Of checkpoints.
MAX_VALUES = 200_000  # containers, numbers, names and tensors; a U-Net with its optimizer's state has about 10,000
MAX_OPERATIONS = 1_000_000  # of a pickle; a tensor takes about 40, a module of EDM's pickles 150
MAX_DEPTH = 100  # containers within containers; EDM's modules take about 20
MAX_DIMENSIONS = 32


class TooMuch(Exception):
    """Says what a file asks for beyond a limit, in words that follow its name."""


def check_at_most(limit: int, found: int, what: str) -> None:
    """Raises TooMuch if `found`, a number of `what`, is above the limit."""
    if found > limit:
        raise TooMuch(f"it asks for {found:,} {what}, and vdmkit reads at most {limit:,}")


def check_depth(value: Any) -> None:
    """Raises TooMuch for more levels in JSON than vdmkit writes: Python's recursion ends at other depths each time."""
    level, depth = [value], 0
    while level:
        check_at_most(MAX_DEPTH, depth, "levels of lists within lists")
        parts = (one.values() if isinstance(one, dict) else one for one in level if isinstance(one, dict | list))
        level, depth = [part for of_one in parts for part in of_one], depth + 1


def read_at_most(path: Path, limit: int) -> bytes:
    """Returns the contents of a file. Raises TooMuch if it is larger, as a sparse file may be."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        check_at_most(limit, size, "bytes")
        return file.read(size)  # not `limit`: Python takes the memory before it reads


class Metered:
    """A stream of which at most `limit` bytes can be read, however few bytes it is made from."""

    def __init__(self, stream: Any, limit: int) -> None:
        self._stream, self._limit, self._read = stream, limit, 0

    def read(self, n: int) -> bytes:
        """Returns at most n bytes. Raises TooMuch beyond the limit."""
        data = self._stream.read(n)
        self._read += len(data)
        check_at_most(self._limit, self._read, "bytes when it is unpacked")
        return data
