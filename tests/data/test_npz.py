# SPDX-License-Identifier: Apache-2.0
"""Arrays in .npz files."""

from pathlib import Path

import numpy as np
import pytest

from vdmkit.data import Npz
from vdmkit.errors import DataError

GREY = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)


def _save(tmp_path: Path, **arrays: np.ndarray) -> str:
    np.savez(tmp_path / "made.npz", **arrays)
    return str(tmp_path / "made.npz")


def test_arrays_are_read_as_they_are(tmp_path: Path) -> None:
    """Pixels are unchanged, and grey images get a channel axis."""
    colour = np.stack([GREY, GREY + 1, GREY + 2], axis=-1)
    path = _save(tmp_path, a=colour, b=colour[:1], train=GREY, test=GREY[1:])
    source = Npz(path=path, train="a", test="b", levels=30)
    np.testing.assert_array_equal(source.load("train").pixels, colour)
    np.testing.assert_array_equal(source.load("test").pixels, colour[:1])
    assert (source.shape, source.levels, source.load("train").levels) == ((4, 3, 3), 30, 30)
    np.testing.assert_array_equal(Npz(path=path).load("test").pixels, GREY[1:, ..., None])
    assert str(Npz(path=path).load("test").identity).startswith("made/test, 1 images, not the published data set")


@pytest.mark.parametrize(
    ("train", "message"),
    [
        (GREY.astype(np.int64), "'train' is int64"),
        (GREY.astype(np.float32), "'train' is float32"),
        (GREY[0], r"uint8 of shape \(4, 3\), expected uint8"),
        (GREY[:0], "no images"),
        (np.array([{}], object), "'train' cannot be read"),
        (GREY + 240, "a pixel is 255, expected 0..249"),
    ],
)
def test_other_arrays_are_refused(train: np.ndarray, message: str, tmp_path: Path) -> None:
    """Floats, object arrays and values outside of the levels are refused."""
    if train.dtype == np.uint8 and train.size and train.max() > 200:
        train = np.maximum(train, 255)
    with pytest.raises(DataError, match=message):
        Npz(path=_save(tmp_path, train=train, test=GREY), levels=250).load("train")


def test_labels(tmp_path: Path) -> None:
    """Labels of another number, outside of the classes or undeclared are refused."""
    arrays = {"train": GREY, "test": GREY[1:], "train_labels": np.array([2, 0], np.uint8), "test_labels": np.array([1])}
    source = Npz(path=_save(tmp_path, **arrays), classes=3)
    assert source.classes == 3
    np.testing.assert_array_equal(source.load("train").labels, [2, 0])
    np.testing.assert_array_equal(source.load("test").labels, [1])
    assert Npz(path=str(source.path)).load("train").labels is None
    for wrong in ([2, 3], [-1, 0], [0.0, 1.0], [[0], [1]], [0, 1, 2]):
        path = _save(tmp_path, **arrays | {"train_labels": np.array(wrong)})
        with pytest.raises(DataError, match=r"'train_labels' is|3 labels of 2 images"):
            Npz(path=path, classes=3).load("train")
    with pytest.raises(DataError, match="no array 'train_labels'"):
        Npz(path=_save(tmp_path, train=GREY, test=GREY), classes=3).load("train")


def test_missing_arrays_and_files_are_named(tmp_path: Path) -> None:
    """The message lists the arrays in the file."""
    with pytest.raises(DataError, match=r"no array 'test' \(arrays in it: train\)"):
        Npz(path=_save(tmp_path, train=GREY)).load("test")
    with pytest.raises(DataError, match=r"nowhere\.npz: no such file"):
        Npz(path=str(tmp_path / "nowhere.npz")).load("train")


def test_splits_of_two_shapes_are_refused(tmp_path: Path) -> None:
    """Both splits must have one shape."""
    with pytest.raises(DataError, match=r"'test' has images of shape \(3, 4, 1\), expected \(4, 3, 1\)"):
        Npz(path=_save(tmp_path, train=GREY, test=GREY.reshape(2, 3, 4))).load("test")


def test_damaged_files_are_one_clear_error(tmp_path: Path) -> None:
    """A truncated file, or one that is not .npz, raises DataError."""
    path = Path(_save(tmp_path, train=GREY))
    whole = path.read_bytes()
    np.save(tmp_path / "single.npy", GREY)
    for data in [whole[:-10], whole[:50], b"", b"text", (tmp_path / "single.npy").read_bytes()]:
        path.write_bytes(data)
        with pytest.raises(DataError, match=r"made.npz: not a .npz file, or a truncated one"):
            Npz(path=str(path)).load("train")
    path.write_bytes(whole.replace(GREY.tobytes(), bytes(GREY.size)))
    with pytest.raises(DataError, match=r"made.npz: array 'train' cannot be read \(Bad CRC-32"):
        Npz(path=str(path)).load("train")
