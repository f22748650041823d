# SPDX-License-Identifier: Apache-2.0
"""Downsampled ImageNet. Its two releases differ, and figures on one are not comparable with figures on the other."""

from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import UInt8

from vdmkit.data.cifar10 import array_in, read_pickle, read_whole
from vdmkit.data.folder import Folder
from vdmkit.data.sources import AbstractSource, Images, Pixels, Split, identified
from vdmkit.errors import DataError
from vdmkit.io import not_a_file
from vdmkit.registry import register

Size = Literal[32, 64]
Release = Literal["old", "new"]
_COUNTS: dict[Release, dict[Split, int]] = {
    "old": {"train": 1_281_149, "test": 49_999},
    "new": {"train": 1_281_167, "test": 50_000},
}
_PAPERS = {"old": "van den Oord et al. 2016", "new": "Chrabaszcz et al. 2017"}
_FILES: dict[Split, list[str]] = {"train": [f"train_data_batch_{i}" for i in range(1, 11)], "test": ["val_data"]}


@register("data", "imagenet_old")
class ImageNetOld(AbstractSource):
    """ImageNet 32x32 or 64x64, the old release (van den Oord et al. 2016): PNG files, 49,999 test images.

    Kingma et al. 2021 and Song et al. 2021 report figures on it.

    Args:
        train: The folder train_32x32 or train_64x64.
        test: The folder valid_32x32 or valid_64x64.
        size: Height and width.
    """

    def __init__(self, *, train: str, test: str, size: Size = 32) -> None:
        self.size: Size = size
        self.files = Folder(train=train, test=test, shape=(size, size, 3))

    @property
    def shape(self) -> tuple[int, int, int]:
        return (self.size, self.size, 3)

    @property
    def levels(self) -> int:
        return 256

    def locate(self) -> str:
        return self.files.locate()

    def load(self, split: Split) -> Images:
        return _identified(self.files.load(split).pixels, "old", self.size, split, self.files.folders[split])


@register("data", "imagenet_new")
class ImageNetNew(AbstractSource):
    """ImageNet 32x32 or 64x64, the new release (Chrabaszcz et al. 2017) with other downsampling: 50,000 test images.

    Args:
        path: The folder with train_data_batch_1, ..., train_data_batch_10 and val_data.
        size: Height and width.
    """

    def __init__(self, *, path: str, size: Size = 32) -> None:
        self.path = Path(path).expanduser()
        self.size: Size = size

    @property
    def shape(self) -> tuple[int, int, int]:
        return (self.size, self.size, 3)

    @property
    def levels(self) -> int:
        return 256

    def locate(self) -> str:
        for name in (*_FILES["train"], *_FILES["test"]):
            _check_readable(self.path / name)
        return ""

    def load(self, split: Split) -> Images:
        pixels = np.concatenate([self._pixels(self.path / name) for name in _FILES[split]])
        return _identified(pixels, "new", self.size, split, self.path)

    def _pixels(self, path: Path) -> UInt8[np.ndarray, "n h w 3"]:
        _check_readable(path)
        data = read_whole(path)
        rows, size = array_in(read_pickle(data, str(path)), b"data", str(path)), self.size
        if rows.ndim != 2 or rows.shape[1] != 3 * size * size:
            raise DataError(f"{path}: array of shape {rows.shape}, expected (n, {3 * size * size}). Set data.size.")
        return rows.reshape(-1, 3, size, size).transpose(0, 2, 3, 1)  # a row holds the R, G and B planes


def _check_readable(path: Path) -> None:
    if reason := not_a_file(path):
        raise DataError(
            f"{path}: {reason}. Set data.path to the folder of {', '.join(_FILES['test'])} and the "
            "training batches; PNG files are the old release, data imagenet_old."
        )
    path.open("rb").close()


def _identified(pixels: Pixels, release: Release, size: Size, split: Split, where: Path) -> Images:
    """Identifies the release by its number of images, because neither publishes hashes."""
    other: Release = "new" if release == "old" else "old"
    if len(pixels) == _COUNTS[other][split]:
        raise DataError(
            f"{where}: {len(pixels):,} images are the {other} release ({_PAPERS[other]}), and data imagenet_{release} "
            f"is the {release} one. They are not comparable: use data imagenet_{other}, or the other files."
        )
    whole = len(pixels) == _COUNTS[release][split]
    published = f"ImageNet {size}x{size}, {release} release ({_PAPERS[release]})" if whole else None
    return identified(pixels, 256, name=f"imagenet{size}_{release}", split=split, published=published)
