# SPDX-License-Identifier: Apache-2.0
"""Commands accept the name of a shipped recipe from any folder. Training by name is tested in test_readme.py."""

from pathlib import Path

import pytest

from vdmkit.experiments import RunFolder
from vdmkit.recipes import load_recipe, shipped_recipes


@pytest.mark.costly
def test_check_takes_a_name(run):
    """`vdmkit check` accepts the name of a shipped recipe."""
    result = run("check", "digits/edm")
    assert result.code == 0, result.err
    assert result.out.startswith("digits/edm is valid.")


def test_a_typing_mistake_is_one_message(run):
    """For a misspelt recipe name the nearest names are suggested."""
    refused = run("run", "digts")
    assert (refused.code, refused.out) == (2, "")
    assert refused.err.startswith('digts: cannot read the recipe: no such file. Did you mean "digits" or ')


@pytest.mark.parametrize("name", ["digits/edm", str(shipped_recipes()["digits/edm"])])
def test_the_folder_of_a_run_is_that_of_its_path(run, name):
    """A recipe has the same run folder by name as by path, the one that the help states."""
    assert "runs/edm for cifar10/edm" in " ".join(run("run", "--help").out.split())
    Path("runs").mkdir()
    Path("runs/edm").write_text("in the way")
    assert run("run", name).err.startswith("runs/edm: a file, where a folder is expected.")


def test_a_run_by_name_is_a_run_by_path(tmp_path):
    """A run started by name can be resumed by path."""
    path = shipped_recipes()["digits/ddim"]  # it extends a recipe that extends another
    folder = RunFolder(tmp_path / "ddim")
    folder.write_recipe(load_recipe("digits/ddim"), path.read_text())
    folder.check(load_recipe(path))
    assert load_recipe(folder.resolved_recipe) == load_recipe(path)
