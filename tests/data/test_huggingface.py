# SPDX-License-Identifier: Apache-2.0
"""Local data sets in the form of the Hugging Face hub."""

import io
import logging
from pathlib import Path

import datasets
import numpy as np
import pytest
from PIL import Image

from vdmkit.conformance import check_data
from vdmkit.data import AbstractPixels, HuggingFace, huggingface
from vdmkit.data.identity import fingerprints_of, level_counts
from vdmkit.data.packed import pack, verify
from vdmkit.errors import DataError

PIXELS = np.random.default_rng(0).integers(0, 256, (12, 4, 6, 3)).astype(np.uint8)
LABELS = np.arange(12) % 3


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch) -> None:
    """No test reads or writes the user's cache of data sets."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "hf")
    huggingface._load.cache_clear()


def png(pixels: np.ndarray) -> dict[str, bytes | None]:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return {"bytes": file.getvalue(), "path": None}


def write(path: Path, pixels: np.ndarray, labels: np.ndarray, **others: list) -> Path:
    """Write a Parquet file with a column of PNG files and one of classes."""
    kinds = {"image": datasets.Image(decode=False), "label": datasets.ClassLabel(names=["a", "b", "c"])}
    rows = {"image": [png(one) for one in pixels], "label": labels.tolist()} | others
    features = datasets.Features(kinds | {name: datasets.Value("string") for name in others})
    made = datasets.Dataset.from_dict(rows, features).cast_column("image", datasets.Image())
    datasets.disable_progress_bars()
    made.to_parquet(str(path))
    return path


@pytest.fixture
def folder(tmp_path) -> Path:
    """A folder with a Parquet file for each split."""
    (tmp_path / "mine").mkdir()
    write(tmp_path / "mine" / "train-00000.parquet", PIXELS[:8], LABELS[:8])
    write(tmp_path / "mine" / "test-00000.parquet", PIXELS[8:], LABELS[8:])
    return tmp_path / "mine"


def test_images_and_labels_are_those_of_the_columns(folder):
    """Pixels and labels are those of the data set's columns."""
    source = HuggingFace(path=str(folder), label="label")
    assert (source.shape, source.levels, source.classes, source.locate()) == ((4, 6, 3), 256, 3, "")
    check_data(source)
    train, test = source.load("train"), source.load("test")
    assert isinstance(train.pixels, AbstractPixels)
    np.testing.assert_array_equal(train.pixels[[5, 0, 5]], PIXELS[[5, 0, 5]])
    np.testing.assert_array_equal(test.pixels[:], PIXELS[8:])
    np.testing.assert_array_equal(test.labels, LABELS[8:])
    assert str(test.identity).startswith("mine/test, 4 images, not the published data set")
    assert HuggingFace(path=str(folder)).load("test").labels is None
    np.testing.assert_array_equal(level_counts(train).sum(-1), 8)


def test_one_file_is_split_by_the_recipe(tmp_path):
    """A data set without a test split is divided by slices."""
    path = write(tmp_path / "all.parquet", PIXELS, LABELS)
    source = HuggingFace(path=str(path), train="train[:75%]", test="train[75%:]", label="label")
    check_data(source)
    np.testing.assert_array_equal(source.load("test").pixels[:], PIXELS[9:])
    assert source.load("test").identity.name == "all[train[75%:]]"


def test_what_is_on_this_disk_asks_nothing_of_the_network(folder, tmp_path, monkeypatch):
    """Local files are read without any network access."""
    monkeypatch.setattr("socket.getaddrinfo", lambda host, *_, **__: pytest.fail(f"{host} was asked"))
    HuggingFace(path=str(write(tmp_path / "own.parquet", PIXELS, LABELS)), test="train").load("test")
    HuggingFace(path=str(folder)).load("test")


def test_a_folder_of_image_files_is_read(tmp_path):
    """Folders of image files are read, too."""
    for i, pixels in enumerate(PIXELS):
        path = tmp_path / "mine" / ("train" if i < 8 else "test") / f"{i:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    np.testing.assert_array_equal(HuggingFace(path=str(tmp_path / "mine")).load("test").pixels[:], PIXELS[8:])


