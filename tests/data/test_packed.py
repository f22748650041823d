# SPDX-License-Identifier: Apache-2.0
"""Packed images: the same as those of their source, whole or refused."""

import errno
import json
from pathlib import Path

import numpy as np
import pytest

from vdmkit.conformance import check_data
from vdmkit.data import AbstractPixels, AbstractSource, Digits, GaussianData, Images, Npz, Packed
from vdmkit.data.batches import batches
from vdmkit.data.identity import fingerprints_of, level_counts, statistics_of
from vdmkit.data.packed import pack, verify
from vdmkit.data.sources import identified
from vdmkit.errors import DataError


class _Meter:
    """Interrupts when so many images are done."""

    def __init__(self, most: int):
        self.left = most

    def start(self, what, total, done):
        pass

    def advance(self, n=1, note=None):
        self.left -= n
        if self.left < 0:
            raise KeyboardInterrupt

    def stop(self):
        pass


@pytest.fixture(scope="module")
def digits(tmp_path_factory) -> Path:
    """Digits, packed. Not to be changed."""
    folder = tmp_path_factory.mktemp("packed") / "digits"
    pack(Digits(), folder)
    return folder


@pytest.fixture
def copy(digits, tmp_path) -> Path:
    """The same, to be damaged."""
    (tmp_path / "copy").mkdir()
    for file in digits.iterdir():
        (tmp_path / "copy" / file.name).write_bytes(file.read_bytes())
    return tmp_path / "copy"


def flip(path: Path, place: float) -> None:
    """Flip one bit of a file, at a share of its length."""
    data = bytearray(path.read_bytes())
    data[int(place * (len(data) - 1))] ^= 1
    path.write_bytes(data)


def test_packed_images_are_those_of_their_source(tmp_path):
    """Packed images have the pixels, order, labels and identity of their source."""
    pack(Digits(), tmp_path / "packed")
    packed = Packed(path=str(tmp_path / "packed"))
    assert (packed.shape, packed.levels, packed.classes, packed.locate()) == ((8, 8, 1), 17, 10, "")
    check_data(packed)
    for split in ("train", "test"):
        found, made = packed.load(split), Digits().load(split)
        assert isinstance(found.pixels, AbstractPixels)
        assert found.identity == made.identity
        assert found.identity.published == "scikit-learn digits"
        order = np.random.default_rng(0).permutation(len(made.pixels))
        np.testing.assert_array_equal(found.pixels[order], made.pixels[order])
        np.testing.assert_array_equal(found.labels, made.labels)
    verify(tmp_path / "packed")


def test_all_that_is_computed_of_a_set_is_the_same(digits):
    """Batches, fingerprints and statistics of packed images are those of the same images in memory."""
    packed, made = Packed(path=str(digits)).load("train"), Digits().load("train")
    np.testing.assert_array_equal(fingerprints_of(packed), fingerprints_of(made))
    np.testing.assert_array_equal(statistics_of(packed.pixels), statistics_of(made.pixels))
    np.testing.assert_array_equal(level_counts(packed), level_counts(made))
    ours, theirs = (batches(images, batch_size=64, seed=3) for images in (packed, made))
    for _ in range(30):
        found = next(ours)
        for name, values in next(theirs).items():
            np.testing.assert_array_equal(found[name], values)


def test_continuous_images_stay_continuous(tmp_path):
    """Packed float32 images are bit-equal to those of the source."""
    source = GaussianData(levels=0, train_count=30, test_count=5)
    pack(source, tmp_path / "packed")
    packed = Packed(path=str(tmp_path / "packed"))
    check_data(packed)
    np.testing.assert_array_equal(packed.load("test").pixels[:], source.load("test").pixels)


def test_a_split_is_one_array_of_numpy(digits):
    """Other tools can read packed images."""
    np.testing.assert_array_equal(np.load(digits / "train.npy"), Digits().load("train").pixels)


def test_a_damaged_test_image_is_found_at_a_start(copy):
    """Test images are hashed before a number is computed on them."""
    flip(copy / "test.npy", 0.5)
    with pytest.raises(DataError, match=r"test.npy: its contents are not those that were written"):
        Packed(path=str(copy)).load("test")


def test_a_start_reads_no_training_image(digits, monkeypatch):
    """The time of a start does not depend on the number of training images."""
    monkeypatch.setattr("vdmkit.data.packed._Stored.read", lambda self, numbers: pytest.fail("an image was read"))
    images = Packed(path=str(digits)).load("train")
    assert len(fingerprints_of(images)) == images.identity.count


@pytest.mark.parametrize("place", [0, 0.5, 1])
@pytest.mark.parametrize("name", ["train.npy", "test.npy", "fingerprints-train.npy", "labels-test.npy"])
def test_verify_finds_one_flipped_bit(name, place, copy):
    """`verify` names the file of any flipped bit."""
    flip(copy / name, place)
    with pytest.raises(DataError, match=f"{name}: (its contents are not those that were written|cannot be read)"):
        verify(copy)


