# SPDX-License-Identifier: Apache-2.0
"""A checkpoint of the authors becomes a run folder that every command works on."""

import json
from pathlib import Path

import numpy as np
import pytest

REFERENCE = Path(__file__).parents[1] / "reference" / "cifar10-tiny"


@pytest.fixture
def imported(program) -> str:
    """The folder of an imported checkpoint, with three images of the right shape as its data."""
    pixels = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3)).astype(np.uint8)
    np.savez(program.cwd / "mine.npz", train=pixels, test=pixels[:3])
    (checkpoint,) = REFERENCE.glob("checkpoints-*/ckpt-1.flax")
    sets = ("--set", "data.name=npz", "--set", "data.path=mine.npz", "--set", "training.batch_size=2")
    result = program("import", str(checkpoint), "--config", str(REFERENCE / "config.json"), "-o", "official", *sets)
    assert result.code == 0, result.err
    assert "raw and averaged parameters" in result.out
    return "official"


def test_a_wrong_config_lists_what_does_not_fit(program):
    """Weights would be loaded into another model, or the user not learn which setting is wrong."""
    config = json.loads((REFERENCE / "config.json").read_text())
    config["sm_n_layer"] += 1
    (program.cwd / "config.json").write_text(json.dumps(config))
    (checkpoint,) = REFERENCE.glob("checkpoints-*/ckpt-1.flax")
    result = program("import", str(checkpoint), "--config", "config.json", "-o", "official")
    assert (result.code, result.out) == (1, "")
    assert f"score_model/down.block_{config['sm_n_layer'] - 1}/conv1/kernel: nothing in the file" in result.err
    assert not (program.cwd / "official").exists()


def test_images_of_another_shape_do_not_train_it(program, imported):
    """A network that takes any size would be trained on with images that it was never meant for."""
    pixels = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3)).astype(np.uint8)
    np.savez(program.cwd / "mine.npz", train=pixels, test=pixels[:3])
    result = program("run", f"{imported}/resolved.toml", "--out", imported, plugins=())
    assert result.code == 1
    assert "(16, 16, 3, 256); the model was trained on (32, 32, 3, 256)" in result.err


@pytest.mark.slow
def test_an_imported_checkpoint_is_a_run(program, imported, arrays):
    """An imported checkpoint could not be evaluated, sampled or trained on."""
    before = arrays(program.cwd / imported)
    step = int(before["['step']"])
    evaluated = program("evaluate", "--ckpt", imported, "--set", "evaluation.draws=2", "--json")
    assert evaluated.code == 0, evaluated.err
    facts = json.loads(evaluated.out)
    assert (facts["step"], facts["images"], facts["dataset"]) == (step, 3, "mine/test")
    sampled = program("sample", "--ckpt", imported, "-n", "2", "--steps", "2", "-o", "two.npy")
    assert sampled.code == 0, sampled.err
    assert np.load(program.cwd / "two.npy").shape == (2, 32, 32, 3)
    further = ("--set", f"training.steps={step + 2}", "--set", "evaluation.draws=2", "--set", "sampling.steps=2")
    trained = program("run", f"{imported}/resolved.toml", "--out", imported, *further, plugins=())
    assert trained.code == 0, trained.err
    assert f"continuing {imported} from step {step:,}" in trained.err
    after = arrays(program.cwd / imported)
    assert int(after["['step']"]) == step + 2
    changed = [name for name, array in before.items() if not np.array_equal(array, after[name])]
    assert any("model" in name for name in changed)
    assert any("ema" in name for name in changed)


@pytest.mark.slow
def test_the_likelihood_of_an_imported_checkpoint(program, imported):
    """The likelihood of an official checkpoint could not be measured, or its unknown training set pass for disjoint."""
    result = program("likelihood", "--ckpt", imported, "--set", "likelihood.estimator.draws=2")
    assert result.code == 0, result.err
    facts = json.loads((program.cwd / result.written).read_text())
    assert result.out.startswith(f"{facts['bpd']:.4f} +/- ")
    assert "\n  It is not known which images this model was trained on.\n" in result.out
    assert (facts["images"], facts["dataset"], facts["test_images_trained_on"]) == (3, "mine/test", None)
    assert facts["trusted"]
    assert facts["bpd"] == pytest.approx(sum(facts["terms"].values()), rel=1e-12)  # float64
