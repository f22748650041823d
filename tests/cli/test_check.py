# SPDX-License-Identifier: Apache-2.0
"""`vdmkit check` accepts recipes that can be trained, and lists all errors of the others."""

import json
import os
import re

import numpy as np
import pytest

from vdmkit.plugins import load_plugins
from vdmkit.registry import registry


@pytest.fixture
def keep_components():
    """Restores the registries after each test."""
    load_plugins()
    known = [registry(kind).components for kind in ("weighting", "schedule")]
    before = [dict(components) for components in known]
    yield
    for components, old in zip(known, before, strict=True):
        components.clear()
        components.update(old)


def test_a_valid_recipe(run, recipe):
    """`vdmkit check` prints what a recipe resolves to."""
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
    """`vdmkit check --json` prints the resolved recipe."""
    result = run("check", str(recipe), "--json", "--set", "seed=9")
    resolved = json.loads(result.out)
    assert resolved["seed"] == 9
    assert resolved["model"]["path"] == {"name": "variance_preserving"}


def test_all_problems_at_once(run, recipe):
    """All errors of a recipe are reported at once."""
    text = recipe.read_text().replace("fixed_linear", "fixed_liner").replace("steps = 5", 'steps = "5"\nsped = 1')
    recipe.write_text(text)
    result = run("check", str(recipe))
    assert (result.code, result.out) == (2, "")
    lines = result.err.splitlines()
    assert [line.split(":")[1] for line in lines] == ["4", "12", "13"]
    assert 'Did you mean "fixed_linear"?' in lines[0]


@pytest.mark.usefixtures("keep_components")
def test_plugin_file(run, recipe, tmp_path):
    """A component of a plugin file can be used without installing a package."""
    plugin = tmp_path / "mine.py"
    plugin.write_text(
        "import vdmkit\nfrom vdmkit.losses import Snr\n@vdmkit.register('weighting', 'mine')\n"
        "def mine(*, power: int = 2):\n    '''A weighting.'''\n    return Snr(power=float(power))\n"
    )
    arguments = ["check", str(recipe), "--set", "objective.weighting=mine"]
    assert run(*arguments).code == 2
    result = run(*arguments, "--plugin", str(plugin))
    assert result.code == 0
    assert "mine power=2" in result.out


MISSING = {
    "data={name='folder', train='no_such', test='no_such'}": "no_such: no such folder. Set data.train and data.test",
    "data={name='folder', train='no_such', test='no_such', shape=[8, 8, 3]}": "no_such: no such folder. Set data.train",
    "data={name='folder', train='pipes', test='pipes', shape=[8, 8, 3]}": "pipes/f.png: a FIFO (named pipe), where a",
    "data={name='npz', path='no_such.npz'}": "no_such.npz: no such file. Set data.path",
    "data={name='npz', path='half.npz'}": "half.npz: holds no array 'test' (arrays in it: train).",
    "data={name='cifar10', path='no_such.tar.gz'}": "no_such.tar.gz: no such file. Give data.path",
    "data={name='cifar10', path='.'}": ".: holds no data_batch_1, data_batch_2,",
    "data={name='imagenet_old', train='no_such', test='no_such'}": "no_such: no such folder. Set data.train",
    "data={name='imagenet_new', path='no_such'}": "no_such/train_data_batch_1: no such file",
}


@pytest.mark.parametrize("data", MISSING)
def test_data_that_cannot_be_read(run, recipe, data):
    """If the data cannot be read, the recipe is called valid and the reason is given, with exit code 1."""
    np.savez("half.npz", train=np.zeros((3, 8, 8, 1), np.uint8))
    os.mkdir("pipes")
    os.mkfifo("pipes/f.png")
    result = run("check", str(recipe), "--set", data)
    assert result.code == 1
    assert result.out.startswith(f"{recipe} is valid, but its data cannot be read.\n")
    assert result.err.startswith(MISSING[data])
    assert result.err.count("\n") == 1
    counted = "shape" in data or "cifar" in data or "imagenet" in data or "half" in data
    assert bool(re.search(r"parameters +\d", result.out)) == counted
    as_json = run("check", str(recipe), "--set", data, "--json")
    assert (as_json.code, as_json.err) == (1, result.err)
    assert json.loads(as_json.out)["training"]["steps"] == 5


