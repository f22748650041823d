# SPDX-License-Identifier: Apache-2.0
"""Images packed by `vdmkit data pack`, of any number: they are read from disk when they are needed."""

import functools
from pathlib import Path

import numpy as np

from vdmkit.data._copies import may_be_prints
from vdmkit.data._sidecar import Sidecar, StoredFile, read_sidecar
from vdmkit.data._source import AbstractSource, Images, Split
from vdmkit.errors import DataError
from vdmkit.registry import register

_ADVICE = "Put the file back, or pack the images again."


@register("data", "packed")
class Packed(AbstractSource):
    """Images packed by `vdmkit data pack`, read from disk when they are needed, so that their number needs no memory.

    A start checks that all files are there with their sizes, and the SHA-256 of those with test images, because numbers
    are computed on them; `vdmkit data verify` reads all of them.

    Args:
        path: The folder.
    """

    def __init__(self, *, path: str) -> None:
        self.path = Path(path).expanduser()

    @functools.cached_property
    def sidecar(self) -> Sidecar:
        """Returns what was recorded when the images were packed."""
        return read_sidecar(self.path)

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.sidecar.shape

    @property
    def levels(self) -> int:
        return self.sidecar.levels

    @property
    def classes(self) -> int:
        return self.sidecar.classes

    def locate(self) -> str:
        for file in self.sidecar.files:
            self._check(file)
        return ""

    def load(self, split: Split) -> Images:
        found = self.sidecar.of(split)
        for file in found.shards:
            self._check(file, whole=split == "test")
        prints = self._array(found.prints)
        if not may_be_prints(prints, found.identity.count, int(np.prod(self.shape))):
            raise DataError(f"{self.path / found.prints.name}: not of these images. {_ADVICE}")
        labels = self._array(found.labels) if found.labels else None
        return Images(self.sidecar.pixels(self.path, split), self.levels, found.identity, labels, prints)

    def _check(self, file: StoredFile, *, whole: bool = False) -> None:
        if problem := file.problem(self.path, whole=whole):
            raise DataError(f"{problem}. {_ADVICE}")

    def _array(self, file: StoredFile) -> np.ndarray:
        """Reads a file with something about each image, which is small, so it is checked as a whole."""
        self._check(file, whole=True)
        return np.load(self.path / file.name)
