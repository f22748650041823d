# SPDX-License-Identifier: Apache-2.0
"""Kills at random moments under a seed: the same command goes on, and leaves what it leaves when nothing happens.

Commands run in forks of a process that has loaded vdmkit: see forks.py. A case is a command, a signal, the number of a
change of a file, and a delay; a failure prints it.
"""

import json
import os
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from vdmkit.checkpoint import steps_in

HERE = Path(__file__).parent
PLUGIN = ("--plugin", str(HERE.parent / "system" / "tiny.py"))
REFERENCE = HERE.parent / "reference" / "cifar10-tiny"
TIMES = re.compile(rb'"(steps_per_second|crc32)": [^,}]*')  # in lines of metrics
TOOK = ("seconds", "work")  # from the signal to the end
OF_A_PROCESS = {"manifest.json", "recipe.toml"}  # hold times, a random name, the folder of the test


@dataclass(frozen=True)
class Case:
    """A command, and the file or folder that it leaves. `again` are words with which a finished one is refused."""

    arguments: tuple[str, ...]
    leaves: str
    again: str = "\0"
    more: tuple[str, ...] = ()  # arguments when it is run again


def cases() -> dict[str, Case]:
    (theirs,) = REFERENCE.glob("checkpoints-*/ckpt-1.flax")
    few, config = ("--nodes", "11", "--images", "8"), str(REFERENCE / "config.json")
    coded = ("some.npy", "--ckpt", "run", "-o", "new.vdmz", "--chunk", "2", "--steps", "2")
    return {
        "train": Case(("run", "tiny.toml", "--out", "new", *PLUGIN), "new"),
        "evaluate": Case(("evaluate", "--ckpt", "run"), "run/evaluation.json"),
        "likelihood": Case(("likelihood", "--ckpt", "run", "--set", "likelihood.batch_size=5"), "run/likelihood"),
        "study": Case(("study", "--ckpt", "run", "--steps", "1,2", *few), "run/schedule"),
        "pack": Case(("data", "pack", "tiny.toml", "-o", "new", *PLUGIN), "new"),
        "compress": Case(("compress", *coded), "new.vdmz", "finished already", ("--resume",)),
        "decompress": Case(("decompress", "some.vdmz", "--ckpt", "run", "-o", "new"), "new", "not an empty folder"),
        "import": Case(("import", str(theirs), "--config", config, "-o", "new"), "new", "not empty"),
    }


@dataclass(frozen=True)
class Forks:
    """The process that runs commands, and the folder with a run that nothing disturbed."""

    process: subprocess.Popen
    origin: Path
    known: dict[str, tuple[int, dict[str, bytes]]]

    def __call__(
        self, cwd: Path, *arguments: str, signal: str = "KILL", moment: int = 0, delay: float = 0
    ) -> dict[str, Any]:
        request = {"cwd": str(cwd), "arguments": arguments, "signal": signal, "moment": moment, "delay": delay}
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        found = json.loads(self.process.stdout.readline())
        assert "Traceback" not in found["err"], (request, found)
        return found

    def whole(self, name: str, case: Case) -> tuple[int, dict[str, bytes]]:
        """Returns the number of moments of a command that nothing disturbs, and what it leaves."""
        if name not in self.known:
            folder = shutil.copytree(self.origin, self.origin.with_name(f"never-{name}"))
            found = self(folder, *case.arguments)
            assert found["code"] == 0, found
            self.known[name] = found["moments"], left(folder / case.leaves)
        return self.known[name]