def test_data_that_the_first_run_downloads(run, recipe, monkeypatch, tmp_path):
    """Data that must be downloaded first are announced with size and address, and pass."""
    monkeypatch.setenv("VDMKIT_CACHE", str(tmp_path))
    first_line = f"{recipe} is valid. Its first run downloads the data: 170 MB from https://www.cs.toronto.edu/"
    result = run("check", str(recipe), "--set", "data=cifar10")
    assert (result.code, result.err) == (0, "")
    assert result.out.startswith(first_line)
    other = run("check", str(recipe), "--set", "data={name='cifar10', url='https://example.org/c.tar.gz'}")
    assert other.out.startswith(f"{recipe} is valid. Its first run downloads the data: https://example.org/c.tar.gz\n")
    (tmp_path / "cifar-10-python.tar.gz").touch()  # what is in it, the run finds out
    assert run("check", str(recipe), "--set", "data=cifar10").out.startswith(f"{recipe} is valid.\n")


FIT = {
    "channels=12": "model.network.channels: expected a multiple of 8, found 12.",
    "{name='vdm_unet', channels=48}": "model.network.channels: expected a multiple of 32, found 48.",
    "{name='dit', width=96, heads=7}": "network dit: width = 96, heads = 7: expected a width that the heads divide.",
}


@pytest.mark.parametrize("network", FIT)
@pytest.mark.parametrize("data", ["digits", "cifar10", "{name='folder', train='no_such', test='no_such'}"])
def test_channels_that_do_not_fit_are_found_without_the_data(run, recipe, network, data):
    """Networks that do not fit the channels are refused before any data are read."""
    key = "model.network" + ("=" if "{" in network else ".")
    result = run("check", str(recipe), "--set", key + network, "--set", f"data={data}")
    assert result.code == (1 if "dit" in network else 2)  # a plugin's own error is not known to be the recipe's
    assert result.out == ""
    assert FIT[network] in result.err


def test_sizes_that_may_fit_the_data_are_not_refused_without_them(run, recipe):
    """A patch size is checked only if the size of the images is known."""
    network = "model.network={name='dit', patch=11}"
    missing = ("--set", "data={name='folder', train='no_such', test='no_such'}")
    assert "is valid, but its data cannot be read" in run("check", str(recipe), "--set", network, *missing).out
    assert "8x8 pixels in patches of 11" in run("check", str(recipe), "--set", network).err


def test_parts_of_how_many(run, recipe):
    """`--fsdp` requires `--devices`."""
    result = run("check", str(recipe), "--fsdp")
    assert (result.code, result.err) == (2, "--fsdp: say for how many, with --devices.\n")


@pytest.mark.costly
def test_memory_on_devices_that_are_not_there(run_process, recipe):
    """`vdmkit check --devices` reports the memory for devices that this machine does not have."""
    small = ("--set", "model.network.channels=8", "--devices", "2", "--fsdp")
    result = run_process("check", str(recipe), *small)
    assert result.code == 0, result.err
    assert "on each of 2 devices: state" in result.out


