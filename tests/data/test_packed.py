# SPDX-License-Identifier: Apache-2.0
"""Packed images: the same as those of their source, whole or refused."""

import errno
import json
from pathlib import Path

import numpy as np
import pytest

from vdmkit.conformance import check_data
from vdmkit.data._batches import batches
from vdmkit.data._copies import prints_of
from vdmkit.data._counts import level_counts
from vdmkit.data._digits import Digits
from vdmkit.data._npz import Npz
from vdmkit.data._oracle import GaussianData
from vdmkit.data._pack import pack, verify
from vdmkit.data._packed import Packed
from vdmkit.data._pixels import AbstractPixels
from vdmkit.data._source import AbstractSource, Images, identified
from vdmkit.data._statistics import statistics_of
from vdmkit.errors import DataError
from vdmkit.io import file_sha256

SMALL = 100 * 64  # bytes of a shard: 100 digits


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
    pack(Digits(), folder, shard_bytes=SMALL)
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


@pytest.mark.parametrize("file_format", ["npy", "array_record"])
def test_packed_images_are_those_of_their_source(file_format, tmp_path):
    """A number on packed images would be one on other images than it says."""
    pack(Digits(), tmp_path / "packed", file_format=file_format, shard_bytes=SMALL)
    assert len(list((tmp_path / "packed").glob(f"train-*.{file_format}"))) == 15
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
    """Training or a check on packed images would differ from that on the same images in memory."""
    packed, made = Packed(path=str(digits)).load("train"), Digits().load("train")
    np.testing.assert_array_equal(prints_of(packed), prints_of(made))
    np.testing.assert_array_equal(statistics_of(packed.pixels), statistics_of(made.pixels))
    np.testing.assert_array_equal(level_counts(packed), level_counts(made))
    ours, theirs = (batches(images, batch_size=64, seed=3) for images in (packed, made))
    for _ in range(30):
        found = next(ours)
        for name, values in next(theirs).items():
            np.testing.assert_array_equal(found[name], values)


def test_continuous_images_stay_continuous(tmp_path):
    """Packed float32 would come back as levels, or rounded."""
    source = GaussianData(levels=0, train_count=30, test_count=5)
    pack(source, tmp_path / "packed", shard_bytes=300)
    packed = Packed(path=str(tmp_path / "packed"))
    check_data(packed)
    np.testing.assert_array_equal(packed.load("test").pixels[:], source.load("test").pixels)


def test_every_shard_is_an_array_of_numpy(digits):
    """Packed images could not be used by other tools."""
    arrays = [np.load(path) for path in sorted(digits.glob("train-0*.npy"))]
    np.testing.assert_array_equal(np.concatenate(arrays), Digits().load("train").pixels)


def test_a_damaged_test_image_is_found_at_a_start(copy):
    """A likelihood of other images would be reported as that of the data set which the facts name."""
    flip(copy / "test-00002.npy", 0.5)
    with pytest.raises(DataError, match=r"test-00002.npy: its contents are not those that were written"):
        Packed(path=str(copy)).load("test")


def test_a_start_reads_no_training_image(digits, monkeypatch):
    """A start on 250 GB would take an hour."""
    hashed = []
    monkeypatch.setattr("vdmkit.data._sidecar.file_sha256", lambda path: hashed.append(path.name) or file_sha256(path))
    monkeypatch.setattr("vdmkit.data._shards.Shards.read", lambda self, numbers: pytest.fail("an image was read"))
    for split in ("train", "test"):
        images = Packed(path=str(digits)).load(split)
        assert len(prints_of(images)) == images.identity.count
    assert {name for name in hashed if name.startswith("train-")} == set()


@pytest.mark.parametrize("place", [0, 0.5, 1])
@pytest.mark.parametrize("name", ["train-00000.npy", "train-00014.npy", "test-00002.npy", "prints-train.npy"])
def test_verify_finds_one_flipped_bit(name, place, copy):
    """Damage of a disk would change a result."""
    flip(copy / name, place)
    with pytest.raises(DataError, match=f"{name}: its contents are not those that were written"):
        verify(copy)


def test_verify_finds_a_flipped_bit_of_array_record(tmp_path):
    """Damage of a compressed file would be found by chance alone."""
    pack(GaussianData(train_count=20, test_count=5), tmp_path / "packed", file_format="array_record")
    flip(tmp_path / "packed" / "train-00000.array_record", 0.9)  # in the padding, which no image needs
    with pytest.raises(DataError, match=r"train-00000.array_record: its contents"):
        verify(tmp_path / "packed")


def test_verify_says_how_many_files_are_damaged(copy):
    """A user would put one file back, and find the next."""
    for name in ("train-00003.npy", "test-00001.npy"):
        flip(copy / name, 0.7)
    with pytest.raises(DataError, match=r"train-00003.* 2 of 22 files are damaged"):
        verify(copy)


def test_changed_facts_are_refused(copy):
    """A name or a hash that somebody edited would be believed."""
    facts = json.loads((copy / "data.json").read_text())
    facts["train"]["identity"]["published"] = "CIFAR-10"
    (copy / "data.json").write_text(json.dumps(facts))
    with pytest.raises(DataError, match=r"data.json: damaged \(the facts are not those that were written\)"):
        Packed(path=str(copy)).load("test")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: path.unlink(), "no such file"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "bytes, expected 6,528"),
    ],
)
def test_a_start_finds_files_that_are_missing_or_cut(spoil, message, copy):
    """A run would end after hours, when it first needs an image of this file."""
    spoil(copy / "train-00007.npy")
    source = Packed(path=str(copy))
    for start in (source.locate, lambda: source.load("train")):
        with pytest.raises(DataError, match=rf"train-00007.npy: .*{message}"):
            start()
    source.load("test")


