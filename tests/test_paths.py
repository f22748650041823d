# SPDX-License-Identifier: Apache-2.0
"""Paths that do not lead to a file: each reader reports what is there, and reads nothing from it."""

import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from vdmkit.cli.app import app
from vdmkit.cli.options import component
from vdmkit.data import Cifar10, Folder, ImageNetNew, Npz
from vdmkit.data.folder import list_images
from vdmkit.errors import VdmkitError
from vdmkit.experiments import RunFolder, load_run
from vdmkit.experiments.importing import import_checkpoint
from vdmkit.importers.formats import read_checkpoint
from vdmkit.io import not_a_file, not_a_folder
from vdmkit.metrics import load_inception
from vdmkit.plugins import load_plugins
from vdmkit.recipes import load_recipe

OF_A_FILE = {
    "folder": "a folder, where a file is expected",
    "fifo": "a FIFO (named pipe), where a file is expected",
    "socket": "a socket, where a file is expected",
    "device": "a device, where a file is expected",
    "link_to_fifo": "a FIFO (named pipe), where a file is expected",
    "link_to_nothing": "a link that leads nowhere",
    "circle": "cannot be reached (Too many levels of symbolic links)",
    "nothing": "no such file",
    "file/below": "cannot be reached (Not a directory)",
    "null\0byte": "not a path that a file system can hold",
}


@pytest.fixture
def things(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Changes to a folder with one path of each type. A reader that blocks on the FIFO fails instead of hanging."""

    def waited(*_: object) -> None:
        raise AssertionError("it waits for something that never comes")

    monkeypatch.chdir(tmp_path)
    Path("file").write_text("text")
    Path("folder").mkdir()
    os.mkfifo("fifo")
    Path("device").symlink_to("/dev/zero")
    Path("link_to_fifo").symlink_to("fifo")
    Path("link_to_nothing").symlink_to("nowhere")
    Path("circle").symlink_to("circle")
    before = signal.signal(signal.SIGALRM, waited)
    signal.alarm(60)
    with socket.socket(socket.AF_UNIX) as end:
        end.bind("socket")
        yield tmp_path
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("name", OF_A_FILE)
def test_what_a_path_leads_to(things: Path, name: str) -> None:
    """The message about a path that is not a file says what it is instead."""
    assert not_a_file(Path(name)) == OF_A_FILE[name]


def test_files_and_folders_are_what_they_are(things: Path) -> None:
    """Files, links to files and folders are accepted where they are expected."""
    Path("link").symlink_to("file")
    assert not_a_file(Path("file")) is None
    assert not_a_file(Path("link")) is None
    assert not_a_folder(Path("folder")) is None
    assert not_a_folder(Path("file")) == "a file, where a folder is expected"
    assert not_a_folder(Path("nothing")) == "no such folder"


def _batches(name: str) -> ImageNetNew:
    """Makes ImageNet's folder, with a link to `name` as the file of test images."""
    Path("imagenet").mkdir()
    (Path("imagenet") / "val_data").symlink_to(Path(name).absolute())
    return ImageNetNew(path="imagenet")


def _with_suffix(name: str, suffix: str) -> Path:
    path = Path(f"it{suffix}")
    path.symlink_to(name)
    return path


def _extends(name: str) -> None:
    Path("recipe.toml").write_text(f'extends = "{name}"\n')
    load_recipe("recipe.toml")


def _config(name: str) -> None:
    import_checkpoint(Path("file"), RunFolder(Path("new")), config=Path(name))


READERS: dict[str, Callable[[str], object]] = {
    "npz": lambda name: Npz(path=name).load("train"),
    "cifar10": lambda name: Cifar10(path=name).load("test"),
    "imagenet_new": lambda name: _batches(name).load("test"),
    "array to compress": lambda name: list_images([_with_suffix(name, ".npy")], (4, 4, 1)),
    "image to compress": lambda name: list_images([_with_suffix(name, ".png")], (4, 4, 1)),
    "recipe": load_recipe,
    "extended recipe": _extends,
    "plugin": lambda name: load_plugins([_with_suffix(name, ".py")]),
    "component": lambda name: component("--grid", str(_with_suffix(name, ".toml"))),
    "inception": lambda name: load_inception(Path(name)),
    "authors' checkpoint": lambda name: read_checkpoint(Path(name)),
    "authors' configuration": _config,
}
TAKE_FOLDERS = {"cifar10", "image to compress"}


@pytest.mark.parametrize("name", ["folder", "fifo", "device"])
@pytest.mark.parametrize("reader", READERS)
def test_every_reader_says_what_is_there(things: Path, reader: str, name: str) -> None:
    """Every reader refuses FIFOs, devices and folders at once, and says what they are."""
    if name == "folder" and reader in TAKE_FOLDERS:
        return
    with pytest.raises(VdmkitError) as refused:
        READERS[reader](name)
    assert OF_A_FILE[name] in str(refused.value)
    assert "no such" not in str(refused.value)


@pytest.mark.parametrize("name", ["file", "fifo", "device"])
def test_every_folder_says_what_is_there(things: Path, name: str) -> None:
    """A path that is not a folder is refused where a folder is expected, with what it is."""
    (expected,) = (words for words in [not_a_folder(Path(name))] if words)
    assert expected.endswith("where a folder is expected")
    for read in (lambda: Folder(train=name, test=name).load("train"), lambda: load_run(Path(name))):
        with pytest.raises(VdmkitError) as refused:
            read()
        assert f"{name}: {expected}. " in str(refused.value)


def test_the_program_says_it(things: Path) -> None:
    """The message reaches the user of the command line."""
    result = CliRunner().invoke(app, ["import", "--list", "fifo"])
    assert f"fifo: {OF_A_FILE['fifo']}" in str(result.exception)
