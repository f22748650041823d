# SPDX-License-Identifier: Apache-2.0
"""The code and commands of docs/tutorial.md work."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import jax
import pytest

from vdmkit.plugins import allow
from vdmkit.recipes import load_recipe

ROOT = Path(__file__).parents[1]
TUTORIAL = (ROOT / "docs" / "tutorial.md").read_text()
QUICK = {  # by the first word after the command
    "digits": "training.steps=3 training.batch_size=4 model.network.channels=8 evaluation.draws=2 sampling.steps=1",
    "bars.toml": "training.steps=3 training.batch_size=4 data.count=40 evaluation.draws=2 sampling.steps=2",
    "--ckpt": "likelihood.images=8",
}
CACHE = {
    "JAX_COMPILATION_CACHE_DIR": str(jax.config.jax_compilation_cache_dir),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Returns a folder with every file that the tutorial shows."""
    folder = tmp_path_factory.mktemp("tutorial")
    for name, code in re.findall(r"`([\w/-]+\.(?:py|toml))`:\n\n```\w+\n(.*?)```", TUTORIAL, re.DOTALL):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(code)
    return folder


def install(package: Path) -> None:
    """Writes what `pip install -e` adds to the path: the metadata with the entry points."""
    project = tomllib.loads((package / "pyproject.toml").read_text())["project"]
    about = package / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    groups = project["entry-points"].items()
    lines = [line for group, names in groups for line in (f"[{group}]", *(f"{k} = {v}" for k, v in names.items()))]
    (about / "entry_points.txt").write_text("\n".join(lines))


def settings(words: list[str]) -> list[str]:
    """Returns overrides that shorten a command of the tutorial to seconds."""
    keys = QUICK.get(words[1], "").split() if words[0] in ("run", "likelihood") else []
    keys += ["likelihood.estimator.draws=2"] if "runs/two_speed" in words and keys else []
    return [word for key in keys for word in ("--set", key)]


@pytest.mark.slow
def test_its_code_and_commands_run(folder, vdmkit_in, monkeypatch):
    """The files and commands of the tutorial work in the order in which they are given."""
    program, printed = vdmkit_in(folder), []
    commands = re.findall(r"^uv (run|pip) (\w+) (.*)$", TUTORIAL, re.MULTILINE)
    assert len(commands) == 13
    for how, what, rest in commands:
        words = rest.split()
        if how == "pip":
            install(folder / words[-1])
            monkeypatch.syspath_prepend(folder / words[-1])
        elif what == "pytest":
            environment = os.environ | {"PYTHONPATH": str(folder), **CACHE}
            command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *words]
            done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        else:
            done = program(*words, *settings(words))
            assert done.code == 0, f"{words}\n{done.out}{done.err}"
            printed.append(done.out)
    assert re.search(r"^  solver        off by [+-]0\.\d+, ", printed[-2], re.MULTILINE)
    assert len(re.findall(r"^image +\d+: log P = -[\d.]+ \+/- [\d.]+ nats$", printed[-1], re.MULTILINE)) == 3
    coarse = ("--set", "likelihood.images=8", "--set", "likelihood.estimator.gammas=4")
    refused = program("likelihood", "--ckpt", "runs/bars", *coarse)
    assert (refused.code, refused.out) == (4, "")
    assert "not a likelihood: the solver has not converged: a finer solve differs by" in refused.err


def test_its_recipe_is_valid(folder):
    """The recipe of the tutorial is valid and chooses the tutorial's components."""
    files = [folder / f"{name}.py" for name in ("bars", "dense", "midpoint", "trapezoid")]
    allow(files)
    recipe = load_recipe(folder / "bars.toml", kept=files)
    chosen = (recipe.data, recipe.model.network, recipe.sampling.sampler, recipe.likelihood.estimator)
    assert [choice.name for choice in chosen] == ["bars", "dense", "midpoint", "trapezoid"]


def test_files_named_exist():
    """Every file that the tutorial links to exists."""
    named = [name for name in re.findall(r"\]\(([^)#]+)\)", TUTORIAL) if "://" not in name]
    assert named
    assert [name for name in named if not (ROOT / "docs" / name).exists()] == []
