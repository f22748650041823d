# SPDX-License-Identifier: Apache-2.0
"""`vdmkit check` accepts what can be trained, and shows everything that is wrong with the rest."""

import json
import re

import pytest

from vdmkit.plugins import load_plugins
from vdmkit.registry import registry


@pytest.fixture
def keep_weightings():
    """What a test registers is gone after it."""
    load_plugins()
    weightings = registry("weighting").components
    before = dict(weightings)
    yield
    weightings.clear()
    weightings.update(before)


def test_a_valid_recipe(run, recipe):
    """The user would not see what a recipe resolves to."""
    result = run("check", str(recipe), "--set", "training.steps=1234")
    assert result.code == 0
    assert f"{recipe} is valid." in result.out
    assert "adamw learning_rate=0.0002" in result.out
    assert "1,234 steps of 8 images" in result.out
    assert re.search(r"parameters +\d+,\d{3}\n", result.out)


def test_json_is_the_resolved_recipe(run, recipe):
    """Scripts would have to read the text that is made for people."""
    result = run("check", str(recipe), "--json", "--set", "seed=9")
    resolved = json.loads(result.out)
    assert resolved["seed"] == 9
    assert resolved["model"]["path"] == {"name": "variance_preserving"}


def test_all_problems_at_once(run, recipe):
    """A recipe would be corrected one run at a time."""
    text = recipe.read_text().replace("fixed_linear", "fixed_liner").replace("steps = 5", 'steps = "5"\nsped = 1')
    recipe.write_text(text)
    result = run("check", str(recipe))
    assert (result.code, result.out) == (2, "")
    lines = result.err.splitlines()
    assert [line.split(":")[1] for line in lines] == ["4", "12", "13"]
    assert 'Did you mean "fixed_linear"?' in lines[0]


@pytest.mark.usefixtures("keep_weightings")
def test_plugin_file(run, recipe, tmp_path):
    """A component of a file could not be used without installing a package."""
    plugin = tmp_path / "mine.py"
    plugin.write_text(
        "import vdmkit\nfrom vdmkit.objective import Snr\n@vdmkit.register('weighting', 'mine')\n"
        "def mine(*, power: int = 2):\n    '''A weighting.'''\n    return Snr(power=float(power))\n"
    )
    arguments = ["check", str(recipe), "--set", "objective.weighting=mine"]
    assert run(*arguments).code == 2
    result = run(*arguments, "--plugin", str(plugin))
    assert result.code == 0
    assert "mine power=2" in result.out


def test_data_that_is_missing_does_not_make_a_recipe_wrong(run, recipe):
    """A recipe could only be checked where its data is."""
    recipe.write_text(recipe.read_text().replace('"digits"', '"folder"\ntrain = "no_such"\ntest = "no_such"'))
    result = run("check", str(recipe))
    assert result.code == 0
    assert re.search(r"parameters +unknown: .*no_such", result.out)


@pytest.mark.parametrize("data", ["digits", "folder"])
def test_a_schedule_that_may_not_follow_the_variance(run, recipe, data):
    """Training on another loss than the bound would be found out after it, or where the data are not here."""
    if data == "folder":
        recipe.write_text(recipe.read_text().replace('"digits"', '"folder"\ntrain = "no_such"\ntest = "no_such"'))
    overrides = ("objective.schedule=variance", "objective.steps=5", "objective.weighting=simple")
    result = run("check", str(recipe), *(part for each in overrides for part in ("--set", each)))
    assert result.code == 2
    assert result.err.count('objective.schedule = "variance"') == 3
    assert "Put it into schedule pinned" in result.err
    accepted = ("objective.schedule=variance", "model.schedule.name=pinned")
    assert run("check", str(recipe), *(part for each in accepted for part in ("--set", each))).code == 0


def test_values_that_no_network_can_have(run, recipe):
    """A recipe that passes the check would fail when it is run."""
    result = run("check", str(recipe), "--set", "model.network.dropout=1.5")
    assert result.code == 2
    assert "dropout = 1.5" in result.err
