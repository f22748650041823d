# SPDX-License-Identifier: Apache-2.0
"""Numpy's .npz files: a zip file with a .npy file for each array."""

import io

import numpy as np
from jaxtyping import Shaped

from vdmkit.importers.files._limits import Malformed, product, shown
from vdmkit.importers.files._zip import Archive


def read_npz(archive: Archive) -> dict[str, Shaped[np.ndarray, "..."]]:
    """Returns the arrays by their names."""
    return {name.removesuffix(".npy"): _array(archive, name) for name in archive.names}


def _array(archive: Archive, name: str) -> Shaped[np.ndarray, "..."]:
    data = archive.read(name)
    head = io.BytesIO(data[:20_000].tobytes())
    version = np.lib.format.read_magic(head)
    if version not in ((1, 0), (2, 0)):
        raise Malformed(f"array {shown(name)} is of a version of numpy's format that is not read")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(head)
    if dtype.kind not in "biuf":
        raise Malformed(f"array {shown(name)} holds {dtype}, not numbers")
    if product(shape) * dtype.itemsize != len(data) - head.tell():
        raise Malformed(f"array {shown(name)} does not have the {product(shape):,} numbers of its shape")
    array = np.frombuffer(data[head.tell() :], dtype).reshape(shape, order="F" if fortran else "C")
    return array.astype(dtype.newbyteorder("="), copy=False)
