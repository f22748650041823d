# SPDX-License-Identifier: Apache-2.0
"""Where commands keep JAX's compilation cache, and when they use none."""

import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from vdmkit.cli.app import use_compilation_cache

FOLDER, SECONDS = "JAX_COMPILATION_CACHE_DIR", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"


@pytest.fixture
def chosen(tmp_path, monkeypatch):
    """`chosen()` returns JAX's settings, given an empty cache folder and no settings by the user."""
    monkeypatch.setenv("VDMKIT_CACHE", str(tmp_path / "cache"))
    for name in (FOLDER, SECONDS):
        monkeypatch.setenv(name, "")  # so that the test's end restores the old value
        monkeypatch.delenv(name)

    def settings() -> tuple[str | None, str | None]:
        with warnings.catch_warnings():
            use_compilation_cache()
        return os.environ.get(FOLDER), os.environ.get(SECONDS)

    return settings


def test_the_cache_is_in_the_cache_folder(chosen, tmp_path):
    """Every compiled function is kept, in a folder that only this user can write to."""
    assert chosen() == (str(tmp_path / "cache" / "xla"), "0")
    assert (tmp_path / "cache" / "xla").stat().st_mode & 0o777 == 0o700


def test_the_users_own_settings_take_precedence(chosen, monkeypatch):
    """JAX's own environment variables are not overridden."""
    monkeypatch.setenv(FOLDER, "mine")
    monkeypatch.setenv(SECONDS, "9")
    assert chosen() == ("mine", "9")


def test_a_file_in_the_place_of_the_folder(chosen, tmp_path):
    """Without a folder there is no cache, and no warning for every function that is compiled."""
    (tmp_path / "cache").write_text("")
    assert chosen() == (None, None)


def test_a_user_without_a_home(chosen, monkeypatch):
    """In a container whose user has no home folder, commands run without a cache."""

    def no_home(path: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("VDMKIT_CACHE")
    monkeypatch.setattr(Path, "expanduser", no_home)
    assert chosen() == (None, None)


def test_a_folder_of_another_user_is_not_used(chosen, monkeypatch):
    """If the cache folder is shared, compiled programs of other users are never run."""
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    assert chosen() == (None, None)


@pytest.mark.parametrize("mode", [0o770, 0o777])
def test_a_folder_that_others_can_write_to_is_not_used(chosen, tmp_path, mode):
    """A cache folder that other users can write to is not used."""
    (tmp_path / "cache" / "xla").mkdir(parents=True)
    (tmp_path / "cache" / "xla").chmod(mode)
    assert chosen() == (None, None)


PROGRAM = """
from vdmkit.cli.app import use_compilation_cache
use_compilation_cache()
import jax
print(float(jax.jit(jax.numpy.prod)(jax.numpy.arange(5.0) + 1)))
"""


def test_a_second_process_reads_what_the_first_compiled(tmp_path):
    """The settings come early enough for JAX, and a damaged entry is compiled again."""
    environment = {name: value for name, value in os.environ.items() if name not in (FOLDER, SECONDS)}
    environment |= {"VDMKIT_CACHE": str(tmp_path), "JAX_LOG_COMPILES": "0"}

    def run() -> set[str]:
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "120.0\n", "")
        return {path.name for path in (tmp_path / "xla").glob("*-cache")}

    entries = run()
    assert entries
    assert run() == entries
    for path in (tmp_path / "xla").glob("*-cache"):
        path.write_bytes(path.read_bytes()[:20])
    assert run() == entries
