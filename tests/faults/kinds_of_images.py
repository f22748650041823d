# SPDX-License-Identifier: Apache-2.0
"""Images read by other packages: Parquet by `datasets`, and folders by Pillow, with caches in a temporary folder."""

import io
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import datasets
import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from vdmkit.data import Folder, HuggingFace
from vdmkit.data import huggingface as reader

PICTURES = np.random.default_rng(1).integers(0, 256, (3, 6, 5, 3)).astype(np.uint8)


def picture(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def parquet() -> bytes:
    """Returns a Parquet file of images and labels as on the hub, uncompressed so that changes take effect."""
    datasets.disable_progress_bars()
    kinds = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])})
    rows = {"image": [{"bytes": picture(one), "path": None} for one in PICTURES], "label": [0, 1, 0]}
    file = io.BytesIO()
    table = datasets.Dataset.from_dict(rows, kinds).data.table.replace_schema_metadata(kinds.arrow_schema.metadata)
    pq.write_table(table, file, compression="none")
    return file.getvalue()


@contextmanager
def own_caches(folder: Path) -> Iterator[None]:
    """Redirects the caches of vdmkit and of `datasets` to a folder, and deletes them afterwards."""
    before, os.environ["VDMKIT_CACHE"] = os.environ.get("VDMKIT_CACHE", ""), str(folder / "cache")
    datasets.config.HF_DATASETS_CACHE = str(folder / "cache" / "datasets")
    reader._load.cache_clear()
    try:
        yield
    finally:
        os.environ["VDMKIT_CACHE"] = before
        shutil.rmtree(folder / "cache", ignore_errors=True)


def read_parquet(path: Path) -> None:
    with own_caches(path.parent):
        images = HuggingFace(path=str(path), test="train", label="label").load("test")
        assert images.pixels[:].dtype == np.uint8


def read_local(path: Path) -> None:
    """Reads a folder in the layout of the hub, without training images and with a given shape."""
    folder = path.parent / "local"
    folder.mkdir(exist_ok=True)
    shutil.copyfile(path, folder / "test-00000.parquet")
    with own_caches(path.parent):
        images = HuggingFace(path=str(folder), shape=(6, 5, 3)).load("test")
        assert images.pixels[:].dtype == np.uint8


def read_folder(path: Path) -> None:
    with own_caches(path.parent):
        (path.parent / "b.png").write_bytes(picture(PICTURES[0]))
        assert Folder(train=str(path.parent), test=str(path.parent)).load("train").pixels.shape[1:] == (6, 5, 3)
