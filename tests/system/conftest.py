# SPDX-License-Identifier: Apache-2.0
"""The program as a user runs it, and what it leaves behind.

`program` runs it in this process; `processes` in processes of its own, for what only they can show: signals, kills, a
full disk, devices, flags of XLA, an environment. Every test here is marked `system`. Processes share compiled programs
and byte code through folders, which makes a run of the tiny recipe five times faster.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

import vdmkit
from vdmkit.training.checkpoints import steps_in

HERE = Path(__file__).parent
ROOT = Path(vdmkit.__file__).parents[1]
PLUGINS = ("--plugin", str(HERE / "tiny.py"), "--plugin", str(HERE / "faults.py"))


@pytest.hookimpl(tryfirst=True)  # before tests are chosen by their marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker("system")


@dataclass(frozen=True)
class Processes:
    """`vdmkit` with the tiny network and the faults, in a folder, each time in a process of its own.

    `cache` is shared by them. `result` makes what a user sees.
    """

    cwd: Path
    cache: Path
    result: Callable

    def start(
        self,
        *arguments: str,
        faults: str = "",
        flags: str = "",
        x64: bool = False,
        plugins: tuple[str, ...] = PLUGINS,
        packages: Path | None = None,
        **options,
    ) -> subprocess.Popen:
        """Start it, and do not wait. `flags` are XLA's; in `packages` more packages are installed."""
        path = os.pathsep.join(str(folder) for folder in (ROOT, packages) if folder)
        flags = f"{os.environ.get('XLA_FLAGS', '')} {flags}".strip()
        environment = os.environ | {"VDMKIT_FAULTS": faults, "XLA_FLAGS": flags, "PYTHONPATH": path}
        environment |= {"JAX_COMPILATION_CACHE_DIR": str(self.cache / "jax"), "PYTHONPYCACHEPREFIX": str(self.cache)}
        environment |= {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", "JAX_ENABLE_X64": str(int(x64))}
        for name in ("PYTHONDONTWRITEBYTECODE", "UV_RUN_RECURSION_DEPTH"):  # the latter makes commands "uv run ..."
            environment.pop(name, None)
        plugins = () if arguments[0] == "import" else plugins
        command = [sys.executable, "-m", "vdmkit", *arguments, *plugins]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(command, cwd=self.cwd, env=environment, preexec_fn=_hear_ctrl_c, **pipes, **options)

    def __call__(self, *arguments: str, **options):
        """Run it to its end. No mistake of a user is answered by a traceback."""
        process = self.start(*arguments, **options)
        out, err = process.communicate()
        assert "Traceback" not in err, err
        return self.result(process.returncode, out, err)

    def together(self, *commands: tuple[str, ...], **options) -> list:
        """Run commands to their ends, two at a time."""
        with ThreadPoolExecutor(2) as pool:
            return list(pool.map(lambda command: self(*command, **options), commands))


def _hear_ctrl_c() -> None:
    """A shell lets what it starts in the background ignore it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cache of the processes of this session alone: tests kill processes that write to it."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def program_in(vdmkit_in) -> Callable:
    """`program_in(folder)`: the program with the tiny network and the faults, in a folder that tests look at."""
    return lambda folder: vdmkit_in(folder, PLUGINS)


@pytest.fixture(scope="session")
def processes_in(shared: Path, result_of) -> Callable[[Path], Processes]:
    """`processes_in(folder)`: the same in processes of its own."""
    return lambda folder: Processes(folder, shared, result_of)


@pytest.fixture
def program(tmp_path: Path, program_in):
    """`program("run", tiny, ...)` in an empty folder."""
    return program_in(tmp_path)


@pytest.fixture
def processes(tmp_path: Path, processes_in) -> Processes:
    """`processes("run", tiny, ...)` in an empty folder."""
    return processes_in(tmp_path)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A recipe of 12 steps, a checkpoint every 3, on 8x8 images of 17 levels."""
    folder = tmp_path_factory.mktemp("tiny")
    pixels = np.random.default_rng(0).integers(0, 17, (80, 8, 8, 1)).astype(np.uint8)
    np.savez(folder / "noise.npz", train=pixels[:60], test=pixels[60:])
    (folder / "tiny.toml").write_text(
        f'extends = "{HERE / "tiny.toml"}"\n[data]\nname = "npz"\npath = "{folder / "noise.npz"}"\nlevels = 17\n'
    )
    return str(folder / "tiny.toml")


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory, tiny: str, program_in) -> Path:
    """A run of the tiny recipe that nothing disturbed. Not to be changed."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    result = program_in(folder.parent)("run", tiny, "--out", str(folder))
    assert result.code == 0, result.err
    (folder / "stdout.txt").write_text(result.out)
    return folder


@pytest.fixture(scope="session")
def arrays() -> Callable[[Path], dict[str, np.ndarray]]:
    """`arrays(run)`: every array of the last checkpoint by its path, read without vdmkit's own reader."""

    def arrays(run: Path) -> dict[str, np.ndarray]:
        folder = run / "checkpoints" / str(steps_in(run / "checkpoints")[-1])
        reader = ocp.PyTreeCheckpointer()
        tree = reader.metadata(folder / "state").item_metadata.tree
        as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
        tree = reader.restore(folder / "state", restore_args=as_numpy)
        leaves = {
            jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
        }
        assert {name.split("'")[1] for name in leaves} - {"objective"} == {"model", "ema", "opt_state", "step"}
        return leaves

    return arrays


@pytest.fixture(scope="session")
def steps_logged() -> Callable[[Path], list[int]]:
    """`steps_logged(run)`: the steps of training in its metrics.jsonl, every line of which is JSON."""

    def steps_logged(run: Path) -> list[int]:
        lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
        return [line["step"] for line in lines if "train/bpd" in line]

    return steps_logged


@pytest.fixture(scope="session")
def snapshot() -> Callable[[Path], dict[str, bytes]]:
    """`snapshot(folder)`: every file in it."""
    return lambda folder: {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture
def same_as_whole(arrays, whole) -> Callable[[Path], None]:
    """`same_as_whole(run)`: it ended bit for bit as the undisturbed run did."""

    def same_as_whole(run: Path) -> None:
        expected, found = arrays(whole), arrays(run)
        assert expected.keys() == found.keys()
        for name, array in expected.items():
            assert found[name].dtype == array.dtype
            assert found[name].tobytes() == array.tobytes(), name
        for name in ("evaluation.json", "samples.png"):
            assert (run / name).read_bytes() == (whole / name).read_bytes()

    return same_as_whole
