# SPDX-License-Identifier: Apache-2.0
"""Where commands keep compiled functions, and when they keep none."""

import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
from jax._src.lru_cache import LRUCache

from vdmkit.cli.processes import checked, keep_compiled

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


@pytest.fixture
def entries(tmp_path) -> Any:
    """JAX's cache of two entries, "a" and "b", as vdmkit has it checked."""
    cache = checked(LRUCache)(str(tmp_path), max_size=-1)
    for name in "ab":
        cache.put(name, name.encode() * 100)
    return cache


def of(cache: Any, name: str) -> Path:
    return Path(cache.path, f"{name}-cache")


def flip(cache: Any, at: int) -> None:
    entry = bytearray(of(cache, "a").read_bytes())
    entry[at] ^= 1
    of(cache, "a").write_bytes(entry)


DAMAGE = {
    "first byte": lambda cache: flip(cache, 0),
    "last byte": lambda cache: flip(cache, -1),
    "truncated": lambda cache: os.truncate(of(cache, "a"), 50),
    "cut to its hash": lambda cache: os.truncate(of(cache, "a"), 32),
    "empty": lambda cache: os.truncate(of(cache, "a"), 0),
    "of another function": lambda cache: shutil.copy(of(cache, "b"), of(cache, "a")),
    "of an older version": lambda cache: of(cache, "a").write_bytes(b"a" * 100),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_entry_is_compiled_anew(entries, damage):
    """False if JAX ran what is not the function (a crash, or other numbers), or compiled it in every command anew."""
    DAMAGE[damage](entries)
    assert entries.get("a") is None
    assert entries.get("b") == b"b" * 100
    entries.put("a", b"a" * 100)
    assert entries.get("a") == b"a" * 100


def test_an_entry_of_another_user_is_not_run(entries, monkeypatch):
    """False if someone with whom the cache is shared could have a program of theirs run."""
    with monkeypatch.context() as patch:
        patch.setattr(os, "geteuid", lambda: os.getuid() + 1)
        assert entries.get("a") is None
    assert entries.get("a") == b"a" * 100, "and it remains for its owner"


def test_two_commands_at_once(entries, tmp_path):
    """False if a command failed because another one had deleted, or not yet finished, an entry."""
    other = checked(LRUCache)(str(tmp_path), max_size=-1)
    of(entries, "a").unlink()
    with of(entries, "a").open("wb") as half_written:
        half_written.write(b"a" * 50)
        half_written.flush()
        assert other.get("a") is None
        other.put("a", b"a" * 100)
        half_written.write(b"a" * 50)
    assert entries.get("a") == other.get("a") == b"a" * 100


PROGRAM = """
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from vdmkit.cli.processes import checked, keep_compiled
keep_compiled()
import jax
from jax import numpy as jnp
def numbers():
    jax.clear_caches()
    x = jnp.arange(5.0)
    return float(jax.jit(jnp.sum)(x)), float(jax.jit(jnp.prod)(x + 1))
assert numbers() == (10, 120)
kept = sorted(Path(os.environ["VDMKIT_CACHE"], "xla").glob("*-cache"))
contents = [path.read_bytes() for path in kept]
assert len(kept) > 2
for path, other in zip(kept, contents[1:] + contents[:1]):
    path.write_bytes(other)
assert numbers() == (10, 120)
assert not any(path.read_bytes() in contents[:i] + contents[i + 1:] for i, path in enumerate(kept))
"""


def test_jax_reads_no_entry_of_another_function(tmp_path):
    """False if vdmkit's check were not there in the JAX that commands load."""
    environment = {name: value for name, value in os.environ.items() if name not in (FOLDER, SECONDS)}
    environment["VDMKIT_CACHE"] = str(tmp_path)
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
