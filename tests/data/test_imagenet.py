# SPDX-License-Identifier: Apache-2.0
"""The two releases of down-sampled ImageNet, on made-up files of their forms."""

import pickle

import numpy as np
import pytest
from PIL import Image

from vdmkit.data import ImageNetNew, ImageNetOld, imagenet
from vdmkit.errors import DataError

IMAGES = np.random.default_rng(0).integers(0, 256, (22, 32, 32, 3)).astype(np.uint8)


@pytest.fixture(autouse=True)
def few(monkeypatch):
    """Releases of 4 and 3 test images, and of 21 and 20 training images."""
    counts = {"old": {"train": 21, "test": 3}, "new": {"train": 20, "test": 4}}
    monkeypatch.setattr(imagenet, "_COUNTS", counts)


def new(folder, train: int = 20, test: int = 4) -> ImageNetNew:
    """Batches as they are published, with labels and a mean image of floats beside the pixels."""
    rows = IMAGES.transpose(0, 3, 1, 2).reshape(22, -1)
    for i, part in enumerate(np.array_split(rows[:train], 10), 1):
        table = {"data": part, "labels": [1] * len(part), "mean": rows.mean(0)}
        (folder / f"train_data_batch_{i}").write_bytes(pickle.dumps(table, protocol=2))
    (folder / "val_data").write_bytes(pickle.dumps({"data": rows[-test:], "labels": [1] * test}, protocol=2))
    return ImageNetNew(path=str(folder))


def old(folder, train: int = 21, test: int = 3) -> ImageNetOld:
    for name, count in (("train", train), ("valid", test)):
        (folder / name).mkdir()
        for i, image in enumerate(IMAGES[-count:]):
            Image.fromarray(image).save(folder / name / f"{i:05}.png")
    return ImageNetOld(train=str(folder / "train"), test=str(folder / "valid"))


def test_the_new_release_is_read_and_named(tmp_path) -> None:
    """Planes, the order of batches and the name of the release are right."""
    source = new(tmp_path)
    np.testing.assert_array_equal(source.load("train").pixels, IMAGES[:20])
    np.testing.assert_array_equal(source.load("test").pixels, IMAGES[-4:])
    identity = source.load("test").identity
    assert identity.name == "imagenet32_new"
    assert identity.published == "ImageNet 32x32, new release (Chrabaszcz et al. 2017)"


def test_the_old_release_is_read_and_named(tmp_path, monkeypatch) -> None:
    """The identity names the old release."""
    monkeypatch.setenv("VDMKIT_CACHE", str(tmp_path / "cache"))
    source = old(tmp_path)
    np.testing.assert_array_equal(source.load("test").pixels, IMAGES[-3:])
    identity = source.load("test").identity
    assert identity.name == "imagenet32_old"
    assert identity.published == "ImageNet 32x32, old release (van den Oord et al. 2016)"


def test_a_part_is_not_the_published_data(tmp_path) -> None:
    """Some of the images are not identified as the published set."""
    assert new(tmp_path, test=2).load("test").identity.published is None


def test_one_release_is_refused_as_the_other(tmp_path, monkeypatch) -> None:
    """The two releases, with 3.43 and 3.69 bits/dim, are not confused."""
    monkeypatch.setenv("VDMKIT_CACHE", str(tmp_path / "cache"))
    with pytest.raises(DataError, match=r"4 images are the new release .* use data imagenet_new"):
        old(tmp_path, test=4).load("test")
    with pytest.raises(DataError, match=r"3 images are the old release .* use data imagenet_old"):
        new(tmp_path, test=3).load("test")


def test_other_files_are_refused(tmp_path) -> None:
    """A missing batch, or one of another size, raises DataError."""
    with pytest.raises(DataError, match=r"val_data: no such file\. .* PNG files are the old release"):
        ImageNetNew(path=str(tmp_path)).load("test")
    new(tmp_path)
    with pytest.raises(DataError, match=r"array of shape \(4, 3072\), expected \(n, 12288\). Set data.size"):
        ImageNetNew(path=str(tmp_path), size=64).load("test")
