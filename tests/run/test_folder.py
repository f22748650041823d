# SPDX-License-Identifier: Apache-2.0
"""A run folder belongs to one recipe and one process at a time, and its files are written atomically."""

import errno
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import equinox as eqx
import jax
import optax
import pytest

from vdmkit.data.sources import Identities, Identity
from vdmkit.errors import CheckpointError, RecipeError
from vdmkit.experiments import RunFolder, load_run
from vdmkit.experiments.folder import Provenance
from vdmkit.experiments.load import Run
from vdmkit.io import write_json, write_text
from vdmkit.losses import Elbo, LowDiscrepancy, Objective
from vdmkit.recipes import Recipe, load_recipe
from vdmkit.training.step import initial_state

FACTS = {"plugins": {}, "shape": [8, 8, 1], "levels": 17, "data": None, "imported": None, "sessions": []}
IMAGES = {"name": "a", "split": "train", "count": 9, "sha256": "0", "low": 0.0, "high": 16.0, "published": None}


@pytest.fixture(scope="module")
def recipe(digits_toml) -> Recipe:
    return load_recipe(digits_toml)


@pytest.fixture
def folder(tmp_path) -> RunFolder:
    return RunFolder(tmp_path / "run")


def claim(folder: RunFolder, recipe: Recipe, text: str = "") -> None:
    folder.check(recipe)
    folder.write_recipe(recipe, text)


@pytest.fixture
def killed_before(monkeypatch) -> Callable:
    """`with killed_before("a.json"):` interrupts the block just before a file of this name is replaced."""

    @contextmanager
    def killed_before(name: str) -> Iterator[None]:
        def replace(source, target, original=os.replace):
            if Path(target).name == name:
                raise KeyboardInterrupt
            original(source, target)

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):  # noqa: PT012
            patch.setattr("os.replace", replace)
            yield

    return killed_before


def test_a_run_of_an_older_version_is_refused_by_the_new_name(folder, recipe):
    """A saved recipe with a renamed key is refused, and the error gives the new name."""
    claim(folder, recipe)
    write_json(folder.manifest, FACTS)
    kept = folder.resolved_recipe.read_text()
    write_text(folder.resolved_recipe, kept.replace("[objective.time_sampler]", "[objective.times]"))
    with pytest.raises(RecipeError, match=r"objective\.times: was renamed: objective\.time_sampler\."):
        load_run(folder.path)


def test_a_new_folder_says_what_it_is(folder, recipe):
    """A new run folder contains the recipe as given and with all defaults."""
    claim(folder, recipe, "# as given")
    assert folder.given_recipe.read_text() == "# as given"
    assert load_recipe(folder.resolved_recipe) == recipe


@pytest.mark.parametrize(
    "override",
    [
        "training.steps=3000",
        "training.log_every=7",
        "training.keep_last=5",
        "training.keep_best=0",
        "evaluation.draws=2",
        "evaluation.weights=raw",
        "sampling.count=1",
        "sampling.minutes=0.5",
    ],
)
def test_what_may_change_when_a_run_goes_on(folder, recipe, digits_toml, override):
    """The length of training and settings of the evaluation can change when a run is resumed."""
    claim(folder, recipe, "")
    changed = load_recipe(digits_toml, [override])
    claim(folder, changed, "")
    assert load_recipe(folder.resolved_recipe) == changed


@pytest.mark.parametrize(
    "override",
    [
        "seed=2",
        "training.batch_size=8",
        "training.steps_per_dispatch=10",
        "training.checkpoint_every=7",
        "training.ema=0.5",
        "model.network.channels=8",
        "optimizer.learning_rate=1.0",
        "objective.steps=10",
    ],
)
def test_another_recipe_is_refused(folder, recipe, digits_toml, override):
    """Continuing a run with a different recipe is refused, and the key that differs is named."""
    claim(folder, recipe, "before")
    with pytest.raises(CheckpointError) as caught:
        claim(folder, load_recipe(digits_toml, [override]), "after")
    assert f"{folder.path}: a run of another recipe. It differs in {override.split('=')[0]}." in str(caught.value)
    assert "--out" in str(caught.value)
    assert folder.given_recipe.read_text() == "before"


def test_all_differing_keys_are_named(folder, recipe, digits_toml):
    """All keys that differ are named at once."""
    claim(folder, recipe, "")
    with pytest.raises(CheckpointError, match=r"differs in seed, model\.network\.channels\."):
        claim(folder, load_recipe(digits_toml, ["seed=2", "model.network.channels=8", "training.steps=9"]), "")


def test_somebody_else_s_folder_is_left_alone(folder, recipe):
    """A folder that is not empty and not a run folder is refused and left unchanged."""
    folder.path.mkdir()
    (folder.path / "thesis.tex").write_text("years of work")
    with pytest.raises(CheckpointError, match=r"not empty, and not a run folder.*--out"):
        claim(folder, recipe, "")
    assert [path.name for path in folder.path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("last", ["resolved.toml", "recipe.toml"])
def test_a_folder_claimed_by_half_can_be_claimed(folder, recipe, killed_before, last):
    """A run folder whose creation was interrupted can be created again."""

    with killed_before(last):
        claim(folder, recipe, "given")
    claim(folder, recipe, "given")
    assert folder.given_recipe.read_text() == "given"


def test_a_damaged_recipe_is_no_traceback(folder, recipe):
    """A damaged resolved.toml is reported with its line."""
    claim(folder, recipe, "")
    folder.resolved_recipe.write_text("[data")
    with pytest.raises(RecipeError, match=r"resolved\.toml:1:\d+: not valid TOML"):
        claim(folder, recipe, "")


def test_one_process_at_a_time(folder):
    """Only one process can lock a run folder, and the lock is released at the end."""
    second = folder.locked()
    with folder.locked(), pytest.raises(CheckpointError, match="another vdmkit is writing this run"):
        second.__enter__()
    with folder.locked():
        pass


def test_a_file_system_without_locks(folder, monkeypatch, capsys):
    """On a file system without locks, training continues with a warning."""

    def flock(descriptor: int, how: int) -> None:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))

    monkeypatch.setattr("fcntl.flock", flock)
    with folder.locked():
        assert capsys.readouterr().err.startswith(f"{folder.path}: this file system has no locks (Bad file descriptor)")


