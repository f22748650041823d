# SPDX-License-Identifier: Apache-2.0
"""What earlier commands found out, in the folder `remembered` of the cache folder, so that the next one starts sooner.

A memory of something else would be a silent wrong number. An entry has the SHA-256 of all that it depends on as its
name: the text of every loaded Python module and of all of vdmkit, the installed versions, the devices, JAX's settings,
and what the caller adds, such as the recipe. Its contents begin with a SHA-256 too. Nothing is remembered

- outside of commands: a notebook or a test may have replaced a function of a module;
- by several processes, which would have to agree;
- once the file of a plugin was loaded, because it may depend on anything, such as another file or the clock.
"""

import hashlib
import os
import re
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path

from vdmkit.errors import DataError
from vdmkit.io import cache_folder, is_own_file, whole_file
from vdmkit.plugins import runs_plugin_files

_OF_DEVICES = ("JAX", "XLA", "LIBTPU", "TPU", "TF_", "CUDA", "NVIDIA", "ROCM")  # environment variables
_remembers: list[float] = []  # in the process of a command, when it began


def remember_in_commands() -> None:
    """Lets this process, which runs one command and nothing else, remember."""
    _remembers.append(time.time())


def key_of(*facts: object) -> str | None:
    """Returns the name of the entry for these facts, which `repr` tells apart, or None if nothing is remembered."""
    if len(_remembers) != 1 or runs_plugin_files() or _was_edited():
        return None
    import jax

    return None if jax.process_count() > 1 else _named("found", _code(), facts)


def key_of_program(text: str) -> str:
    """Returns the name of the entry for a compiled program, which follows from its text, whatever code wrote that."""
    return _named("program", text)


def _named(*facts: object) -> str:
    return hashlib.sha256(repr((facts, *_devices())).encode()).hexdigest()


def recall(key: str) -> bytes | None:
    """Returns what is remembered; None if nothing is, or it is damaged, or the file belongs to another user."""
    with suppress(OSError, DataError):
        path = _path(key)
        if is_own_file(path):
            return without_sha256(key, path.read_bytes())
    return None


def remember(key: str, value: bytes) -> None:
    """Keeps a value for later commands, unless the cache folder cannot be written, or code was edited meanwhile."""
    if _was_edited():
        return
    with suppress(OSError, DataError):
        path = _path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as part:
            part.write_bytes(with_sha256(key, value))


def _path(key: str) -> Path:
    return cache_folder() / "remembered" / key


def with_sha256(name: str, value: bytes) -> bytes:
    """Returns an entry of the cache: a SHA-256 of its name and its value, and the value."""
    return hashlib.sha256(f"{name}\0".encode() + value).digest() + value


def without_sha256(name: str, entry: bytes) -> bytes | None:
    """Returns the value of an entry, or None if it is truncated, changed or of another name."""
    value = entry[hashlib.sha256().digest_size :]
    return value if entry == with_sha256(name, value) else None


def in_words(*values: object) -> str:
    """Returns values as text that tells them apart: whole arrays, and no addresses of functions."""
    import numpy as np

    with np.printoptions(threshold=sys.maxsize, floatmode="unique"):
        return re.sub(r" at 0x[0-9a-f]+", "", " ".join(map(str, values)))


def _was_edited() -> bool:
    """Returns whether a file of code is newer than this process, which may run the text that it had before."""
    return any(os.stat(file).st_mtime > began for began in _remembers for file in _files())


@cache  # as it was when it was asked for first, because what is loaded later depends on what is remembered
def _code() -> str:
    """Returns the SHA-256 of the code that this process runs."""
    found = hashlib.sha256()
    for file in sorted(_files()):
        # Libraries of machine code are too large to be read.
        content = Path(file).read_bytes() if file.endswith(".py") else repr(os.stat(file)[6:9:2]).encode()
        found.update(f"{file}\0{len(content)}\0".encode() + content)
    found.update(repr((sys.version, sys.flags, sorted(_installed()))).encode())
    return found.hexdigest()


def _files() -> set[str]:  # not of paths, since this is asked for often, and there are thousands
    """Returns the files of every loaded module and of all of vdmkit."""
    files = [getattr(module, "__file__", None) for module in list(sys.modules.values())]
    return {*map(str, Path(__file__).parent.rglob("*.py")), *(file for file in files if file and os.path.isfile(file))}


def _installed() -> Iterator[str]:
    """Yields the names of folders that name an installed package and its version, for what is loaded later."""
    for folder in sys.path:
        if os.path.isdir(folder):
            yield from (name for name in os.listdir(folder) if name.endswith((".dist-info", ".egg-info")))


def _devices() -> Iterator[object]:
    """Yields what JAX's own cache of compiled functions depends on besides the function, and all settings."""
    import jax
    from jax._src.lib import xla_client

    devices = jax.devices()
    yield [version(name) for name in ("jax", "jaxlib")]
    yield [(device.id, device.device_kind, device.client.platform_version) for device in devices]
    yield xla_client.get_topology_for_devices(devices).fingerprint()  # with the features of a CPU
    yield sorted((name, str(value)) for name, value in jax.config.values.items())
    yield sorted((name, value) for name, value in os.environ.items() if name.startswith(_OF_DEVICES))