def test_changed_facts_are_refused(copy):
    """Edited metadata is refused."""
    facts = json.loads((copy / "data.json").read_text())
    facts["train"]["published"] = "CIFAR-10"
    (copy / "data.json").write_text(json.dumps(facts))
    with pytest.raises(DataError, match=r"data.json: damaged \(the facts are not those that were written\)"):
        Packed(path=str(copy)).load("test")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: path.unlink(), "no such file"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "cannot be read"),
        (lambda path: path.write_bytes(path.read_bytes() + b"0"), "96,129 bytes, expected 96,128"),
        (lambda path: np.save(path, np.zeros((3, 8, 8, 1), np.uint8)), "not of these images"),
    ],
)
def test_a_start_finds_files_that_are_missing_or_cut(spoil, message, copy):
    """A start checks the presence and size of every file."""
    spoil(copy / "train.npy")
    source = Packed(path=str(copy))
    for start in (source.locate, lambda: source.load("train")):
        with pytest.raises(DataError, match=rf"train.npy: .*{message}"):
            start()
    source.load("test")


def test_a_file_that_is_cut_later_is_refused_when_it_is_read(copy):
    """Images of a truncated file raise DataError instead of ending the process."""
    images = Packed(path=str(copy)).load("train")
    with (copy / "train.npy").open("r+b") as file:
        file.truncate(200)
    with pytest.raises(DataError, match=r"train.npy: cannot be read"):
        images.pixels[99]


@pytest.mark.parametrize("most", [0, 250, 1600])
def test_an_interrupted_pack_leaves_nothing(most, tmp_path):
    """A folder of packed images is complete or absent."""
    with pytest.raises(KeyboardInterrupt):
        pack(Digits(), tmp_path / "packed", progress=_Meter(most))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_use_is_not_written(copy):
    """Neither packed images nor other files are overwritten."""
    before = {path.name: path.read_bytes() for path in copy.iterdir()}
    with pytest.raises(DataError, match=r"there already, and not an empty folder\. Choose another folder"):
        pack(Digits(), copy)
    assert {path.name: path.read_bytes() for path in copy.iterdir()} == before


class _Changing(AbstractSource):
    """Gives other images at every read."""

    shape, levels = (2, 2, 1), 5

    def load(self, split):
        class Pixels(AbstractPixels):
            shape, dtype = (8, 2, 2, 1), np.dtype(np.uint8)

            def read(self, numbers):
                return np.random.default_rng().integers(0, 5, (len(numbers), 2, 2, 1)).astype(np.uint8)

        return identified(Pixels(), 5, name="mine", split=split)


def test_a_source_that_changes_is_refused(tmp_path):
    """A source that gives other images at a second read is refused."""
    with pytest.raises(DataError, match="The source changes between two reads"):
        pack(_Changing(), tmp_path / "packed")


class _Broken(AbstractPixels):
    """Images that can be read a few times."""

    shape, dtype = (8, 2, 2, 1), np.dtype(np.uint8)
    left = 2

    def read(self, numbers):
        self.left -= 1
        if not self.left:
            raise OSError(errno.EIO, "Input/output error")
        return np.zeros((len(numbers), 2, 2, 1), np.uint8)


class _OnABrokenDisk(AbstractSource):
    shape, levels = (2, 2, 1), 5

    def load(self, split):
        return identified(_Broken(), 5, name="mine", split=split)


def test_the_source_is_blamed_for_its_errors(tmp_path):
    """An OSError while the source is read names the source, not the file being written."""
    with pytest.raises(
        DataError, match=r"^images from number 0 on cannot be read\. .*test_packed\.py:\d+\): Input/output error"
    ):
        pack(_OnABrokenDisk(), tmp_path / "packed")


def test_a_folder_that_is_not_packed_is_named(tmp_path):
    """The message says which command makes such a folder."""
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(DataError, match=r"Set data.path to a folder that `vdmkit data pack` made"):
            Packed(path=str(path)).locate()


def test_small_images_have_hashes_alone(tmp_path):
    """Images of fewer than 64 values have no thumbnails, packed or not."""
    pixels = np.arange(24, dtype=np.uint8).reshape(6, 2, 2, 1)
    np.savez(tmp_path / "a.npz", train=pixels, test=pixels[:2])
    source = Npz(path=str(tmp_path / "a.npz"))
    pack(source, tmp_path / "packed")
    found, made = (one.load("train") for one in (Packed(path=str(tmp_path / "packed")), source))
    assert isinstance(made, Images)
    np.testing.assert_array_equal(fingerprints_of(found), fingerprints_of(made))
