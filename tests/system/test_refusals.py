# SPDX-License-Identifier: Apache-2.0
"""What a run folder refuses, and what stops a run: one clear message, and nothing is lost."""

import json
import re
import shutil
import signal

import pytest

from vdmkit.training.checkpoints import steps_in


def test_a_folder_of_another_recipe(program, tiny, whole, same_as_whole):
    """A run would be overwritten by another recipe's."""
    result = program("run", tiny, "--out", str(whole), "--set", "seed=2", "--set", "training.ema=0.5")
    assert (result.code, result.out) == (1, "")
    assert result.err == (
        f"{whole}: a run of another recipe. It differs in seed, training.ema. "
        "Choose another folder with --out, or the recipe of this one.\n"
    )
    same_as_whole(whole)


def test_two_processes_in_one_folder(processes, tiny):
    """Two runs would write the same checkpoints."""
    first = processes.start("run", tiny, "--out", "run", faults="wait vdmkit.step ^4$")
    assert first.stdout.readline() == "waiting\n"
    second = processes("run", tiny, "--out", "run")
    assert second.code == 1
    assert second.err == "run: another vdmkit is writing this run. Wait for it, or choose another --out.\n"
    first.send_signal(signal.SIGTERM)
    _, err = first.communicate()
    assert (first.returncode, err.splitlines()[-1][:17]) == (3, "Stopped at step 5")


def test_a_finished_run_can_be_made_longer_but_not_shorter(program, tiny, whole, snapshot):
    """More steps would start from nothing, fewer be reported as trained, or a refusal change the folder."""
    folder = shutil.copytree(whole, program.cwd / "run")
    before = snapshot(folder)
    shorter = program("run", tiny, "--out", "run", "--set", "training.steps=6")
    assert (shorter.code, shorter.out) == (1, "")
    assert shorter.err.startswith("run: this run is at step 12 already, past training.steps = 6.")
    assert shorter.err.count("\n") == 1
    (folder / "checkpoints" / "12" / "checksums.json").unlink()
    before = snapshot(folder)
    damaged = program("run", tiny, "--out", "run", "--set", "training.steps=6")
    assert "run: this run is at step 9 already" in damaged.err
    assert snapshot(folder) == before
    shutil.copy(whole / "checkpoints" / "12" / "checksums.json", folder / "checkpoints" / "12")
    before = snapshot(folder)
    assert snapshot(folder) == before
    longer = program("run", tiny, "--out", "run", "--set", "training.steps=14")
    assert longer.code == 0
    assert "continuing run from step 12" in longer.err
    assert "run: training.steps was 12, from here on it is 14." in longer.err
    assert "step 14, ema weights" in longer.out
    assert steps_in(folder / "checkpoints") == [12, 14]
    sessions = json.loads((folder / "manifest.json").read_text())["sessions"]
    assert [(one["from_step"], one["goal_step"]) for one in sessions] == [(0, 12), (12, 14)]


def test_a_new_folder_is_not_left_behind(program, tiny):
    """A command that was refused would leave an empty folder, or half of one."""
    result = program("run", tiny, "--out", "new", "--set", "data.path=nowhere.npz")
    assert (result.code, result.out) == (1, "")
    assert not (program.cwd / "new").exists()


def test_an_output_that_is_a_file(program, tiny):
    """A file in the way would end in a traceback, or be lost."""
    (program.cwd / "mine").write_text("years of work")
    result = program("run", tiny, "--out", "mine")
    assert (result.code, result.out) == (1, "")
    assert result.err == "mine: a file, where a folder is expected. Choose another with --out.\n"
    assert (program.cwd / "mine").read_text() == "years of work"


STEEP = """
import vdmkit
from vdmkit.training import adamw

@vdmkit.register("optimizer", "steep")
def steep(steps, *, rate: float):
    '''AdamW at a learning rate that a recipe's may not have.'''
    return adamw(steps, learning_rate=rate, warmup_steps=5)
"""


@pytest.fixture
def steep(program):
    """`steep("1e30")`: the arguments for an optimizer with that learning rate."""
    (program.cwd / "steep.py").write_text(STEEP)
    return lambda rate: ("--plugin", "steep.py", "--set", f"optimizer={{name='steep', rate={rate}}}")


