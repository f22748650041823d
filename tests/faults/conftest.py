# SPDX-License-Identifier: Apache-2.0
"""Fixtures for fault injection under a fixed seed; failures print the seed.

VDMKIT_FAULTS_SEED chooses a different seed, and VDMKIT_FAULTS_COUNT the number of cases.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from vdmkit.training.checkpoints import steps_in

HERE = Path(__file__).parent
RECIPE = HERE.parent / "system" / "tiny.toml"
PLUGIN = RECIPE.with_suffix(".py")
TROUBLED = ("--plugin", str(PLUGIN), "--plugin", str(HERE / "troubled.py"))
REFERENCE = HERE.parent / "reference" / "cifar10-tiny"
TIMES = re.compile(rb'"(steps_per_second|crc32)": [^,}]*')  # in lines of metrics
OF_A_PROCESS = {"manifest.json", "recipe.toml"}  # hold times, a random name, the folder of the test


@dataclass(frozen=True)
class Chosen:
    """The seed of a session, and the requested number of cases."""

    seed: int
    count: int | None

    def cases(self, few: int) -> int:
        return self.count or few


@pytest.fixture(scope="session")
def chosen() -> Chosen:
    """The seed and the number of cases, from the environment."""
    count = os.environ.get("VDMKIT_FAULTS_COUNT")
    return Chosen(int(os.environ.get("VDMKIT_FAULTS_SEED", "0")), int(count) if count else None)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A recipe of 12 steps with a checkpoint every 3, on 8x8 images of 17 levels."""
    folder = tmp_path_factory.mktemp("tiny")
    pixels = np.random.default_rng(0).integers(0, 17, (80, 8, 8, 1)).astype(np.uint8)
    np.savez(folder / "noise.npz", train=pixels[:60], test=pixels[60:])
    data = f'[data]\nname = "npz"\npath = "{folder / "noise.npz"}"\nlevels = 17\n'
    (folder / "tiny.toml").write_text(f'extends = "{RECIPE}"\n{data}')
    return str(folder / "tiny.toml")


