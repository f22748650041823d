# SPDX-License-Identifier: Apache-2.0
"""Run folders of processes that are not the first, and what a user is told when another process has ended."""

import pytest

from vdmkit.multihost import delete_copies, in_words, lost, own_folder


@pytest.fixture
def second(monkeypatch):
    """This process is the second of two, without a connection."""
    monkeypatch.setattr("vdmkit.multihost.started_as", lambda: "second")
    monkeypatch.setattr("vdmkit.multihost.started_as", lambda: "second")
    monkeypatch.setattr("vdmkit.multihost.is_first", lambda: False)
    monkeypatch.setattr("vdmkit.multihost.meet", lambda: None)
    monkeypatch.setattr("vdmkit.multihost._copies", {})


@pytest.mark.usefixtures("second")
def test_a_process_writes_to_its_own_copy(tmp_path):
    """Two processes would write the same files at once, or messages would name a folder that a user never saw."""
    run = tmp_path / "run"
    for name in ("plugins", "checkpoints"):
        (run / name).mkdir(parents=True)
    for name in ("manifest.json", "plugins/a.py", "checkpoints/8"):
        (run / name).write_text(name)
    copy = own_folder(run)
    assert (copy / "plugins" / "a.py").read_text() == "plugins/a.py"
    (copy / "manifest.json").write_text("changed")
    assert (run / "manifest.json").read_text() == "manifest.json"
    assert (copy / "checkpoints" / "8").resolve() == run / "checkpoints" / "8"
    assert in_words(f"{copy}/resolved.toml: changed") == f"{run}/resolved.toml: changed"
    delete_copies()
    assert not copy.exists()
    assert (run / "checkpoints" / "8").is_file()


@pytest.mark.usefixtures("second")
def test_an_error_by_another_process():
    """The traceback of a collective would hide that another process was killed."""
    found = lost(RuntimeError("Gloo all-reduce failed: Connection closed by peer\nframes of C++"))
    assert "another process has ended, or cannot be reached (Gloo all-reduce failed: Conn" in str(found)
    assert "C++" not in str(found)
    assert lost(ValueError("a mistake of one's own")) is None
