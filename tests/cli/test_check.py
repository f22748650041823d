# SPDX-License-Identifier: Apache-2.0
"""`vdmkit check` accepts what can be trained, and shows everything that is wrong with the rest."""

import json
import re

import pytest

from vdmkit.plugins import load_plugins
from vdmkit.registry import registry


@pytest.fixture
def keep_components():
    """What a test registers is gone after it."""
    load_plugins()
    known = [registry(kind).components for kind in ("weighting", "schedule")]
    before = [dict(components) for components in known]
    yield
    for components, old in zip(known, before, strict=True):
        components.clear()
        components.update(old)


def test_a_valid_recipe(run, recipe):
    """The user would not see what a recipe resolves to."""
    result = run("check", str(recipe), "--set", "training.steps=1234")
    assert result.code == 0
    assert f"{recipe} is valid." in result.out
    assert "adamw learning_rate=0.0002" in result.out
    assert "1,234 steps of 8 images" in result.out
    facts = dict(line.split(maxsplit=1) for line in result.out.splitlines()[1:])
    assert (facts["augmentation"], facts["objective"]) == ("none", "continuous time")
    assert facts["evaluation"] == "16 draws an image, continuous time"
    assert facts["estimator"].startswith("bound draws=16")
    assert (facts["sampler"], facts["grid"]) == ('ancestral kernel=(gaussian variance="small")', "uniform")
    assert facts["sampling"] == "250 steps to z_0, guidance 0, no labels"
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


@pytest.mark.usefixtures("keep_components")
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


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.network.dropout=1.5", "model.network.dropout: expected less than 1, found 1.5."),
        (
            "model.network.channels=0",
            "network 'small_unet': channels = 0: expected a positive multiple of 8, such as 8.",
        ),
        ("model.network={name='vdm_unet', blocks=0}", "blocks: expected greater than or equal to 1, found 0."),
        (
            "model.schedule={name='tabulated', betas=[0.5]}",
            "schedule 'tabulated': 1 betas: expected at least 2, all between 0 and 1.",
        ),
        ("sampling.grid={name='karras', rho=0}", "sampling.grid.rho: expected greater than 0, found 0."),
        (
            "sampling.grid={name='tabulated', times=[0.0]}",
            "grid 'tabulated': times = [0.0]: expected at least two that fall from 1 to 0.",
        ),
        (
            "sampling.grid={name='gammas', gammas=[-8.0, 0.0, 5.0]}",
            "grid gammas: it is of 2 steps, and 250 were asked for.",
        ),
        (
            "sampling.sampler.kernel=mixture",
            "kernel mixture: the prediction gives no probabilities of levels. "
            "Use prediction categorical or lattice, or kernel gaussian.",
        ),
        ("sampling.sampler={name='lms', order=5}", "sampler.order: expected less than or equal to 4, found 5."),
        (
            "sampling.label=3",
            "sampling.label = 3: network 'small_unet' is not told labels. "
            "Put it into network labelled, or leave sampling.label out.",
        ),
    ],
)
def test_values_that_no_component_can_have(run, recipe, override, message):
    """A recipe that passes the check would fail when it is run, or be refused in words that say a name twice."""
    result = run("check", str(recipe), "--set", override)
    assert (result.code, result.out) == (2, "")
    assert result.err.endswith(f"{message}\n")


def test_a_grid_that_is_of_no_bound(run, recipe):
    """A run of T steps would train on a part of the bound, or be evaluated on it after hours."""
    grid = "objective.grid={name='tabulated', times=[0.5, 0.1]}"
    result = run("check", str(recipe), "--set", grid, "--set", "objective.steps=1")
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("grid TabulatedGrid: it goes from gamma = ")


def test_labels_that_would_not_be_used(run, recipe):
    """Samples of a label that was asked for would be of any."""
    labelled = ("check", str(recipe), "--set", "model.network={name='labelled', network='small_unet'}")
    unused = run(*labelled, "--set", "sampling.label=3")
    assert (unused.code, unused.out) == (2, "")
    assert unused.err.startswith("sampling.label = 3 with sampling.guidance = 0, by which samples have no labels.")
    guided = (*labelled, "--set", "sampling.guidance=2")
    assert run(*guided, "--set", "sampling.label=10").err == "sampling.label = 10: expected 0 to 9.\n"
    assert "steps to z_0, guidance 2, label 9\n" in run(*guided, "--set", "sampling.label=9").out
    npz = ("--set", "data={name='npz', path='nowhere.npz'}")
    assert run(*guided, *npz).err == "sampling.guidance = 2: data 'npz' have no labels. Leave it out.\n"


SCHEDULES = '''
import equinox as eqx
import vdmkit
from vdmkit.noise import AbstractSchedule


class Schedule(AbstractSchedule):
    what: str = eqx.field(static=True)
    gamma_min: float = eqx.field(static=True, default=-8.0)
    gamma_max: float = eqx.field(static=True, default=5.0)

    def __call__(self, t):
        if self.what == "raises":
            return {}["gamma"]
        straight = self.gamma_min + 13 * t
        return {"falls": -straight, "pair": (straight, straight), "words": "5", "row": straight[None]}[self.what]


@vdmkit.register("schedule", "odd")
def odd(*, what: str):
    """A schedule that is none."""
    return Schedule(what)
'''


@pytest.mark.usefixtures("keep_components")
def test_schedules_that_are_none(run, recipe, tmp_path):
    """A plugin's schedule that fails, falls or gives something else would pass the check, or end in JAX's words."""
    plugin = tmp_path / "odd.py"
    plugin.write_text(SCHEDULES)
    name, number = f"schedule 'odd' of {plugin}", "expected one floating-point number, of shape ()."
    for what, message in {
        "raises": f"{name} cannot be evaluated: KeyError: 'gamma'",
        "falls": f"{name}: gamma does not rise: gamma(0.00) = 8, gamma(0.05) = 7.35.",
        "pair": f"{name}: gamma(t) of one t is tuple: {number}",
        "words": f"{name}: gamma(t) of one t is str: {number}",
        "row": f"{name}: gamma(t) of one t is float64 of shape (1,): {number}",
    }.items():
        schedule = f"model.schedule={{name='odd', what='{what}'}}"
        result = run("check", str(recipe), "--plugin", str(plugin), "--set", schedule)
        assert (result.code, result.out) == (1 if what == "raises" else 2, "")
        assert result.err.startswith(message)
        assert result.err.count("\n") == 1