@pytest.mark.costly
def test_a_loss_that_is_not_finite(program, tiny, steep):
    """Training would go on with NaN, save it over the last good checkpoint, or not say where it began."""
    diverges = steep("1e30")
    # The rate rises after step 1; the checkpoint of step 1 is the last before the parameters leave float32.
    result = program("run", tiny, "--out", "run", *diverges, "--set", "training.checkpoint_every=1")
    assert (result.code, result.out) == (1, "")
    last = result.err.splitlines()[-1]
    where = r"step 3, in training image \d+ and 7 others of the batch, at gamma = \S+\."
    assert re.match(f"training stopped: the diffusion term was not finite at {where}", last)
    (found,) = json.loads((program.cwd / "run" / "health.json").read_text())["findings"]
    assert (found["sign"], found["step"]) == ("not_finite", 3)
    assert last.startswith(found["message"])
    assert "The last good checkpoint is that of step 2, in run/checkpoints." in last
    assert "learning_rate" in last
    assert steps_in(program.cwd / "run" / "checkpoints") == [1, 2]


@pytest.mark.filterwarnings("ignore:overflow encountered in cast")  # of 1e39, which is the point
def test_parameters_that_are_not_finite(program, tiny, steep):
    """A step whose loss was finite could leave infinite parameters, and they would be saved as a good checkpoint."""
    overflows = steep("1e39")
    result = program("run", tiny, "--out", "run", *overflows, "--set", "training.checkpoint_every=1")
    assert (result.code, result.out) == (1, "")
    last = result.err.splitlines()[-1]
    assert last.startswith("training stopped: a parameter was not finite after step 1. No checkpoint was saved yet")
    assert not (program.cwd / "run" / "checkpoints").exists()


def test_what_is_no_run(program):
    """A mistyped --ckpt would end in a traceback."""
    result = program("sample", "--ckpt", "nowhere", "-n", "1")
    assert (result.code, result.out) == (1, "")
    assert result.err == "nowhere: no such folder. Give the folder of a run.\n"


def test_a_changed_plugin(program, tiny, whole, snapshot):
    """A run would go on with, or its bound be that of, code which it was not trained with."""
    folder = shutil.copytree(whole, program.cwd / "run")
    before = snapshot(folder)
    plugin = program.cwd / "tiny.py"
    plugin.write_text((folder / "plugins" / "tiny.py").read_text().replace("jnp.append(z, gamma)", "jnp.append(z, 0)"))
    plugins = ("--plugin", str(plugin), "--plugin", str(folder / "plugins" / "faults.py"))
    resumed = program("run", tiny, "--out", "run", "--set", "training.steps=14", plugins=plugins)
    assert (resumed.code, resumed.out) == (1, "")
    assert "run/checkpoints/12: this checkpoint was made with other plugin files." in resumed.err
    assert snapshot(folder) == before
    plugin.rename(folder / "plugins" / "tiny.py")
    evaluated = program("evaluate", "--ckpt", "run", plugins=())
    assert (evaluated.code, evaluated.out) == (1, "")
    assert evaluated.err == "run/plugins/tiny.py: changed since the run wrote it. Put it back.\n"


@pytest.mark.costly
def test_a_checkpoint_of_another_run(program, tiny, whole):
    """Another run's checkpoint of the same shapes, or one of another step, would be reported as this run's."""
    assert program("run", tiny, "--out", "run", "--set", "optimizer.learning_rate=2e-2").code == 0
    checkpoints = program.cwd / "run" / "checkpoints"
    shutil.rmtree(checkpoints / "12")
    shutil.copytree(whole / "checkpoints" / "12", checkpoints / "12")
    for command in (("evaluate", "--ckpt", "run"), ("sample", "--ckpt", "run")):
        result = program(*command)
        assert (result.code, result.out) == (1, "")
        assert "run/checkpoints/12: this checkpoint was made with other recipe settings." in result.err
    shutil.rmtree(checkpoints / "12")
    (checkpoints / "9").rename(checkpoints / "12")
    result = program("evaluate", "--ckpt", "run")
    assert (result.code, result.out) == (1, "")
    assert result.err == "run/checkpoints/12: holds the state of step 9. Give the folder its old name.\n"


def test_what_training_fixed_cannot_be_set_afterwards(program, whole):
    """A model would be evaluated with another schedule or prediction than it was trained with."""
    result = program("evaluate", "--ckpt", str(whole), "--set", "model.schedule.gamma_max=1.0", "--set", "seed=2")
    assert (result.code, result.out) == (2, "")
    assert result.err == (
        "model.schedule.gamma_max: cannot be changed after training. "
        "Only seed, data, evaluation, likelihood and sampling can.\n"
    )
