# SPDX-License-Identifier: Apache-2.0
"""README, CITATION.cff and CHANGELOG.md are correct."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import vdmkit
from vdmkit import __version__
from vdmkit.recipes import shipped_recipes

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


SNIPPETS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.system
def test_the_python_shown_runs(tmp_path, monkeypatch, capsys):
    """The Python of the README runs as shown."""
    monkeypatch.chdir(tmp_path)
    quick = {"training.steps": 2, "model.network.channels": 8, "evaluation.draws": 2, "sampling.steps": 1}
    run = vdmkit.train("digits", overrides=quick)
    capsys.readouterr()
    names = {"vdmkit": vdmkit}
    assert SNIPPETS[0].count("\nestimate = ") == 1
    exec(SNIPPETS[0].replace("\nestimate = ", "\nimages = images[:12]\nestimate = "), names)  # of all it takes a minute
    assert capsys.readouterr().out == f"{names['estimate'].bits_per_dim}\n"
    assert names["samples"].shape == (16, *run.model.shape)
    exec(SNIPPETS[1], names | {"MyNetwork": lambda: run.model.network})


@pytest.mark.slow
def test_the_component_shown_trains(tmp_path):
    """The one-file schedule of the README trains with the command below it."""
    (tmp_path / "bent.py").write_text(SNIPPETS[2])
    (command,) = re.findall(r"^uv run vdmkit (run .*--plugin.*)$", README, re.MULTILINE)
    quick = "training.steps=3 training.batch_size=4 model.network.channels=8 evaluation.draws=2 sampling.steps=1"
    words = command.split() + [word for key in quick.split() for word in ("--set", key)]
    done = subprocess.run([sys.executable, "-m", "vdmkit", *words], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "runs/bent/evaluation.json").read_text())["step"] == 3


def test_files_named_exist():
    """Every recipe, folder and document that the README names exists."""
    named = re.findall(r"\]\(([^)#]+)\)", README) + re.findall(r"\brecipes/\w+\.toml", README)
    assert len(named) > 4
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_recipes_named_come_with_vdmkit():
    """Every recipe in the commands of the README comes with vdmkit."""
    named = re.findall(r"vdmkit (?:run|check) ([\w/]+)", README) + re.findall(r"--to ([\w/]+)", README)
    assert len(named) > 6
    assert set(named) - {"RECIPE"} <= set(shipped_recipes())


def test_citation_has_this_version():
    """CITATION.cff gives the current version."""
    assert f"version: {__version__}\n" in (ROOT / "CITATION.cff").read_text()


def test_changelog_has_this_version():
    """The changelog has a section for the current version, below one for unreleased changes."""
    headings = re.findall(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == "[Unreleased]"
    assert re.fullmatch(rf"\[{re.escape(__version__)}\] - \d{{4}}-\d\d-\d\d", headings[1])
