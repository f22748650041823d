# SPDX-License-Identifier: Apache-2.0
"""Every kind of file that vdmkit reads, with bytes changed, cut, repeated and inserted, is read or refused.

`uv run pytest -m slow tests/faults/test_fuzz.py` reads 10,000 files of each kind, and VDMKIT_FAULTS_COUNT sets a
different number. A separate process reads them: see fuzzed.py.
"""

import ast
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent


def kinds() -> list[str]:
    """Returns the names in kinds.py, which only the other process imports."""
    (table,) = (
        node.value
        for node in ast.parse((HERE / "kinds.py").read_text()).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "KINDS"
    )
    assert isinstance(table, ast.Dict)
    return [ast.literal_eval(key) for key in table.keys if key]


@pytest.fixture(scope="module")
def fuzz(chosen) -> Iterator[Callable[..., dict[str, Any]]]:
    """`fuzz(kind, count, folder)` reads this many changed files of a kind, and returns the answer of fuzzed.py."""
    started: list[subprocess.Popen] = []

    def start() -> subprocess.Popen:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        environment = os.environ | {"JAX_PLATFORMS": "cpu"}
        started.append(subprocess.Popen([sys.executable, str(HERE / "fuzzed.py")], env=environment, **pipes))
        return started[-1]

    def fuzz(kind: str, count: int, folder: Path) -> dict[str, Any]:
        process = started[-1] if started and started[-1].poll() is None else start()
        request = {"kind": kind, "count": count, "seed": chosen.seed, "folder": str(folder)}
        process.stdin.write(json.dumps(request) + "\n")
        process.stdin.flush()
        answer = process.stdout.readline()
        assert answer, f"signal {-process.wait()} (14 and 27: a hang) at the file in {folder}; seed {chosen.seed}"
        found = json.loads(answer)
        assert not found["wrong"], f"{found['wrong']}\nat the file in {folder}; seed {chosen.seed}"
        return found

    yield fuzz
    for process in started:
        process.stdin.close()
        process.stdout.close()
        process.wait()


@pytest.mark.costly
@pytest.mark.parametrize("kind", kinds())
def test_a_few_of_each_kind(fuzz, kind, tmp_path):
    """A damaged or hostile file is read or refused in time and memory, without side effects."""
    assert fuzz(kind, 200, tmp_path)["cases"] > 100, "hypothesis leaves out what it has tried"


@pytest.mark.slow
@pytest.mark.parametrize("kind", kinds())
def test_many_of_each_kind(fuzz, kind, tmp_path, chosen):
    """The same holds for 10,000 damaged or hostile files of each kind."""
    found = fuzz(kind, chosen.cases(10_000), tmp_path)
    memory = f"{found['memory'] / 1e6:.0f} MB"
    print(f"\n{kind}: {found['cases']:,} cases, {found['refused']:,} refused, {found['slowest']:.2f} s, {memory}")
