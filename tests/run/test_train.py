# SPDX-License-Identifier: Apache-2.0
"""The start of a run: the model is built from the recipe and the training images."""

from contextlib import closing
from dataclasses import KW_ONLY, dataclass, replace

import equinox as eqx
import numpy as np
import pytest

from vdmkit.conformance.recipe import check_before_training
from vdmkit.data import Images
from vdmkit.data.sources import identified
from vdmkit.errors import CheckpointError, UntrustedError
from vdmkit.experiments import RunFolder
from vdmkit.experiments.folder import Provenance, provenance_of
from vdmkit.experiments.run import Training, begin
from vdmkit.recipes import load_recipe
from vdmkit.recipes.build import state_like
from vdmkit.registry import Component, registry
from vdmkit.report.metrics import MetricLog
from vdmkit.schedules import AbstractSchedule
from vdmkit.training import loop as training_loop
from vdmkit.training import train_step
from vdmkit.training.checkpoints import Restored


class Falling(AbstractSchedule):
    """From noise to data."""

    _: KW_ONLY
    gamma_min: float = eqx.field(static=True, default=-8.0)
    gamma_max: float = eqx.field(static=True, default=5.0)

    def __call__(self, t):
        return self.gamma_max + (self.gamma_min - self.gamma_max) * t


@pytest.fixture
def idle(digits_toml, monkeypatch):
    """`idle(override, ...)` returns the digits recipe without a network, with the schedule "falling" registered."""
    component = Component("schedule", "falling", Falling, "tests")
    monkeypatch.setitem(registry("schedule").components, "falling", component)
    return lambda *overrides: load_recipe(digits_toml, ["model.network.name=none", *overrides])


def images(seed: int) -> Images:
    """Returns three images of the digits' shape and levels."""
    pixels = np.random.default_rng(seed).integers(0, 17, (3, 8, 8, 1)).astype(np.uint8)
    return identified(pixels, 17, name="noise", split="train")


def made_from(train: Images) -> Provenance:
    """Returns the provenance of a run without plugins that is trained on these images."""
    return provenance_of(train, train, {})


def test_the_model_counts_the_levels_of_the_training_images(idle, tmp_path):
    """The level counts of a prediction are those of the training images."""
    train = images(0)
    state = begin(idle(), RunFolder(tmp_path), train, made_from(train)).state
    expected = (train.pixels[..., None] == np.arange(17)).sum(0)
    np.testing.assert_array_equal(state.model.prediction.level_counts, expected)


def test_a_schedule_that_falls_is_not_trained_on(idle):
    """A decreasing schedule is refused before training."""
    recipe = idle("model.schedule.name=falling")
    source = recipe.data.build()
    with pytest.raises(UntrustedError, match="schedule 'falling' of tests: gamma does not rise"):
        check_before_training(recipe, source, source.load("train"), source.load("test")).refuse()


@pytest.mark.costly
def test_the_log_of_a_step_waits_for_the_next(idle, tmp_path, monkeypatch):
    """A step is logged after the next one is dispatched, but before its checkpoint is saved."""
    recipe = idle("training.steps=4", "training.batch_size=2", "training.log_every=1", "training.checkpoint_every=3")
    done, train = [], images(0)

    monkeypatch.setattr(training_loop, "train_step", lambda *args: (done.append("step"), train_step(*args))[1])
    start = begin(recipe, RunFolder(tmp_path), train, made_from(train))
    with closing(MetricLog(tmp_path, step=0)) as log:
        monkeypatch.setattr(log, "scalars", lambda step, values: done.append(step))
        training = Training(recipe, RunFolder(tmp_path), train, start, log)
        monkeypatch.setattr(Training, "_save", lambda training, state, step, *_, **__: done.append(f"saved {step}"))
        training.run()
    # The line of a step is written before its checkpoint, because a killed run resumes from the checkpoint.
    assert done == ["step", "step", 1, "step", 2, 3, "saved 3", "step", 4, "saved 4"]


def test_an_imported_model_is_not_trained_from_the_beginning(idle, tmp_path):
    """An imported run without an intact checkpoint is refused rather than restarted."""
    damaged = tmp_path / "checkpoints" / "7"
    damaged.mkdir(parents=True)
    with pytest.raises(CheckpointError, match="no whole checkpoint is left of this imported model"):
        begin(idle(), RunFolder(tmp_path), images(0), replace(made_from(images(0)), imported="sha256"))
    assert damaged.is_dir()


@dataclass(frozen=True)
class State:
    """A checkpoint state that contains only a step."""

    step: int = 3


def test_a_checkpoint_belongs_to_the_manifest_of_its_run(idle, tmp_path):
    """A checkpoint is accepted only with the manifest of its own run."""
    mine = replace(made_from(images(0)), run="mine")
    restored = Restored(3, State(), mine.origin(idle()))
    mine.check(idle(), tmp_path, restored)
    replace(mine, run=None).check(idle(), tmp_path, restored)  # the name was lost
    for other in (replace(mine, run="other"), replace(mine, run="")):
        with pytest.raises(CheckpointError, match=r"3: .* other sessions, so it or manifest\.json is another run's"):
            other.check(idle(), tmp_path, restored)
    older = Restored(3, State(), {name: fact for name, fact in restored.meta.items() if name != "run"})
    replace(mine, run="").check(idle(), tmp_path, older)
    with pytest.raises(CheckpointError, match="another run's"):
        mine.check(idle(), tmp_path, older)


def test_a_run_has_a_name_of_its_own(idle, tmp_path):
    """Every run gets a unique name, which it keeps when it continues."""
    first, second = (begin(idle(), RunFolder(tmp_path), images(0), made_from(images(0))).origin["run"] for _ in "12")
    assert first
    assert first != second
    named = replace(made_from(images(0)), run=first)
    assert begin(idle(), RunFolder(tmp_path), images(0), named).origin["run"] == first
    assert provenance_of(images(0), images(0), {}, named).run == first


def test_the_network_knows_the_range_of_the_schedule(digits_toml):
    """The network embeds gamma over the range of the schedule."""
    recipe = load_recipe(digits_toml, ["model.schedule.gamma_min=-7.0", "model.schedule.gamma_max=3.0"])
    assert state_like(recipe, (8, 8, 1), 17).model.network.conditioning.gamma_range == (-7.0, 3.0)
