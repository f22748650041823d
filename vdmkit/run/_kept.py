# SPDX-License-Identifier: Apache-2.0
"""Parts of a long measurement, on disk until it has ended."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vdmkit.files import whole_file


@dataclass(frozen=True)
class Kept:
    """Parts of a measurement in a folder of its own, named by everything that the numbers depend on."""

    folder: Path

    def read(self, number: int) -> dict[str, np.ndarray] | None:
        """The arrays of a part by name, if it was done before."""
        path = self.folder / f"{number}.npz"
        if not path.exists():
            return None
        with np.load(path) as file:
            return {name: file[name] for name in file.files}

    def write(self, number: int, arrays: dict[str, Any]) -> None:
        """Keep a part; in a folder that may not be written nothing is kept."""
        if os.access(self.folder.parent.parent, os.W_OK):
            self.folder.mkdir(parents=True, exist_ok=True)
            with whole_file(self.folder / f"{number}.npz") as part, part.open("wb") as file:
                np.savez(file, **arrays)

    def clear(self) -> None:
        """Delete them, and those of other measurements that never ended."""
        shutil.rmtree(self.folder.parent, ignore_errors=True)
