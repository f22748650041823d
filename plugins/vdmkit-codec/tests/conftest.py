# SPDX-License-Identifier: Apache-2.0
"""The program, in this process and in others, and a run that it compresses with."""

import io
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
import pytest

from vdmkit.cli.app import main

HERE = Path(__file__).parent
PLUGINS = ("--plugin", str(HERE / "tiny.py"))
CACHE = HERE.parents[2] / ".pytest_cache" / "jax"
jax.config.update("jax_compilation_cache_dir", os.environ.get("JAX_COMPILATION_CACHE_DIR", str(CACHE)))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)

RECIPE = """
seed = 1
[data]
name = "npz"
path = "{path}"
levels = 17
[model.schedule]
name = "learned_linear"
gamma_min = -8.0
gamma_max = 5.0
[model.prediction]
name = "categorical"
[model.network]
name = "tiny_codec"
[optimizer]
name = "adamw"
learning_rate = 1e-2
[training]
steps = 12
batch_size = 8
checkpoint_every = 3
[evaluation]
draws = 2
batch_size = 20
[sampling]
steps = 2
count = 4
"""


@pytest.hookimpl(tryfirst=True)  # before tests are chosen by their marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE / "system" in item.path.parents:
            item.add_marker("system")


@pytest.fixture(autouse=True, scope="module")
def forget_compiled() -> Iterator[None]:
    """Compiled functions of a module are not kept for the next one."""
    yield
    jax.clear_caches()


@dataclass(frozen=True)
class Result:
    """What a user sees of a command that came to its end."""

    code: int
    out: str
    err: str
    data: bytes = b""


class _Bytes(io.TextIOWrapper):
    """Text and bytes, as standard output takes them."""

    def __init__(self, data: bytes = b"") -> None:
        super().__init__(io.BytesIO(data), "utf-8", errors="replace", write_through=True)

    def bytes(self) -> bytes:
        return self.buffer.getvalue()  # type: ignore[attr-defined]


@dataclass(frozen=True)
class Program:
    """`vdmkit` with the tiny network in a folder, in this process."""

    cwd: Path

    def __call__(self, *arguments: str, plugins: tuple[str, ...] = PLUGINS, given: bytes = b"") -> Result:
        """Runs it to its end, with `given` as standard input. No mistake of a user is answered by a traceback."""
        plugins = plugins if arguments[0] in {"run", "compress", "decompress"} else ()
        out, err, handler = _Bytes(), _Bytes(), signal.getsignal(signal.SIGTERM)
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
            patch.chdir(self.cwd)
            patch.setattr(sys, "argv", ["vdmkit", *arguments, *plugins])
            patch.setattr(sys, "stdin", _Bytes(given))
            patch.delenv("UV_RUN_RECURSION_DEPTH", raising=False)  # it makes commands "uv run ..."
            with pytest.raises(SystemExit) as exited:
                main()
        signal.signal(signal.SIGTERM, handler)
        words = err.bytes().decode()
        assert "Traceback" not in words, words
        data = out.bytes()
        return Result(int(exited.value.code or 0), data.decode(errors="replace"), words, data)


@dataclass(frozen=True)
class Processes:
    """The same, each time in a process of its own; they share compiled programs and byte code."""

    cwd: Path
    cache: Path

    def start(self, *arguments: str, flags: str = "", plugins: tuple[str, ...] = PLUGINS) -> subprocess.Popen:
        """Starts it, and does not wait. `flags` are XLA's."""
        flags = f"{os.environ.get('XLA_FLAGS', '')} {flags}".strip()
        environment = os.environ | {"XLA_FLAGS": flags, "PYTHONPYCACHEPREFIX": str(self.cache)}
        environment |= {"JAX_COMPILATION_CACHE_DIR": str(self.cache / "jax")}
        environment |= {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
        for name in ("PYTHONDONTWRITEBYTECODE", "UV_RUN_RECURSION_DEPTH"):
            environment.pop(name, None)
        command = [sys.executable, "-m", "vdmkit", *arguments, *plugins]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(command, cwd=self.cwd, env=environment, **pipes)

    def __call__(self, *arguments: str, **options) -> Result:
        process = self.start(*arguments, **options)
        out, err = process.communicate()
        assert "Traceback" not in err, err
        return Result(process.returncode, out, err)


@pytest.fixture(scope="session")
def program_in() -> type[Program]:
    """`program_in(folder)("inspect", "a.vdmz")`."""
    return Program


@pytest.fixture
def program(tmp_path: Path) -> Program:
    """The program in an empty folder."""
    return Program(tmp_path)


@pytest.fixture(scope="session")
def processes_in(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], Processes]:
    """`processes_in(folder)`: the same in processes of its own."""
    cache = tmp_path_factory.mktemp("cache")
    return lambda folder: Processes(folder, cache)


@pytest.fixture
def processes(tmp_path: Path, processes_in) -> Processes:
    """It in an empty folder."""
    return processes_in(tmp_path)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A recipe of 12 steps on 8x8 images of 17 levels."""
    folder = tmp_path_factory.mktemp("tiny")
    pixels = np.random.default_rng(0).integers(0, 17, (80, 8, 8, 1)).astype(np.uint8)
    np.savez(folder / "noise.npz", train=pixels[:60], test=pixels[60:])
    (folder / "tiny.toml").write_text(RECIPE.format(path=folder / "noise.npz"))
    return str(folder / "tiny.toml")


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory, tiny: str) -> Path:
    """A run of the tiny recipe. Not to be changed."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    result = Program(folder.parent)("run", tiny, "--out", str(folder))
    assert result.code == 0, result.err
    return folder
