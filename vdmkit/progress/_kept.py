# SPDX-License-Identifier: Apache-2.0
"""Parts of a long measurement, stored on disk until it ends."""

import os
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vdmkit.io import read_measured, whole_file

_NUMBER = "number_of_part"


@dataclass(frozen=True)
class Kept:
    """The parts of a measurement, in a folder named by a fingerprint of everything that the numbers depend on."""

    folder: Path

    def read(self, number: int) -> dict[str, np.ndarray] | None:
        """Returns the arrays of a part by name; None if it was not measured, or its file is damaged or another's."""
        path = self.folder / f"{number}.npz"
        if not path.exists():
            return None
        try:
            arrays = read_measured(path)
            return arrays if int(arrays.pop(_NUMBER)) == number else None
        except Exception:  # of many types; the part is measured again
            return None

    def write(self, number: int, arrays: dict[str, Any]) -> None:
        """Writes a part; in a read-only folder it does nothing."""
        if os.access(self.folder.parent.parent, os.W_OK):
            numbered: dict[str, Any] = {**arrays, _NUMBER: number}
            with suppress(FileNotFoundError):  # another measurement of the run ended meanwhile, and cleared all
                self.folder.mkdir(parents=True, exist_ok=True)
                with whole_file(self.folder / f"{number}.npz") as part, part.open("wb") as file:
                    np.savez(file, **numbered)

    def numbers(self) -> list[int]:
        """Returns the numbers of the parts that were written."""
        return [int(path.stem) for path in self.folder.glob("*.npz") if path.stem.isdecimal()]

    def clear(self) -> None:
        """Deletes the parts, and those of other measurements that did not end."""
        shutil.rmtree(self.folder.parent, ignore_errors=True)
