# SPDX-License-Identifier: Apache-2.0
"""What commands remember is what they found out, and only on equal code, values and arrays."""

import math
import os
import shutil
import sys
import types
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from vdmkit import remembered
from vdmkit.conformance.checking import Findings
from vdmkit.conformance.recipe import unless_proven
from vdmkit.devices import data_mesh
from vdmkit.losses import Elbo, LowDiscrepancy, Objective
from vdmkit.recipes import Recipe, load_recipe
from vdmkit.recipes import build as _initial
from vdmkit.recipes.build import build_state, initial_state_of, training_counts
from vdmkit.recipes.loading import text_if_own
from vdmkit.remembered import key_of, recall, remember
from vdmkit.training import TrainState, Update, initial_state, load_ahead, train_step
from vdmkit.training._compiled_step import compiled_step

PLUGIN = """
import vdmkit
@vdmkit.register("schedule", "line")
class Line(vdmkit.schedules.FixedLinear):
    pass
"""


@pytest.fixture
def command(monkeypatch, tmp_path) -> Path:
    """This process as one of a command of its own; the folder in which it remembers."""
    monkeypatch.setenv("VDMKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(remembered, "_remembers", [math.inf])  # no file is newer
    monkeypatch.setattr(remembered, "runs_plugin_files", lambda: False)
    return tmp_path / "cache" / "remembered"


@pytest.fixture
def names() -> Callable[[], str | None]:
    """`names()`: the name of one fact's entry, as a new process that loads the same modules would find it."""

    def names() -> str | None:
        remembered._code.cache_clear()
        return key_of("fact")

    return names


def test_a_changed_module_setting_or_device_is_another_fact(command, names, monkeypatch, tmp_path):
    """Checks of code that was edited since, or on other arithmetic, would pass for checks of this one."""
    file = tmp_path / "helper.py"
    monkeypatch.setitem(sys.modules, "helper", module := types.ModuleType("helper"))
    module.__file__ = str(file)
    file.write_text("x = 1")
    before = names()
    assert names() == before != key_of("another fact")
    file.write_text("x = 2")  # of the same length, within the resolution of a file's time
    assert names() != before
    file.write_text("x = 1")
    with jax.default_matmul_precision("highest"):
        assert names() != before
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_enable_fast_math=true")
    assert names() != before
    monkeypatch.delenv("XLA_FLAGS")
    (tmp_path / "numpy-0.1.dist-info").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    assert names() != before


def test_only_commands_remember(command, monkeypatch):
    """A function that a notebook replaced, or a plugin file that reads the clock, would be trusted for good."""
    assert key_of("fact")
    monkeypatch.setattr(remembered, "runs_plugin_files", lambda: True)
    assert key_of("fact") is None
    monkeypatch.undo()
    assert key_of("fact") is None  # a test


def test_nothing_is_remembered_of_code_that_was_edited_meanwhile(command, monkeypatch):
    """The verdict on the code that was loaded would be kept under the name of the code that is there now."""
    monkeypatch.setattr(remembered, "_remembers", [0.0])  # every file is newer
    assert key_of("fact") is None
    remember("one", b"1")
    assert recall("one") is None


DAMAGE = {
    "changed": lambda path, other: path.write_bytes(path.read_bytes()[:-1] + b"?"),
    "truncated": lambda path, other: os.truncate(path, 33),
    "empty": lambda path, other: os.truncate(path, 0),
    "of another name": lambda path, other: shutil.copy(other, path),
    "a folder": lambda path, other: (path.unlink(), path.mkdir()),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_memory_is_forgotten(command, damage):
    """A check would count as passed because of a file that says nothing of it."""
    for name in ("one", "other"):
        remember(name, name.encode())
    assert recall("one") == b"one"
    DAMAGE[damage](command / "one", command / "other")
    assert recall("one") is None
    assert recall("other") == b"other"


def test_another_users_memory_is_not_read(command, monkeypatch):
    """Who may write to a shared cache folder could have their program run."""
    remember("one", b"1")
    monkeypatch.setattr(os, "geteuid", lambda: -1)
    assert recall("one") is None


@pytest.fixture
def digits(digits_toml) -> Recipe:
    return load_recipe(digits_toml)


def test_a_check_is_run_again_on_other_values_or_arrays(command, digits):
    """A verdict on one recipe, model or image would be printed for another; a problem would be shown once only."""
    runs = []

    def ran(recipe: Recipe, *given: object, problems: tuple[str, ...] = ()) -> bool:
        before = len(runs)
        unless_proven(lambda: runs.append(1) or Findings(problems), recipe, "check", *given)
        return len(runs) > before

    model = {"w": np.zeros(2, np.float32)}
    assert ran(digits, model, problems=("wrong",))
    assert ran(digits, model)  # because it had a problem
    assert not ran(digits, model)
    steeper = replace(digits.model.schedule, params={**digits.model.schedule.params, "gamma_max": 4.0})
    assert ran(replace(digits, model=replace(digits.model, schedule=steeper)), model)
    assert ran(digits, {"w": np.array([0, 1e-30], np.float32)})
    assert ran(digits, {"w": np.zeros(2, np.float64)})
    assert ran(digits, {"v": np.zeros(2, np.float32)})
    assert not ran(digits, model)


def test_components_of_plugins_are_checked_every_time(command, digits_toml, tmp_path):
    """A plugin whose source, or what it reads, has changed would be trusted for what it was."""
    file = tmp_path / "line.py"
    file.write_text(PLUGIN)
    ours, theirs = (load_recipe(digits_toml, [f"model.schedule.name={name}"], [file]) for name in ("cosine", "line"))
    assert text_if_own(ours)
    assert text_if_own(theirs) is None
    runs: list[int] = []
    for _ in range(2):
        unless_proven(lambda: runs.append(1) or Findings(), theirs, "check")
    assert len(runs) == 2


@pytest.mark.costly
def test_the_kept_step_is_the_step(command, tiny_model, tiny_images):
    """A second start would train otherwise than the first one, or trace the network again."""
    update = Update(optax.sgd(0.1, momentum=0.9), 0.9, True)
    objective = Objective(LowDiscrepancy(), Elbo(), 0)
    batch = {"image": jnp.asarray(tiny_images.pixels[:4])}
    inputs = update, batch, jax.random.key(0, impl="unsafe_rbg")

    def after_two(step) -> list[bytes]:
        state = initial_state(jax.tree.map(jnp.copy, tiny_model), update.optimizer, objective)
        step = step(state)
        for _ in range(2):
            state, metrics = step(inputs, state)
        leaves = jax.tree.leaves((eqx.filter(state, eqx.is_array), dict(sorted(metrics.items()))))
        return [np.asarray(leaf).tobytes() for leaf in leaves]

    expected = after_two(lambda state: train_step)
    assert after_two(lambda state: compiled_step(load_ahead("recipe"), inputs, state)) == expected
    kept = {path.name for path in command.iterdir()}
    assert len(kept) == 3  # the program, and what it is the program of: arrays like these, and the recipe
    assert load_ahead("recipe").loading
    jax.clear_caches()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Update, "__call__", None)  # a trace would call it
        assert after_two(lambda state: compiled_step(load_ahead("recipe"), inputs, state)) == expected
    assert {path.name for path in command.iterdir()} == kept
    assert after_two(lambda state: compiled_step(load_ahead("another recipe"), inputs, state)) == expected
    assert len(kept) + 2 == len([*command.iterdir()])  # the same program


def test_the_kept_initial_state_is_the_state(command, digits_toml, monkeypatch):
    """A second start would train from other parameters than the first one."""
    recipe = load_recipe(digits_toml, ["model.network.name=none", "model.schedule.name=learned_monotone"])
    train = recipe.data.build().load("train")

    def described(state: TrainState) -> list[object]:
        arrays = jax.tree.leaves(eqx.filter(state, eqx.is_array))
        return [jax.tree.structure(state), [(str(jax.typeof(one)), np.asarray(one).tobytes()) for one in arrays]]

    expected = described(build_state(recipe, training_counts(recipe, train)))
    assert described(initial_state_of(recipe, train, data_mesh(8))) == expected
    with monkeypatch.context() as patch:
        patch.setattr(_initial, "build_on", None)
        assert described(initial_state_of(recipe, train, data_mesh(8))) == expected
    other = replace(recipe, seed=recipe.seed + 1)
    assert described(initial_state_of(other, train, data_mesh(8))) != expected
    labels = train.labels
    half = replace(train, pixels=train.pixels[::2], labels=None if labels is None else labels[::2])  # of other levels
    assert described(initial_state_of(recipe, half, data_mesh(8))) != expected