@pytest.fixture(scope="session")
def program_in(vdmkit_in) -> Callable:
    """`program_in(folder)` returns the program with the tiny network, in a folder."""
    return lambda folder: vdmkit_in(folder, ("--plugin", str(PLUGIN)))


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory, tiny: str, program_in) -> Path:
    """An undisturbed run, which tests must not change."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    result = program_in(folder.parent)("run", tiny, "--out", str(folder))
    assert result.code == 0, result.err
    return folder


@dataclass(frozen=True)
class Case:
    """A command, and the file or folder it writes. `again` is part of the error if it has already finished."""

    arguments: tuple[str, ...]
    leaves: str
    again: str = "\0"
    more: tuple[str, ...] = ()  # arguments when it is run again


def cases() -> dict[str, Case]:
    (theirs,) = REFERENCE.glob("checkpoints-*/ckpt-1.flax")
    few, config = ("--nodes", "11", "--images", "8"), str(REFERENCE / "config.json")
    coded = ("some.npy", "--ckpt", "run", "-o", "new.vdmz", "--chunk", "2", "--steps", "2")
    return {
        "train": Case(("run", "tiny.toml", "--out", "new", *TROUBLED), "new"),
        "evaluate": Case(("evaluate", "--ckpt", "run"), "run/evaluation.json"),
        "likelihood": Case(("likelihood", "--ckpt", "run", "--set", "likelihood.batch_size=5"), "run/likelihood"),
        "study": Case(("study", "--ckpt", "run", "--steps", "1,2", *few), "run/schedule"),
        "pack": Case(("data", "pack", "tiny.toml", "-o", "new", *TROUBLED), "new", "not an empty folder"),
        "compress": Case(("compress", *coded), "new.vdmz", "is finished, there is nothing to resume", ("--resume",)),
        "decompress": Case(("decompress", "some.vdmz", "--ckpt", "run", "-o", "new"), "new", "not an empty folder"),
        "import": Case(("import", str(theirs), "--config", config, "-o", "new"), "new", "not empty"),
    }


@dataclass(frozen=True)
class Forks:
    """The process that runs commands, and the folder with an undisturbed run."""

    process: subprocess.Popen
    origin: Path
    known: dict[str, tuple[list[int], dict[str, bytes]]]

    def __call__(
        self, cwd: Path, *arguments: str, fault: str = "", moment: int = 0, amount: float = 0
    ) -> dict[str, Any]:
        request = {"cwd": str(cwd), "arguments": arguments, "fault": fault, "moment": moment, "amount": amount}
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        found = json.loads(self.process.stdout.readline())
        assert "Traceback" not in found["err"], (request, found)
        return found

    def whole(self, command: str) -> tuple[list[int], dict[str, bytes]]:
        """Returns the numbers of moments of an undisturbed command, and what it writes."""
        if command not in self.known:
            case, folder = cases()[command], shutil.copytree(self.origin, self.origin.with_name(f"never-{command}"))
            found = self(folder, *case.arguments)
            assert found["code"] == 0, found
            self.known[command] = found["moments"], left(folder / case.leaves)
        return self.known[command]

    def halves(self, command: str, place: Path) -> list[str]:
        """Returns the files of an interrupted command that have their final names but different contents."""
        path, expected = place / cases()[command].leaves, self.whole(command)[1]
        training = (path / "metrics.jsonl").exists()  # grows
        found = {} if training or not path.exists() or (path / "checkpoints").exists() else left(path)
        return [name for name, data in found.items() if name in expected and data != expected[name]]

    def finish(self, command: str, place: Path, arguments: tuple[str, ...], before: object) -> None:
        """Runs a command to its end, and asserts that it leaves what an undisturbed command leaves."""
        case, expected = cases()[command], self.whole(command)[1]
        again = self(place, *arguments)
        assert again["code"] == 0 or case.again in again["err"], (before, again)
        found = left(place / case.leaves)
        assert found.keys() == expected.keys(), before
        assert not [one for one in expected if found[one] != expected[one]], before


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "command" in metafunc.fixturenames:
        metafunc.parametrize("command", cases())


@pytest.fixture(scope="session")
def forks(tmp_path_factory, tiny) -> Iterator[Forks]:
    """The process that runs commands. It has its own compilation cache, because it is killed while writing to it."""
    origin = tmp_path_factory.mktemp("origin")
    cache = os.environ.get("VDMKIT_FAULTS_CACHE") or str(tmp_path_factory.mktemp("cache"))
    environment = os.environ | {"VDMKIT_CACHE": cache}
    for name in ("JAX_COMPILATION_CACHE_DIR", "PYTHONDONTWRITEBYTECODE", "UV_RUN_RECURSION_DEPTH"):
        environment.pop(name, None)
    command = [sys.executable, str(HERE / "forks.py")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=environment, **pipes) as process:
        made = Forks(process, origin, {})
        data = f'[data]\nname = "troubled"\npath = "{Path(tiny).with_name("noise.npz")}"\nlevels = 17\n'
        (origin / "tiny.toml").write_text(f'extends = "{RECIPE}"\n{data}')
        np.save(origin / "some.npy", np.load(Path(tiny).with_name("noise.npz"))["test"][:6])
        coded = ("compress", "some.npy", "--ckpt", "run", "-o", "some.vdmz", "--chunk", "2", "--steps", "2")
        for arguments in (("run", "tiny.toml", "--out", "run", *TROUBLED), coded):
            found = made(origin, *arguments)
            assert found["code"] == 0, found
        (origin / "run" / "evaluation.json").unlink()
        yield made
        process.stdin.close()


def left(path: Path) -> dict[str, bytes]:
    """Returns what a command wrote: whole files, and the last checkpoint's arrays, read without vdmkit's reader."""
    if path.is_file():
        return {path.name: path.read_bytes()}
    names = [file.relative_to(path) for file in path.rglob("*") if file.is_file()]
    found = {str(name): TIMES.sub(b"", (path / name).read_bytes()) for name in names if is_compared(name)}
    return found | (arrays(path / "checkpoints") if (path / "checkpoints").is_dir() else {})


def is_compared(name: Path) -> bool:
    """Returns whether a file is compared: not specific to a process, not hidden, and not read by `arrays`."""
    hidden = any(part.startswith(".") for part in name.parts)
    return not hidden and name.name not in OF_A_PROCESS and name.parts[0] not in ("checkpoints", "tensorboard")


def arrays(checkpoints: Path) -> dict[str, bytes]:
    state = (checkpoints / str(steps_in(checkpoints)[-1]) / "state").resolve()
    reader = ocp.PyTreeCheckpointer()
    tree = reader.metadata(state).item_metadata.tree
    as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
    leaves = jax.tree_util.tree_leaves_with_path(reader.restore(state, restore_args=as_numpy))
    found = {jax.tree_util.keystr(path): np.asarray(leaf).tobytes() for path, leaf in leaves}
    assert len(found) > 5
    return found | {"steps": str(steps_in(checkpoints)).encode()}


@pytest.fixture
def case(command: str) -> Case:
    """The command under test."""
    return cases()[command]