def test_an_error_while_it_is_locked_is_not_one_of_the_lock(folder):
    """An error inside the locked block is not reported as a lock conflict."""
    with pytest.raises(BlockingIOError), folder.locked():
        raise BlockingIOError


@pytest.mark.parametrize("content", ['{"shape": [8', "[]", "{}", json.dumps({**FACTS, "data": 0} | {"levels": 1})[:-9]])
def test_a_damaged_manifest_is_explained(folder, recipe, content):
    """A damaged manifest.json is reported with advice."""
    claim(folder, recipe, "")
    folder.manifest.write_text(content)
    with pytest.raises(CheckpointError, match=r"manifest\.json: .*[Dd]elete it and run the recipe again"):
        folder.provenance()


MANGLED = {
    "Input should be an object": None,
    "shape.2: Field required": {"shape": [8, 8]},
    "shape.0: Input should be greater than or equal to 1": {"shape": [0, 8, 1]},
    "shape.1: Input should be a valid integer": {"shape": [8, "8", 1]},
    "levels: Input should be a valid integer": {"levels": "17"},
    "data.train.sha256: Field required": {"data": {"train": {k: v for k, v in IMAGES.items() if k != "sha256"}}},
    "data.test: Field required": {"data": {"train": IMAGES}},
    "data.test.low: Input should be a valid number": {"data": {"train": IMAGES, "test": IMAGES | {"low": None}}},
    "Out of range float values": {"data": {"train": IMAGES, "test": IMAGES | {"high": float("nan")}}},
    "plugins: Input should be ": {"plugins": ["a.py"]},
    "kept.trained_on.npy: Input should be a valid string": {"kept": {"trained_on.npy": 7}},
    "sessions.0: Input should be ": {"sessions": [7]},
    "newest_checkpoint: Input should be a valid integer": {"newest_checkpoint": "12"},
    "run: Input should be a valid string": {"run": 7},
}


@pytest.mark.parametrize("wrong", MANGLED)
def test_what_is_wrong_with_a_manifest(folder, wrong):
    """A manifest with a wrong key or type is refused, and the error names it."""
    folder.path.mkdir()
    folder.manifest.write_text(json.dumps(MANGLED[wrong] and FACTS | MANGLED[wrong]))
    with pytest.raises(CheckpointError, match=rf"manifest\.json: cannot be read \({wrong}.*delete it and run the rec"):
        folder.provenance()


def test_a_manifest_is_read_as_it_was_written(folder):
    """A manifest survives a round trip, and missing fields have defaults."""
    images = Identities(Identity(**IMAGES), Identity(**IMAGES))
    made = Provenance((8, 8, 1), 17, images, {"a.py": "1"}, None, [{"command": ["vdmkit"]}], {"b": "2"}, 12, 34, "name")
    folder.path.mkdir()
    folder.record(made)
    assert folder.provenance() == made
    write_json(folder.manifest, FACTS)
    (folder.checkpoints / "3").mkdir(parents=True)
    assert folder.provenance() == Provenance((8, 8, 1), 17, None, {}, None, [], {}, 3)


def test_advice_on_a_missing_manifest_can_be_pasted(tmp_path):
    """Paths with blanks are quoted in the advice."""
    with pytest.raises(CheckpointError, match=r"manifest\.json: no such file.* with --out '.*/my run': that goes on"):
        RunFolder(tmp_path / "my run").provenance()


def test_what_is_no_run_is_not_loaded(folder, recipe):
    """A path that is not a complete run folder is refused with the reason."""
    with pytest.raises(CheckpointError, match=r"run: no such folder\."):
        load_run(folder.path)
    folder.path.mkdir()
    with pytest.raises(CheckpointError, match=r"not a run folder: it has no resolved\.toml"):
        load_run(folder.path)
    claim(folder, recipe, "")
    with pytest.raises(CheckpointError, match=r"manifest\.json: no such file\. It records .*run the recipe again"):
        load_run(folder.path)
    write_json(folder.manifest, FACTS)
    with pytest.raises(CheckpointError, match=r"checkpoints: no checkpoint yet\. Run the recipe"):
        load_run(folder.path)


def test_a_file_is_written_whole_or_not_at_all(tmp_path, killed_before):
    """Writes are atomic: after a kill or an error, the old contents are still there."""
    path = tmp_path / "a.json"
    write_json(path, {"bpd": 1.0})
    before = path.read_text()
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"bpd": float("nan")})
    with killed_before("a.json"):
        write_text(path, "other")
    assert path.read_text() == before
    write_text(path, "other")
    assert path.read_text() == "other"


def test_weights_are_the_ones_asked_for(folder, recipe, tiny_model):
    """ "raw" selects the raw parameters and "ema" the averaged ones."""
    state = initial_state(tiny_model, optax.sgd(0.1), Objective(LowDiscrepancy(), Elbo(), 0))
    state = eqx.tree_at(lambda s: s.ema, state, jax.tree.map(lambda a: a + 1, state.ema))
    run = Run(folder, recipe, state, 0, ())
    assert eqx.tree_equal(run.weighted("raw"), tiny_model)
    assert eqx.tree_equal(eqx.filter(run.weighted("ema"), eqx.is_inexact_array), state.ema)
