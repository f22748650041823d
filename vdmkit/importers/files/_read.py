# SPDX-License-Identifier: Apache-2.0
"""Reads any checkpoint whose format is known; the format is recognised by the file's first bytes, not by its name."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Literal

from vdmkit.errors import CheckpointError, in_one_line
from vdmkit.importers.files._diffusers import configuration, is_diffusers, weight_files
from vdmkit.importers.files._flax import read_flax
from vdmkit.importers.files._limits import Malformed
from vdmkit.importers.files._npz import read_npz
from vdmkit.importers.files._safetensors import read_safetensors
from vdmkit.importers.files._torch import MAGIC, read_edm_pickle, read_torch_legacy, read_torch_zip
from vdmkit.importers.files._zip import Archive
from vdmkit.io import not_a_file, not_a_folder

Format = Literal["torch", "torch before 1.6", "pickle", "safetensors", "flax", "npz", "diffusers"]

_KNOWN = "torch (zip or older), EDM's pickles, safetensors, Flax's msgpack, npz and diffusers' folders"


@dataclass(frozen=True)
class Content:
    """What a checkpoint holds.

    Attributes:
        path: The file, or diffusers' folder.
        format: How it was written.
        tree: Nested dicts, lists and tuples of NumPy arrays, numbers and text, and EDM's `PersistentObject`.
        config: The JSON beside the weights, in diffusers' folders.
    """

    path: Path
    format: Format
    tree: Any
    config: dict[str, Any] = field(default_factory=dict)


def read_checkpoint(path: Path) -> Content:
    """Reads a checkpoint of another codebase. Nothing in it is executed, and nothing is written.

    In memory are at most the numbers of the file, once, and the largest array a second time.

    Raises:
        CheckpointError: it is missing, truncated, damaged, of an unknown format, or asks for more than numbers.
    """
    if not not_a_folder(path):
        return _read_folder(path)
    if reason := not_a_file(path):
        raise CheckpointError(f"{path}: {reason}. Formats that are read: {_KNOWN}.")
    try:
        with path.open("rb") as file:
            return Content(path, *_read_file(file, os.fstat(file.fileno()).st_size))
    except _Unknown:
        advice = "Give one of these, or fetch it again."
        raise CheckpointError(f"{path}: of no format that is read ({_KNOWN}), or damaged. {advice}") from None
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror}). Give a file that can.") from error
    except Exception as error:  # damaged bytes raise errors of many types
        reason = str(error) if isinstance(error, Malformed) else in_one_line(error)
        raise CheckpointError(
            f"{path}: cannot be read as a checkpoint: {reason}. Nothing in it was executed. "
            "Fetch it again, from a source that you trust."
        ) from error


class _Unknown(Exception):
    """The bytes are of no format that is read."""


def _read_file(file: BinaryIO, size: int) -> tuple[Format, Any]:
    head = file.read(16)
    file.seek(0)
    if head.startswith(b"PK"):
        return _read_zip(Archive(file, size))
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 2**40:
        return "safetensors", read_safetensors(file, size)
    if head.startswith(MAGIC):
        return "torch before 1.6", read_torch_legacy(file, size)
    if head[:1] == b"\x80" and head[1:2] in (b"\2", b"\3", b"\4", b"\5"):
        return "pickle", read_edm_pickle(file, size)
    if b"\x81" <= head[:1] <= b"\x8f" or head[:1] in (b"\xde", b"\xdf"):
        return "flax", read_flax(file, size)
    raise _Unknown


def _read_zip(archive: Archive) -> tuple[Format, Any]:
    if any(name.endswith("/data.pkl") for name in archive.names):
        return "torch", read_torch_zip(archive)
    if all(name.endswith(".npy") for name in archive.names):
        return "npz", read_npz(archive)
    raise _Unknown


def _read_folder(folder: Path) -> Content:
    if not is_diffusers(folder):
        raise CheckpointError(
            f"{folder}: {not_a_file(folder)}, or a folder of diffusers with config.json. Give one of these."
        )
    config, arrays = configuration(folder), {}
    for path in weight_files(folder):
        part = read_checkpoint(path).tree
        if not isinstance(part, dict) or arrays.keys() & part.keys():
            raise CheckpointError(f"{path}: not a part of a network's weights. Fetch the folder again.")
        arrays |= part
    return Content(folder, "diffusers", arrays, config)