@pytest.fixture(scope="module")
def forks(tmp_path_factory, tiny) -> Iterator[Forks]:
    """The process, with compiled functions of its own, since it is killed while it writes them."""
    origin = tmp_path_factory.mktemp("origin")
    cache = os.environ.get("VDMKIT_FAULTS_CACHE") or str(tmp_path_factory.mktemp("cache"))
    environment = os.environ | {"VDMKIT_CACHE": cache}
    for name in ("JAX_COMPILATION_CACHE_DIR", "PYTHONDONTWRITEBYTECODE", "UV_RUN_RECURSION_DEPTH"):
        environment.pop(name, None)
    command = [sys.executable, str(HERE / "forks.py")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=environment, **pipes) as process:
        made = Forks(process, origin, {})
        shutil.copy(tiny, origin / "tiny.toml")
        np.save(origin / "some.npy", np.load(Path(tiny).with_name("noise.npz"))["test"][:6])
        coded = ("compress", "some.npy", "--ckpt", "run", "-o", "some.vdmz", "--chunk", "2", "--steps", "2")
        for arguments in (("run", "tiny.toml", "--out", "run", *PLUGIN), coded):
            found = made(origin, *arguments)
            assert found["code"] == 0, found
        (origin / "run" / "evaluation.json").unlink()
        yield made
        process.stdin.close()


def left(path: Path) -> dict[str, bytes]:
    """Returns what a command left: arrays of the last checkpoint, read without vdmkit's reader, and whole files."""
    if path.is_file():
        return {path.name: path.read_bytes()}
    names = [file.relative_to(path) for file in path.rglob("*") if file.is_file()]
    found = {str(name): TIMES.sub(b"", (path / name).read_bytes()) for name in names if is_compared(name)}
    return found | (arrays(path / "checkpoints") if (path / "checkpoints").is_dir() else {})


def is_compared(name: Path) -> bool:
    """Returns whether a file is not of one process, nor hidden, as an unfinished one is, nor read by `arrays`."""
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


def halves(path: Path, expected: dict[str, bytes]) -> list[str]:
    """Returns the files of a killed command that are there under their names, but not as they should be."""
    training = (path / "metrics.jsonl").exists()  # grows
    found = {} if training or not path.exists() or (path / "checkpoints").exists() else left(path)
    return [name for name, data in found.items() if name in expected and data != expected[name]]


def kill(forks: Forks, folder: Path, name: str, rng: random.Random, most: int) -> list[dict[str, Any]]:
    """Runs a command in a copy of the folder, kills it at most so often, and runs it to its end. Returns the kills."""
    case, place, killed = cases()[name], shutil.copytree(forks.origin, folder), []
    moments, expected = forks.whole(name, case)
    arguments = case.arguments
    while len(killed) < most:
        delay = rng.choice([0, 0, rng.uniform(0, 1)])
        how = {"signal": rng.choice(["KILL", "TERM"]), "moment": rng.randint(1, moments), "delay": delay}
        found = forks(place, *arguments, **how)
        arguments = (*case.arguments, *case.more)
        if found["code"] == 0 or case.again in found["err"]:  # it ended before, or the signal came too late
            break
        killed.append({"command": name, **how, "code": found["code"]} | {key: found.get(key) for key in TOOK})
        assert found["code"] == {"KILL": -9, "TERM": 3}[how["signal"]], (killed[-1], found["err"])
        assert how["signal"] == "KILL" or found["work"] < 10, killed[-1]
        assert not halves(place / case.leaves, expected), killed
    again = forks(place, *arguments)
    assert again["code"] == 0 or case.again in again["err"], (killed, again)
    found = left(place / case.leaves)
    assert found.keys() == expected.keys(), killed
    assert not [one for one in expected if found[one] != expected[one]], killed
    shutil.rmtree(folder)
    return killed


@pytest.mark.slow
@pytest.mark.parametrize("name", cases())
def test_kills(forks, tmp_path, chosen, name):
    """False if a kill changed a result, lost work for good, or left a file that another command believes."""
    rng, killed, count = random.Random(f"{chosen.seed} {name}"), [], -(-chosen.cases(50) // len(cases()))
    while len(killed) < count:
        killed += kill(forks, tmp_path / "killed", name, rng, most=min(3, count - len(killed)))
    slowest = [max((one[key] for one in killed if one["signal"] == "TERM"), default=0) for key in TOOK]
    print(
        f"\n{len(killed)} kills, seed {chosen.seed}; after SIGTERM at most {slowest[0]:.1f} s, {slowest[1]:.1f} of work"
    )
    for one in killed:
        print(json.dumps(one))