def test_a_second_start_reads_no_image(folder, monkeypatch):
    """A second start takes identity and fingerprints from the cache folder."""
    first = HuggingFace(path=str(folder)).load("train")
    monkeypatch.setattr(huggingface, "scan", lambda *_: pytest.fail("the images were read again"))
    again = HuggingFace(path=str(folder)).load("train")
    assert again.identity == first.identity
    np.testing.assert_array_equal(fingerprints_of(again), fingerprints_of(first))


def test_changed_images_have_another_identity(folder):
    """The cached identity is not used for changed images."""
    before = HuggingFace(path=str(folder)).load("test").identity
    write(folder / "test-00000.parquet", PIXELS[:4], LABELS[:4])
    huggingface._load.cache_clear()
    assert HuggingFace(path=str(folder)).load("test").identity != before


def test_they_can_be_packed(folder, tmp_path):
    """Packed images have the identity of the hub's."""
    source = HuggingFace(path=str(folder), label="label")
    assert pack(source, tmp_path / "packed").train == source.load("train").identity
    verify(tmp_path / "packed")


@pytest.mark.parametrize("missing", [0, 1])
def test_a_row_without_an_image_is_named(missing, tmp_path):
    """An empty cell raises DataError with its number."""
    rows = {"image": [png(one) for one in PIXELS[:2]]}
    rows["image"][missing] = None
    datasets.Dataset.from_dict(rows, datasets.Features({"image": datasets.Image()})).to_parquet(
        str(tmp_path / "a.parquet")
    )
    with pytest.raises(DataError, match=rf"a\.parquet.*, image {missing}: missing"):
        HuggingFace(path=str(tmp_path / "a.parquet")).load("train")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image": "img"}, "no column 'img', only image, label"),
        ({"image": "label"}, "column 'label' is ClassLabel.*, and not of images"),
        ({"train": "validation"}, "split 'validation': cannot be loaded"),
        ({"shape": (4, 4, 3)}, r"image 0: 6x4, RGB; expected 4x4, 8-bit RGB"),
    ],
)
def test_what_does_not_fit_is_refused(options, message, folder):
    """The message names the key or the image that does not fit."""
    with pytest.raises(DataError, match=message):
        HuggingFace(path=str(folder), **options).load("train")


def test_a_label_that_is_no_class_is_refused(tmp_path):
    """Label columns of strings are refused."""
    path = write(tmp_path / "a.parquet", PIXELS, LABELS, word=["x"] * 12)
    with pytest.raises(DataError, match=r"column 'word' is not of classes 0, 1"):
        HuggingFace(path=str(path), label="word").load("train")


def test_without_the_package_it_says_what_to_install(monkeypatch):
    """The message names the extra to install."""
    monkeypatch.setattr(huggingface, "find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"package datasets, which is not installed. .*--extra huggingface"):
        HuggingFace(path="mine").locate()


def test_retries_of_the_hub_are_not_shown(monkeypatch, caplog):
    """Warnings about retries are not logged before the message."""

    def offline(*_, **__):
        logging.getLogger("huggingface_hub.utils._http").warning("Retrying in 1s")
        raise OSError("Name or service not known")

    monkeypatch.setattr("datasets.load_dataset", offline)
    with pytest.raises(DataError, match=r"cannot be loaded \(Name or service not known\)"):
        HuggingFace(path="nobody/nothing").load("train")
    assert caplog.text == ""


def test_a_format_is_no_data_set(tmp_path, monkeypatch):
    """`path = "pandas"` in a recipe reads no pickles of the working folder."""
    monkeypatch.chdir(tmp_path)
    Path("train.pkl").write_bytes(b"cos\nsystem\n(S'touch executed'\ntR.")
    with pytest.raises(DataError, match=r"pandas: a format .* \./pandas"):
        HuggingFace(path="pandas").load("train")
    assert not Path("executed").exists()


def test_a_folder_with_the_name_of_a_format_is_read(folder, monkeypatch):
    """`./text` is the folder of that name, not the format `text`."""
    folder.rename(folder.with_name("text"))
    monkeypatch.chdir(folder.parent)
    assert len(HuggingFace(path="./text", label="label").load("test").pixels) > 0
