# SPDX-License-Identifier: Apache-2.0
"""Plugin files in a run folder from elsewhere are not executed unless the user allows it."""

import hashlib
import os
from pathlib import Path

import pytest
import typer

import vdmkit
from vdmkit import plugins as _trust
from vdmkit.cli.app import app
from vdmkit.errors import CheckpointError, UnknownCodeError
from vdmkit.experiments import RunFolder
from vdmkit.io import write_json
from vdmkit.plugins import remember
from vdmkit.recipes import load_recipe
from vdmkit.recipes.schema import dump

COMMANDS = ("evaluate", "likelihood", "sample", "study", "quality", "classify", "compare", "convert", "compress")
WORDS = {"convert": ("--to", "digits", "-o", "new"), "compress": ("image.png", "-o", "a.vdmz")}
NOT_COMMANDS_ON_RUNS = {"run", "check", "bench", "doctor", "data", "import", "list", "new-plugin", "inspect"}


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """Sets an empty cache folder, in a process that has executed no plugin yet."""
    monkeypatch.setenv("VDMKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(_trust, "_known", set())
    return tmp_path / "cache"


@pytest.fixture
def plugin(tmp_path) -> bytes:
    """The source of a plugin that writes a file. It is unique per test, because a process executes each source once."""
    return f"open({str(tmp_path / 'executed')!r}, 'w')\n# {tmp_path}\n".encode()


@pytest.fixture
def folder(tmp_path, cache, digits_toml, plugin) -> RunFolder:
    """A run folder with a plugin and without a checkpoint."""
    folder = RunFolder(tmp_path / "run")
    (folder.plugins).mkdir(parents=True)
    (folder.plugins / "theirs.py").write_bytes(plugin)
    folder.resolved_recipe.write_text(dump(load_recipe(digits_toml)))
    facts = {"shape": [8, 8, 1], "levels": 17, "data": None, "imported": None, "sessions": []}
    write_json(folder.manifest, facts | {"plugins": {"theirs.py": hashlib.sha256(plugin).hexdigest()}})
    return folder


def words(command: str, folder: RunFolder) -> tuple[str, ...]:
    runs = (str(folder.path), str(folder.path)) if command == "compare" else ("--ckpt", str(folder.path))
    return (command, *runs, *WORDS.get(command, ()))


def executed(folder: RunFolder) -> bool:
    return (folder.path.parent / "executed").exists()


@pytest.mark.parametrize("command", COMMANDS)
def test_their_plugin_is_not_executed(vdmkit_in, folder, command):
    """A plugin file in a run folder is executed only with --trust."""
    refused = vdmkit_in(folder.path.parent)(*words(command, folder))
    assert (refused.code, refused.out, executed(folder)) == (1, "", False)
    assert f"{folder.plugins / 'theirs.py'}: this run folder would have this file executed (2 lines" in refused.err
    assert "add --trust" in refused.err
    trusted = vdmkit_in(folder.path.parent)(*words(command, folder), "--trust")
    assert executed(folder)
    assert "no checkpoint yet" in trusted.err, trusted.err


def test_a_report_executes_nothing(vdmkit_in, folder):
    """`vdmkit report` executes no plugin file of a run folder."""
    made = vdmkit_in(folder.path.parent)("report", str(folder.path), "-o", "page.html")
    assert (made.code, executed(folder)) == (0, False), made.err
    assert "this run folder would have this file executed" in (folder.path.parent / "page.html").read_text()


def test_every_command_on_a_run_asks():
    """Every command that reads run folders has the option --trust."""
    group = typer.main.get_command(app)
    names = set(group.list_commands(None)) - NOT_COMMANDS_ON_RUNS
    assert names - {"decompress", "report"} == set(COMMANDS)
    for name in names:
        assert "--trust" in {option for one in group.get_command(None, name).params for option in one.opts}, name


def test_python_asks_too(folder):
    """`vdmkit.load` executes a plugin file of a run folder only with trust=True."""
    with pytest.raises(UnknownCodeError, match=r"trust=True"):
        vdmkit.load(folder.path)
    assert not executed(folder)
    with pytest.raises(CheckpointError, match="no checkpoint yet"):
        vdmkit.load(folder.path, trust=True)
    assert executed(folder)


def test_a_plugin_of_an_own_run_is_known(folder, cache, plugin, monkeypatch):
    """Plugin files of the user's own runs are trusted, in later processes too."""
    remember({"mine.py": plugin})
    monkeypatch.setattr(_trust, "_known", set())  # as in a new process
    with pytest.raises(CheckpointError, match="no checkpoint yet"):
        vdmkit.load(folder.path)
    assert executed(folder)


def test_a_plugin_that_the_user_names_is_known(folder, tmp_path, plugin):
    """A plugin file identical to one given by the user is trusted."""
    (tmp_path / "given.py").write_bytes(plugin)
    with pytest.raises(CheckpointError, match="no checkpoint yet"):
        vdmkit.load(folder.path, plugins=[tmp_path / "given.py"])
    assert executed(folder)


@pytest.mark.parametrize("record", ["of another user", "renamed", "folder", "absent"])
def test_a_record_that_this_user_did_not_make_is_not_believed(folder, cache, plugin, record, monkeypatch):
    """A record that is renamed, not a file, or owned by a different user grants no trust."""
    remember({"mine.py": b"other" if record == "renamed" else plugin})
    (made,) = (cache / "plugins").iterdir()
    if record == "of another user":
        monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    elif record == "renamed":
        made.rename(made.with_name(hashlib.sha256(plugin).hexdigest()))
    else:
        made.unlink()
        if record == "folder":
            made.mkdir()
    monkeypatch.setattr(_trust, "_known", set())
    with pytest.raises(UnknownCodeError):
        vdmkit.load(folder.path)
    assert not executed(folder)


def test_a_cache_that_cannot_be_written_ends_no_training(cache, plugin):
    """A cache that is not writable does not stop training."""
    cache.write_text("not a folder")
    remember({"mine.py": plugin})


def test_names_in_a_manifest_lead_nowhere(folder, plugin, tmp_path):
    """Names in a manifest cannot refer to files outside the run folder."""
    facts = folder.manifest.read_text().replace("theirs.py", "../../other.py")
    (tmp_path / "other.py").write_bytes(plugin)
    folder.manifest.write_text(facts)
    with pytest.raises(CheckpointError, match=r"run/plugins/other\.py: missing"):
        vdmkit.load(folder.path, trust=True)
    assert not executed(folder)
