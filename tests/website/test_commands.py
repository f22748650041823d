# SPDX-License-Identifier: Apache-2.0
"""The commands and Python of the pages: all commands are valid, and those of the pages listed here run.

The others run in tests/test_tutorial.py, test_newcomer.py (start and own images) and test_site.py (the tour). The
models here have three training steps.
"""

import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer

import vdmkit
from vdmkit.cli.app import app

ROOT = Path(vdmkit.__file__).parents[1]
FILES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted(ROOT.glob("plugins/*/README.md"))]
TEXTS = {str(path.relative_to(ROOT)): path.read_text() for path in FILES}


def commands(text: str) -> list[list[str]]:
    """Returns the words of each vdmkit command on a page, without pipes and redirections."""
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    blocks = [code for language, code in fenced if not language]
    lines = re.findall(
        r"(?:^|\| |& )(?:uv run (?:--\w+ \S+ )*)?vdmkit ([a-z][^|>\n]*)", "\n".join(blocks), re.MULTILINE
    )
    return [shlex.split(line, comments=True) for line in lines]


COMMANDS = [
    pytest.param(words, id=f"{path}: {' '.join(words)}") for path, text in TEXTS.items() for words in commands(text)
]


@pytest.mark.parametrize("words", COMMANDS)
def test_commands_are_understood(words):
    """Every command on the pages has valid options."""
    if words[0] == "hardest":  # which the tutorial shows how to write
        return
    command: Any = typer.main.get_command(app)
    while hasattr(command, "commands"):
        name, *words = words
        command = command.get_command(None, name)
        assert command, f"there is no command {name}"
    command.make_context(name, words)


def test_there_are_commands():
    """Commands are found on the pages."""
    assert len(COMMANDS) > 60


PAGES = ["README.md", *(f"docs/{name}.md" for name in ("classification", "compression", "data", "schedules"))]
# commands that need a download, a user's file, an accelerator, or a pipe
NOT_HERE = re.compile(r"vdm_|cifar10|import |official|--inception|mine\.toml|bent|compress -|doctor")
TRAINING = "training.steps=3 training.batch_size=4 evaluation.draws=2 sampling.steps=1 sampling.count=2"
QUICK = {
    "run": [word for key in TRAINING.split() for word in ("--set", key)],
    "study": ["--images", "8", "--nodes", "21", "--steps", "10"],
    "quality": ["-n", "8", "--steps", "1"],
    "bench": ["--seconds", "0"],
    **{name: ["--set", "likelihood.images=8"] for name in ("likelihood", "classify", "compare")},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory, vdmkit_in) -> Path:
    """A folder with the runs and images that the pages use."""
    folder = tmp_path_factory.mktemp("pages")
    for recipe, out in {"digits": "digits", "digits_eps": "other", "digits/classifier_free": "classifier_free"}.items():
        done = vdmkit_in(folder)("run", recipe, "--out", f"runs/{out}", *QUICK["run"])
        assert done.code == 0, done.err
    images = vdmkit.load(folder / "runs/digits").data("test").pixels[:4]
    for name in ("digits.npy", "images.npy"):
        np.save(folder / name, images)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_the_commands_run(page, folder, vdmkit_in):
    """The commands of a page run in their order."""
    shown = [words for words in commands(TEXTS[page]) if not NOT_HERE.search(" ".join(words))]
    assert len(shown) > 1
    for words in shown:
        done = vdmkit_in(folder)(*words, *QUICK.get(words[0], ()))
        assert done.code == 0, f"{words}\n{done.out}{done.err}"


@pytest.mark.slow
@pytest.mark.parametrize("page", ["docs/accelerators.md", "docs/compression.md"])
def test_the_python_runs(page, folder, monkeypatch):
    """The Python of a page runs."""
    monkeypatch.chdir(folder)
    (code,) = re.findall(r"```python\n(.*?)```", TEXTS[page], re.DOTALL)
    names = {"vdmkit": vdmkit}
    exec(code.replace(".pixels\n", ".pixels[:8]\n"), names)
    assert len(names["images"]) in (8, 20)
