# SPDX-License-Identifier: Apache-2.0
"""Arrays in files .npz from elsewhere, whose sizes are checked before numpy, which trusts their headers, reads them."""

import math
import zipfile
from pathlib import Path

import numpy as np

from vdmkit.foreign import FREELY_UNPACKED, MAX_COMPRESSION, MAX_MEASURED, MAX_MEMBERS, check_at_most

_SUFFIX = ".npy"


def read_measured(path: Path) -> dict[str, np.ndarray]:
    """Returns the arrays that a measurement left, by name.

    Raises exceptions of many types if the file is damaged, and TooMuch or ValueError for more than a measurement has.
    """
    with zipfile.ZipFile(path) as archive:
        stored = archive.infolist()
        check_at_most(MAX_MEMBERS, len(stored), "arrays")
        check_at_most(MAX_MEASURED, sum(one.file_size for one in stored), "bytes when it is unpacked")
        for one in stored:
            if one.filename.endswith(_SUFFIX):
                _check_claim(path, archive, one.filename)
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def check_claims(path: Path, name: str) -> None:
    """Raises TooMuch or ValueError if an array is larger than what is stored for it, or is there twice."""
    with zipfile.ZipFile(path) as archive:
        if (file := f"{name}{_SUFFIX}") in archive.namelist():
            _check_claim(path, archive, file)


def _check_claim(path: Path, archive: zipfile.ZipFile, file: str) -> None:
    if archive.namelist().count(file) > 1:
        raise ValueError("it is there twice")
    stored = archive.getinfo(file).file_size
    with archive.open(file) as entry:
        version = np.lib.format.read_magic(entry)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(entry)
        claimed = math.prod(shape) * dtype.itemsize + entry.tell()
    if claimed != stored and not dtype.hasobject:
        raise ValueError(f"its shape {shape} takes {claimed:,} bytes, and {stored:,} are there")
    check_at_most(max(FREELY_UNPACKED, MAX_COMPRESSION * path.stat().st_size), stored, "bytes when it is unpacked")
