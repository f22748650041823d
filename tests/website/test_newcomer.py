# SPDX-License-Identifier: Apache-2.0
"""A newcomer follows the first two pages in a fresh clone."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import vdmkit

pytestmark = pytest.mark.slow

ROOT = Path(vdmkit.__file__).parents[1]
DIFFERENCE = r"^difference  -?\d\.\d{4} \+/- \d\.\d{4} bits/dim on these 297 images"
BLOCK = re.compile(r"(?:`([\w.]+)`:\n\n)?^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def clone(tmp_path_factory) -> Path:
    """A fresh clone of the committed files."""
    folder = tmp_path_factory.mktemp("newcomer") / "clone"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder)], check=True)
    return folder


def follow(clone: Path, page: str) -> dict[str, str]:
    """Follows a page in the clone, in order. Returns what each command and snippet printed."""
    printed = {}
    for name, language, code in BLOCK.findall((clone / "docs" / page).read_text()):
        if name:
            (clone / name).write_text(code)
        elif language == "python":
            printed["python"] = output(clone, [sys.executable, "-c", code])
        elif not language:
            for line in code.splitlines():
                words = shlex.split(line, comments=True)
                if words[:2] == ["uv", "run"]:  # what uv would install is installed here
                    program = ["-m", *words[2:]] if words[2] == "vdmkit" else words[3:]
                    printed[" ".join(words[2:])] = output(clone, [sys.executable, *program])
    return printed


def output(clone: Path, command: list[str]) -> str:
    """Runs a command with the code of the clone, asserts that it succeeds, and returns what it printed."""
    environment = os.environ | {"PYTHONPATH": str(clone)}
    done = subprocess.run(command, cwd=clone, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


def test_ten_minutes_to_a_number(clone):
    """The commands of the first page run and print the likelihood."""
    printed = follow(clone, "index.md")
    assert len(printed) == 6
    number = r"^\d\.\d{4} \+/- \d\.\d{4} bits/dim on these 297 images$"
    for command in ("vdmkit run digits", "vdmkit likelihood --ckpt runs/digits"):
        assert re.search(number, printed[command], re.MULTILINE)
    assert (clone / "grid.png").read_bytes().startswith(b"\x89PNG")
    assert re.search(DIFFERENCE, printed["vdmkit compare runs/digits runs/short"], re.MULTILINE)


def test_own_images_and_an_own_network_are_compared(clone):
    """The page on own images leads to two runs and their difference."""
    printed = follow(clone, "own.md")
    assert {"python pngs.py", "vdmkit check mine.toml"} < printed.keys()
    assert len(list((clone / "pngs/test").iterdir())) == 297
    first, second, difference = printed["python"].splitlines()
    value = r"-?\d\.\d{4} \+/- \d\.\d{4} \(95%: .*\)"
    assert all(re.fullmatch(value, line) for line in (first, second, difference))
    assert re.search(DIFFERENCE, printed["vdmkit compare runs/mine runs/plain"], re.MULTILINE)
    assert "first minus second" in (clone / "both.html").read_text()
