# SPDX-License-Identifier: Apache-2.0
"""Small data sets made on the spot, in the formats of the real ones."""

import io
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from vdmkit.data import Images
from vdmkit.data.sources import identified

Write = Callable[[dict[str, bytes]], Path]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test reads or writes the user's cache, or sends requests to this machine through a proxy."""
    monkeypatch.setenv("VDMKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return tmp_path / "cache"


@pytest.fixture
def images() -> Images:
    """Ten 4x4 RGB images, no two pixels of an image equal, image number i in the top bits."""
    image, place = np.ogrid[:10, :48]
    pixels = (place + 16 * image).astype(np.uint8).reshape(10, 4, 4, 3)
    return identified(pixels, 256, name="made", split="train")


@pytest.fixture
def rows() -> dict[str, np.ndarray]:
    """CIFAR rows by batch file, a different number in each: a batch need not hold 10,000."""
    rng = np.random.default_rng(0)
    names = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
    return {name: rng.integers(0, 256, (2 + i, 3072)).astype(np.uint8) for i, name in enumerate(names)}


@pytest.fixture
def files(rows: dict[str, np.ndarray]) -> dict[str, bytes]:
    """The batch files as Python 3 writes them in the canonical protocol, 2."""
    return {
        name: pickle.dumps({b"batch_label": b"x", b"data": data, b"labels": [3] * len(data)}, protocol=2)
        for name, data in rows.items()
    }


@pytest.fixture
def write_archive(tmp_path: Path) -> Write:
    """Write files into a .tar.gz in the order given, under the canonical folder."""

    def write(files: dict[str, bytes]) -> Path:
        path = tmp_path / "cifar-10-python.tar.gz"
        with tarfile.open(path, "w:gz") as tar:
            for file, data in files.items():
                member = tarfile.TarInfo(f"cifar-10-batches-py/{file}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
        return path

    return write
