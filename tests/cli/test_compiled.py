# SPDX-License-Identifier: Apache-2.0
"""Where commands keep compiled functions, and when they keep none."""

import os
import warnings
from pathlib import Path

import pytest

from vdmkit.cli._compiled import keep_compiled

FOLDER, SECONDS = "JAX_COMPILATION_CACHE_DIR", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"


@pytest.fixture
def chosen(tmp_path, monkeypatch):
    """`chosen()`: what JAX would be told, with an empty cache folder and no setting of the user's."""
    monkeypatch.setenv("VDMKIT_CACHE", str(tmp_path / "cache"))
    for name in (FOLDER, SECONDS):
        monkeypatch.setenv(name, "")  # so that the test's end puts the old value back
        monkeypatch.delenv(name)

    def told() -> tuple[str | None, str | None]:
        with warnings.catch_warnings():
            keep_compiled()
        return os.environ.get(FOLDER), os.environ.get(SECONDS)

    return told


def test_they_are_kept_in_the_cache_folder(chosen, tmp_path):
    """False if every command compiled all of its functions again, or a folder were made before anything is kept."""
    assert chosen() == (str(tmp_path / "cache" / "xla"), "0")
    assert not (tmp_path / "cache").exists()


def test_the_users_own_settings_come_first(chosen, monkeypatch):
    """False if JAX's own variables were overridden."""
    monkeypatch.setenv(FOLDER, "mine")
    monkeypatch.setenv(SECONDS, "9")
    assert chosen() == ("mine", "9")


def test_a_file_in_the_place_of_the_folder(chosen, tmp_path):
    """False if every function that is compiled ended in a warning that it cannot be written."""
    (tmp_path / "cache").write_text("")
    assert chosen() == (None, None)


def test_a_user_without_a_home(chosen, monkeypatch):
    """False if no command, not even --help, ran in a container whose user has no home folder."""

    def no_home(path: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("VDMKIT_CACHE")
    monkeypatch.setattr(Path, "expanduser", no_home)
    assert chosen() == (None, None)