def test_a_file_that_is_cut_later_is_refused_when_it_is_read(copy):
    """Training would go on with images of nothing."""
    images = Packed(path=str(copy)).load("train")
    with (copy / "train-00000.npy").open("r+b") as file:
        file.truncate(200)
    images.pixels[0]
    with pytest.raises(DataError, match=r"train-00000.npy: ends too soon. .*vdmkit data verify"):
        images.pixels[99]


@pytest.mark.parametrize("most", [250, 1600, 1797 + 700])  # in the first split, in the second, in reading back
def test_an_interrupted_pack_continues(most, digits, tmp_path):
    """Hours of packing would be lost, or images be missing or doubled."""
    folder = tmp_path / "packed"
    with pytest.raises(KeyboardInterrupt):
        pack(Digits(), folder, shard_bytes=SMALL, progress=_Meter(most))
    with pytest.raises(DataError, match="if it was interrupted, run it again"):
        Packed(path=str(folder)).load("test")
    done = {path.name: path.stat().st_mtime_ns for path in folder.glob("t*-0*")}
    (folder / ".train-00003.npy.0.part").write_bytes(b"of a killed process")
    pack(Digits(), folder, shard_bytes=SMALL)
    kept = [name for name, time in done.items() if (folder / name).stat().st_mtime_ns == time]
    assert len(kept) == len(done) > 1
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        path.name: path.read_bytes() for path in digits.iterdir()
    }


def test_a_finished_file_that_was_damaged_is_written_anew(digits, tmp_path):
    """A power failure during the first call would leave damage in the second's result."""
    folder = tmp_path / "packed"
    with pytest.raises(KeyboardInterrupt):
        pack(Digits(), folder, shard_bytes=SMALL, progress=_Meter(250))
    flip(folder / "train-00001.npy", 0.5)
    pack(Digits(), folder, shard_bytes=SMALL)
    assert (folder / "train-00001.npy").read_bytes() == (digits / "train-00001.npy").read_bytes()
    verify(folder)


def test_packing_again_changes_nothing(copy):
    """A repeated command would write 250 GB again."""
    before = {path.name: path.stat().st_mtime_ns for path in copy.iterdir()}
    assert pack(Digits(), copy, shard_bytes=SMALL) == pack(Digits(), copy)
    assert {path.name: path.stat().st_mtime_ns for path in copy.iterdir()} == before


def test_other_images_are_not_mixed_in(copy, tmp_path):
    """Files of two data sets would make one."""
    with pytest.raises(DataError, match="holds other packed images"):
        pack(Digits(validation=True), copy)
    with pytest.raises(KeyboardInterrupt):
        pack(Digits(), tmp_path / "begun", shard_bytes=SMALL, progress=_Meter(250))
    for source, size in ((Digits(validation=True), SMALL), (Digits(), 2 * SMALL)):
        with pytest.raises(DataError, match="begun with other images, format or size of files"):
            pack(source, tmp_path / "begun", shard_bytes=size)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    with pytest.raises(DataError, match="not empty, and not a packed data set"):
        pack(Digits(), tmp_path / "mine")


class _Changing(AbstractSource):
    """Other images at every read."""

    shape, levels = (2, 2, 1), 5

    def load(self, split):
        class Pixels(AbstractPixels):
            shape, dtype = (8, 2, 2, 1), np.dtype(np.uint8)

            def read(self, numbers):
                return np.random.default_rng().integers(0, 5, (len(numbers), 2, 2, 1)).astype(np.uint8)

        return identified(Pixels(), 5, name="mine", split=split)


def test_a_source_that_changes_is_refused(tmp_path):
    """The identity of packed images would be that of others."""
    with pytest.raises(DataError, match="The source changes between two reads"):
        pack(_Changing(), tmp_path / "packed")


class _Broken(AbstractPixels):
    """Images that can be read a few times."""

    shape, dtype = (8, 2, 2, 1), np.dtype(np.uint8)
    left = 3

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
    """A user would look for a fault of the disk that is written, and not of the one that is read."""
    with pytest.raises(DataError, match=r"^images 0 to 7 cannot be read\. .*test_packed\.py:\d+\): Input/output error"):
        pack(_OnABrokenDisk(), tmp_path / "packed")


def test_a_folder_that_is_not_packed_is_named(tmp_path):
    """A user would not be told what makes such a folder."""
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(DataError, match=r"Set data.path to a folder that `vdmkit data pack` made"):
            Packed(path=str(path)).locate()


def test_small_images_have_hashes_alone(tmp_path):
    """A packed set of small images could not be loaded."""
    pixels = np.arange(24, dtype=np.uint8).reshape(6, 2, 2, 1)
    np.savez(tmp_path / "a.npz", train=pixels, test=pixels[:2])
    source = Npz(path=str(tmp_path / "a.npz"))
    pack(source, tmp_path / "packed")
    found, made = (one.load("train") for one in (Packed(path=str(tmp_path / "packed")), source))
    assert isinstance(made, Images)
    np.testing.assert_array_equal(prints_of(found), prints_of(made))