@pytest.mark.costly
@pytest.mark.parametrize("data", ["digits", "folder"])
def test_a_schedule_that_may_not_follow_the_variance(run, recipe, data):
    """Invalid uses of schedule_loss = "variance" are found, whether or not the data can be read."""
    if data == "folder":
        recipe.write_text(recipe.read_text().replace('"digits"', '"folder"\ntrain = "no_such"\ntest = "no_such"'))
    overrides = ("objective.schedule_loss=variance", "objective.steps=5", "objective.weighting=simple")
    result = run("check", str(recipe), *(part for each in overrides for part in ("--set", each)))
    assert result.code == 2
    assert result.err.count('objective.schedule_loss = "variance"') == 3
    assert "interior` of schedule pinned" in result.err
    accepted = ("objective.schedule_loss=variance", "model.schedule.name=pinned")
    result = run("check", str(recipe), *(part for each in accepted for part in ("--set", each)))
    assert result.out.startswith(f"{recipe} is valid")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.network.dropout=1.5", "model.network.dropout: expected less than 1, found 1.5."),
        (
            "model.network.channels=0",
            "model.network.channels: expected greater than or equal to 8, found 0.",
        ),
        ("optimizer.learning_rate=-1", "optimizer.learning_rate: expected greater than 0, found -1."),
        ("optimizer.b1=1.5", "optimizer.b1: expected less than or equal to 0.9999999, found 1.5."),
        ("optimizer.eps=-1", "optimizer.eps: expected greater than or equal to 1e-30, found -1."),
        ("optimizer.weight_decay=-1", "optimizer.weight_decay: expected greater than or equal to 0, found -1."),
        ("optimizer.warmup_steps=-1", "optimizer.warmup_steps: expected greater than or equal to 0, found -1."),
        ("optimizer.clip_norm=-1", "optimizer.clip_norm: expected greater than or equal to 0, found -1."),
        (
            "model.prediction={name='categorical', smoothing=-1}",
            "model.prediction.smoothing: expected greater than or equal to 1e-06, found -1.",
        ),
        (
            "training.batch_size=2147483648",
            "training.batch_size: expected less than or equal to 1000000, found 2147483648.",
        ),
        ("sampling.steps=2147483648", "sampling.steps: expected less than or equal to 10000, found 2147483648."),
        (
            "model.schedule={name='shifted_cosine', gamma_max=20, resolution=65536}",
            "schedule 'shifted_cosine': gamma goes from 0.562943 to 33.864: expected -30 to 30. "
            "In float32, z_t loses its noise below this range, and its image above it.",
        ),
        ("model.network={name='vdm_unet', blocks=0}", "blocks: expected greater than or equal to 1, found 0."),
        (
            "model.schedule={name='tabulated', betas=[0.5]}",
            "schedule 'tabulated': 1 betas: expected at least 2, all between 0 and 1.",
        ),
        ("sampling.grid={name='karras', rho=0}", "sampling.grid.rho: expected greater than or equal to 0.5, found 0."),
        (
            "sampling.grid={name='tabulated', times=[0.0]}",
            "grid 'tabulated': times = [0.0]: expected at least two that fall from 1 to 0.",
        ),
        (
            "sampling.grid={name='gammas', gammas=[-8.0, 0.0, 5.0]}",
            "grid gammas: it has 2 steps, but 250 were asked for.",
        ),
        (
            "sampling.sampler.kernel=mixture",
            "kernel mixture: the prediction gives no probabilities of levels. "
            "Use prediction categorical or lattice, or kernel gaussian.",
        ),
        ("sampling.sampler={name='lms', order=5}", "sampler.order: expected less than or equal to 4, found 5."),
        (
            "sampling.label=3",
            "sampling.label = 3: network 'small_unet' does not use labels. "
            "Put it into network label_conditioned, or remove sampling.label.",
        ),
    ],
)
def test_values_that_no_component_can_have(run, recipe, override, message):
    """Values that no component accepts are refused, with one message."""
    result = run("check", str(recipe), "--set", override)
    assert (result.code, result.out) == (2, "")
    assert result.err.endswith(f"{message}\n")


def test_a_grid_that_is_of_no_bound(run, recipe):
    """A grid that does not span the schedule is refused for a bound."""
    grid = "objective.grid={name='tabulated', times=[0.5, 0.1]}"
    result = run("check", str(recipe), "--set", grid, "--set", "objective.steps=1")
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("grid TabulatedGrid: it goes from gamma = ")


def test_labels_that_would_not_be_used(run, recipe):
    """A label without guidance, an invalid label, or guidance for unlabelled data is refused."""
    labelled = ("check", str(recipe), "--set", "model.network={name='label_conditioned', network='small_unet'}")
    unused = run(*labelled, "--set", "sampling.label=3")
    assert (unused.code, unused.out) == (2, "")
    assert unused.err.startswith("sampling.label = 3 with sampling.guidance = 0, by which samples have no labels.")
    guided = (*labelled, "--set", "sampling.guidance=2")
    assert run(*guided, "--set", "sampling.label=10").err == "sampling.label = 10: expected 0 to 9.\n"
    assert "steps to z_0, guidance 2, label 9\n" in run(*guided, "--set", "sampling.label=9").out
    npz = ("--set", "data={name='npz', path='nowhere.npz'}")
    assert run(*guided, *npz).err == "sampling.guidance = 2: data 'npz' have no labels. Remove this key.\n"


SCHEDULES = '''
import equinox as eqx
import vdmkit
from vdmkit.schedules import AbstractSchedule


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
    """A plugin's schedule that raises, decreases or returns the wrong type is refused by name."""
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
