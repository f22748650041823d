# SPDX-License-Identifier: Apache-2.0
"""CIFAR-10 from archives made on the spot."""

import hashlib
import http.server
import pickle
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from vdmkit.data import Cifar10
from vdmkit.errors import DataError

Write = Callable[[dict[str, bytes]], Path]


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_rows_are_colour_planes_and_batches_keep_their_order(rows: dict, files: dict, write_archive: Write) -> None:
    """Pixels, channels and images have the published order."""
    backwards = dict(reversed(files.items()))
    train = Cifar10(path=str(write_archive(backwards))).load("train").pixels
    expected = np.concatenate([rows[f"data_batch_{i}"] for i in range(1, 6)])
    assert train.shape == (len(expected), 32, 32, 3)
    for image, y, x, channel in [(0, 0, 0, 0), (3, 5, 31, 1), (len(expected) - 1, 31, 2, 2)]:
        assert train[image, y, x, channel] == expected[image, 1024 * channel + 32 * y + x]
    np.testing.assert_array_equal(train.transpose(0, 3, 1, 2).reshape(-1, 3072), expected)


def test_an_extracted_folder_is_the_same_data_set(files: dict, write_archive: Write, tmp_path: Path) -> None:
    """Archive and extracted folder have the same identity."""
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    archive = Cifar10(path=str(write_archive(files)))
    for split in ("train", "test"):
        assert Cifar10(path=str(folder)).load(split).identity == archive.load(split).identity
    with pytest.raises(DataError, match="it is a folder"):
        Cifar10(path=str(folder), sha256="ab").load("test")


def test_published_set_is_known_by_its_hash(files: dict, write_archive: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the whole published set is identified as CIFAR-10."""
    path = write_archive(files)
    assert Cifar10(path=str(path)).load("test").identity.published is None
    monkeypatch.setattr("vdmkit.data.cifar10._SHA256", _sha256(path))
    assert Cifar10(path=str(path)).load("test").identity.published == "CIFAR-10"
    files["test_batch"] = pickle.dumps({b"data": np.zeros((1, 3072), np.uint8)}, protocol=2)
    assert Cifar10(path=str(write_archive(files))).load("train").identity.published is None


def test_labels_keep_the_order_of_their_images(rows: dict, files: dict, write_archive: Write) -> None:
    """Labels follow the order of the images; files without valid labels have none or are refused."""
    for i in range(1, 6):
        labels = [(i + j) % 10 for j in range(len(rows[f"data_batch_{i}"]))]
        files[f"data_batch_{i}"] = pickle.dumps({b"data": rows[f"data_batch_{i}"], b"labels": labels}, protocol=2)
    expected = [(i + j) % 10 for i in range(1, 6) for j in range(len(rows[f"data_batch_{i}"]))]
    np.testing.assert_array_equal(Cifar10(path=str(write_archive(files))).load("train").labels, expected)
    for labels, message in ((["cat"] * 7, "no list of labels 0 to 9"), ([3] * 6, "6 labels of 7 images")):
        files["test_batch"] = pickle.dumps({b"data": rows["test_batch"], b"labels": labels}, protocol=2)
        with pytest.raises(DataError, match=message):
            Cifar10(path=str(write_archive(files))).load("test")
    files["test_batch"] = pickle.dumps({b"data": rows["test_batch"]}, protocol=2)
    assert Cifar10(path=str(write_archive(files))).load("test").labels is None


def test_given_hash_must_match(files: dict, write_archive: Write) -> None:
    """An archive with another hash than the recipe's is refused."""
    path = write_archive(files)
    assert Cifar10(path=str(path), sha256=_sha256(path).upper()).load("test").identity.count == 7
    with pytest.raises(DataError, match=f"has SHA-256 {_sha256(path)}, expected {'0' * 64}"):
        Cifar10(path=str(path), sha256="0" * 64).load("test")


def test_damaged_archives_are_one_clear_error(files: dict, write_archive: Write) -> None:
    """A truncated or altered archive raises DataError."""
    path = write_archive(files)
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    cuts = [whole[: len(whole) * part // 20] for part in range(20)]
    for damaged in [*cuts, whole[:-4], bytes(flipped), b"not a tar"]:
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=r"cifar-10-python.tar.gz.*[Ff]etch"):
            Cifar10(path=str(path)).load("train")


def test_missing_files_are_named(files: dict, write_archive: Write, tmp_path: Path) -> None:
    """The message names the missing file."""
    with pytest.raises(DataError, match=r"nowhere\.tar\.gz: no such file"):
        Cifar10(path=str(tmp_path / "nowhere.tar.gz")).load("test")
    del files["data_batch_3"]
    with pytest.raises(DataError, match="holds no data_batch_3, expected"):
        Cifar10(path=str(write_archive(files))).load("train")


@pytest.mark.parametrize("shape", [(2, 3071), (3072,), (2, 32, 32, 3)])
def test_rows_of_another_length_are_refused(shape: tuple, files: dict, write_archive: Write) -> None:
    """Rows of another size than 32x32x3 are refused."""
    files["test_batch"] = pickle.dumps({b"data": np.zeros(shape, np.uint8)}, protocol=2)
    with pytest.raises(DataError, match=r"test_batch: array of shape .*, expected \(n, 3072\)"):
        Cifar10(path=str(write_archive(files))).load("test")


class _Server(http.server.SimpleHTTPRequestHandler):
    """Serves a folder; announces one byte more than there is for paths that ask for it."""

    requests: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.requests.append(self.path)
        super().do_GET()

    def send_header(self, keyword: str, value: str) -> None:
        if keyword == "Content-Length" and self.path.endswith("?short"):
            value = str(int(value) + 1)
        super().send_header(keyword, value)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """The address of a web server for tmp_path."""
    _Server.requests.clear()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(_Server, directory=str(tmp_path))) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_download_happens_once_and_is_the_same_data(
    files: dict, write_archive: Write, server: str, cache: Path, capsys: pytest.CaptureFixture
) -> None:
    """A download is done once, gives the same data as a file, and writes nothing to standard output."""
    path = write_archive(files)
    source = Cifar10(url=f"{server}/{path.name}", sha256=_sha256(path))
    assert source.load("test").identity == Cifar10(path=str(path)).load("test").identity
    source.load("train")
    assert _Server.requests == [f"/{path.name}"]
    assert [file.name for file in cache.iterdir()] == ["cifar-10-python.tar.gz"]
    out, err = capsys.readouterr()
    assert out == ""
    assert "downloading" in err


def test_a_wrong_download_leaves_nothing(files: dict, write_archive: Write, server: str, cache: Path) -> None:
    """A failed download, or one with another hash, leaves no file in the cache."""
    url = f"{server}/{write_archive(files).name}"
    with pytest.raises(DataError, match="expected 6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce"):
        Cifar10(url=url).load("test")
    with pytest.raises(DataError, match=r"cannot be downloaded|SHA-256"):
        Cifar10(url=f"{url}?short", sha256="0" * 64).load("test")
    with pytest.raises(DataError, match="404"):
        Cifar10(url=f"{server}/nothing").load("test")
    with pytest.raises(DataError, match="cannot be downloaded"):
        Cifar10(url="no address").load("test")
    assert not list(cache.iterdir())


def test_a_damaged_file_in_the_cache_is_not_used(cache: Path) -> None:
    """The hash of a cached archive is checked at every start."""
    cache.mkdir()
    (cache / "cifar-10-python.tar.gz").write_bytes(b"something")
    with pytest.raises(DataError, match="delete it"):
        Cifar10().load("test")
