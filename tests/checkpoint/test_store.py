# SPDX-License-Identifier: Apache-2.0
"""A run's checkpoints: whole or known to be damaged, no more than asked for, and not of another recipe."""

import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vdmkit.errors import CheckpointError
from vdmkit.training.checkpoints import CheckpointStore, read_newest, read_step, steps_in, what_is_damaged


def restore(directory: Path, like, data):
    """The store's answer and its warnings."""
    warnings: list[str] = []
    restored = CheckpointStore(directory, keep_last=3, keep_best=0).restore(like, data, saved=3, warn=warnings.append)
    return restored, warnings


def save(store: CheckpointStore, step: int, data, bpd: float = float("inf"), *, passing: bool = False) -> None:
    store.save(step, {"a": jnp.full(2, step)}, data, {}, bpd=bpd, passing=passing)


def cut(path: Path) -> None:
    """Take away the second half, as a disk that filled up does."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path: Path) -> None:
    """Change a bit of the first byte."""
    content = bytearray(path.read_bytes())
    content[0] ^= 1
    path.write_bytes(content)


def test_everything_comes_back(filled, like, stream):
    """A resumed run would start from rounded, retyped or other numbers, or from other batches."""
    data = stream()
    restored, warnings = restore(filled, like, data)
    assert (restored.step, restored.meta, warnings) == (3, {"note": 3}, [])
    assert restored.state["name"] == "static"
    for name in ("a", "n"):
        assert restored.state[name].dtype == like[name].dtype
        np.testing.assert_array_equal(restored.state[name], np.full(like[name].shape, 3))
    np.testing.assert_array_equal(next(data)["image"], next(stream(3))["image"])


def test_shapes_are_enough_to_read(filled, like):
    """Evaluation would have to allocate a second model to read the first into."""
    restored = read_step(filled / "2", like | jax.eval_shape(lambda: {name: like[name] for name in ("a", "n")}))
    np.testing.assert_array_equal(restored.state["a"], np.full((2, 3), 2))


def test_parts_without_arrays_may_come_and_go(filled, like, stream):
    """A version of vdmkit that adds a part to the state could no longer read the runs of the one before."""
    restored, warnings = restore(filled, like | {"part": {"of": None}}, stream())
    np.testing.assert_array_equal(restored.state["a"], np.full((2, 3), 3))
    assert (restored.state["part"], warnings) == ({"of": None}, [])


def test_nothing_to_restore(tmp_path, like, stream):
    """A run would not begin where no checkpoint is, or would speak of damage."""
    assert restore(tmp_path / "none", like, stream()) == (None, [])


@pytest.mark.costly
@pytest.mark.parametrize("damage", [cut, flip, Path.unlink], ids=["cut", "flipped", "missing"])
def test_damage_to_any_file_falls_back_to_the_checkpoint_before(filled, like, stream, damage, tmp_path):
    """Some file of a checkpoint could be damaged and be used all the same, or stop a resume for good."""
    names = [path.relative_to(filled / "3") for path in sorted((filled / "3").rglob("*")) if path.is_file()]
    assert {name.parts[0] for name in names} >= {"state", "data", "meta", "checksums.json", "_CHECKPOINT_METADATA"}
    for i, name in enumerate(names):
        directory = tmp_path / str(i) / "checkpoints"
        shutil.copytree(filled, directory)
        damage(directory / "3" / name)
        data = stream()
        restored, (warning,) = restore(directory, like, data)
        assert restored.step == 2
        np.testing.assert_array_equal(restored.state["a"], np.full((2, 3), 2))
        np.testing.assert_array_equal(next(data)["image"], next(stream(2))["image"])
        named = "it was not finished" if (name.name, damage) == ("checksums.json", Path.unlink) else str(name)
        assert f"checkpoint 3 cannot be used: {named}" in warning
        assert warning.endswith(f"Moved to {tmp_path / str(i) / 'damaged_checkpoints' / '3'}.")
        assert steps_in(directory) == [1, 2]
        assert (tmp_path / str(i) / "damaged_checkpoints" / "3").is_dir()


def test_an_older_checkpoint_that_is_damaged_does_not_stop_a_run(filled, like, stream):
    """Training would go on from a good checkpoint and then be unable to save because of a bad one."""
    cut(next((filled / "1" / "metrics").glob("metrics*")))
    data = stream()
    store = CheckpointStore(filled, keep_last=3, keep_best=1)
    warnings: list[str] = []
    assert store.restore(like, data, saved=3, warn=warnings.append).step == 3
    assert len(warnings) == 1
    save(store, 4, data)
    assert steps_in(filled) == [2, 3, 4]


def test_all_damaged_starts_again_and_says_so(filled, like, stream):
    """The run would stop for good, or would begin again without a word."""
    for step in (1, 2, 3):
        cut(filled / str(step) / "checksums.json")
    restored, warnings = restore(filled, like, stream())
    assert restored is None
    assert [warning[:12] for warning in warnings[:3]] == ["checkpoint 3", "checkpoint 2", "checkpoint 1"]
    assert warnings[3] == "No usable checkpoint is left: training starts again from the beginning."
    assert sorted(path.name for path in (filled.parent / "damaged_checkpoints").iterdir()) == ["1", "2", "3"]


def test_damaged_twice_at_the_same_step(filled, like, stream):
    """A checkpoint that is damaged at a step where one was set aside before would stop the run."""
    for _ in range(2):
        store = CheckpointStore(filled, keep_last=3, keep_best=0)
        cut(filled / "3" / "checksums.json")
        assert store.restore(like, stream(), saved=3, warn=lambda message: None).step == 2
        store.save(3, like, stream(), {})


@pytest.mark.parametrize("damage", [cut, flip, Path.unlink], ids=["cut", "flipped", "missing"])
def test_a_reader_refuses_a_damaged_newest_checkpoint(filled, like, damage, tmp_path):
    """An older model would be reported as the newest, or a reader move or repair the checkpoints of a trainer."""
    names = [path.relative_to(filled / "3") for path in sorted((filled / "3").rglob("*")) if path.is_file()]
    for i, name in enumerate(names):
        directory = tmp_path / str(i) / "checkpoints"
        shutil.copytree(filled, directory)
        damage(directory / "3" / name)
        before = sorted(directory.rglob("*"))
        with pytest.raises(CheckpointError) as caught:
            read_newest(directory, like, saved=3)
        found, _, advice = str(caught.value).partition(" Choose ")
        named = "it was not finished" if (name.name, damage) == ("checksums.json", Path.unlink) else str(name)
        assert found.startswith(f"{directory / '3'}: this checkpoint, the last that was saved, is damaged: {named}")
        earlier = "an earlier one (--checkpoint-step 2, --checkpoint-step 1)"
        assert advice == f"{earlier}, or run the recipe again, which goes on from step 2."
        assert sorted(directory.rglob("*")) == before


def test_a_list_that_is_none_is_damage(filled, like, stream):
    """A checkpoint would be believed without a check of its files, or the command end in a traceback."""
    for content in ("[]", "null", "7", '["state"]', '{"state": 1}', "[" * 100_000, "", "\0", "{}"):
        (filled / "3" / "checksums.json").write_text(content)
        with pytest.raises(CheckpointError, match=r"is damaged: checksums\.json is damaged\. Choose an earlier one"):
            read_newest(filled, like, saved=3)
    restored, (warning,) = restore(filled, like, stream())
    assert restored.step == 2
    assert warning.startswith("checkpoint 3 cannot be used: checksums.json is damaged. Moved to")


def test_a_file_that_is_not_listed_is_damage(filled, like):
    """A list that lost a line would let a changed file pass; or a file of the system's own would be damage."""
    path = filled / "3" / "checksums.json"
    sums = json.loads(path.read_text())
    (filled / "3" / ".DS_Store").write_text("")
    assert read_newest(filled, like, saved=3).step == 3
    del sums["meta/metadata"], sums["crc32"]  # as of an older version: the list had no checksum
    path.write_text(json.dumps(sums))
    with pytest.raises(CheckpointError, match=r"is damaged: meta/metadata is not in checksums\.json\."):
        read_newest(filled, like, saved=3)


def test_a_changed_bit_of_the_list_is_told_as_that(filled):
    """A file that is whole would be called damaged, and its checkpoint be searched for what is wrong with it."""
    path = filled / "3" / "checksums.json"
    whole = path.read_bytes()
    for place in range(0, 8 * len(whole), 7):
        changed = bytearray(whole)
        changed[place // 8] ^= 1 << place % 8
        path.write_bytes(changed)
        assert what_is_damaged(filled / "3", ".none") == "checksums.json is damaged", place


def test_a_reader_refuses_where_the_newest_checkpoint_is_missing(filled, like):
    """An older model would be reported as the newest, because the folder of that was deleted."""
    shutil.rmtree(filled / "3")
    with pytest.raises(CheckpointError, match=r"checkpoints/3: .* is missing\. Choose .* \(--checkpoint-step 2, "):
        read_newest(filled, like, saved=3)
    cut(filled / "2" / "checksums.json")
    with pytest.raises(CheckpointError, match=r"is missing\. Choose an earlier one \(--checkpoint-step 1\), or run"):
        read_newest(filled, like, saved=3)
    shutil.rmtree(filled / "1")
    with pytest.raises(CheckpointError, match=r"is missing\. No other is whole\. To train again, run the recipe"):
        read_newest(filled, like, saved=3)


def test_a_kill_while_saving_leaves_a_readable_run(filled, like):
    """A run that is being saved, or whose process was killed meanwhile, would be refused as damaged."""
    assert read_newest(filled, like, saved=2).step == 3  # whole, and not noted yet
    (filled / "3" / "checksums.json").unlink()
    assert read_newest(filled, like, saved=2).step == 2  # not finished
    shutil.rmtree(filled / "1")
    shutil.rmtree(filled / "2")
    assert read_newest(filled, like, saved=None) is None  # the first, not finished


def test_what_a_kill_leaves_behind_is_no_checkpoint(filled, like, stream):
    """A folder that Orbax had not finished would be read, or would stay for ever."""
    shutil.copytree(filled / "3", filled / "9.orbax-checkpoint-tmp")
    data = stream()
    store = CheckpointStore(filled, keep_last=3, keep_best=0)
    assert store.restore(like, data, saved=3, warn=pytest.fail).step == 3
    save(store, 4, data)
    assert sorted(path.name for path in filled.iterdir()) == ["2", "3", "4"]


def test_a_checkpoint_that_a_kill_left_unfinished_is_deleted(filled, like, stream):
    """A run that was killed while it saved would end with a folder of damage that a run without has not."""
    (filled / "3" / "checksums.json").unlink()
    said = list[str]()
    store = CheckpointStore(filled, keep_last=3, keep_best=0)
    assert store.restore(like, stream(), saved=2, warn=said.append).step == 2
    assert said == ["checkpoint 3 was not finished when the run was stopped, and is deleted."]
    assert (steps_in(filled), list(filled.parent.iterdir())) == ([1, 2], [filled])


def test_a_kill_before_a_checkpoint_is_finished_costs_no_other(filled, like, stream, monkeypatch):
    """A run that keeps one checkpoint would begin anew if it were killed at the end of saving the next."""

    def killed(folder):
        raise KeyboardInterrupt

    data, store = stream(), CheckpointStore(filled, keep_last=1, keep_best=0)
    monkeypatch.setattr("vdmkit.training.checkpoints.write_checksums", killed)
    with pytest.raises(KeyboardInterrupt):
        save(store, 4, data)
    monkeypatch.undo()
    store = CheckpointStore(filled, keep_last=1, keep_best=0)
    assert store.restore(like, stream(), saved=3, warn=lambda message: None).step == 3
    save(store, 4, data)
    assert [path.name for path in filled.iterdir()] == ["4"]


def test_a_kill_while_an_old_checkpoint_is_deleted_leaves_nothing(filled, like, stream, monkeypatch):
    """What is left of it would be moved away as damaged, or the run keep it for good."""
    data, store = stream(), CheckpointStore(filled, keep_last=3, keep_best=0)
    monkeypatch.setattr("vdmkit.training.checkpoints._delete_for_good", lambda directory: None)
    store.save(4, like, data, {})
    monkeypatch.undo()
    (filled / ".deleted" / "1" / "checksums.json").unlink()
    store = CheckpointStore(filled, keep_last=3, keep_best=0)
    assert store.restore(like, data, saved=4, warn=pytest.fail).step == 4
    assert sorted(path.name for path in filled.iterdir()) == ["2", "3", "4"]


@pytest.mark.parametrize("reopened", [False, True])
def test_a_passing_checkpoint_takes_no_other_s_place(tmp_path, stream, reopened):
    """A run that was stopped would have lost a checkpoint that a run without a stop has, or keep one more for good."""
    data, store = stream(), CheckpointStore(tmp_path, keep_last=2, keep_best=0)
    there = {3: [3], 6: [3, 6], 7: [3, 6, 7], 8: [3, 6, 8], 9: [6, 9]}
    for step, expected in there.items():
        if reopened:
            store = CheckpointStore(tmp_path, keep_last=2, keep_best=0)
        save(store, step, data, passing=step in (7, 8))
        assert steps_in(tmp_path) == expected


@pytest.mark.parametrize("reopened", [False, True])
def test_the_last_and_the_best_are_kept(tmp_path, stream, reopened):
    """Checkpoints would pile up, or the best would be dropped: at once, or after a resume."""
    data = stream()
    bpds = {1: 3.0, 2: 1.0, 3: 2.0, 4: float("inf"), 5: 4.0, 6: float("inf"), 7: float("inf")}
    store = CheckpointStore(tmp_path, keep_last=2, keep_best=1)
    for step, bpd in bpds.items():
        if reopened:
            store = CheckpointStore(tmp_path, keep_last=2, keep_best=1)
        save(store, step, data, bpd)
        best = min((s for s in range(1, step + 1)), key=lambda s: (bpds[s], -s))
        assert steps_in(tmp_path) == sorted({best, *range(max(step - 1, 1), step + 1)})


def test_a_step_is_saved_once(filled, like, stream):
    """A resumed run would fail, or overwrite a good checkpoint, when it comes to a step that it has."""
    save(CheckpointStore(filled, keep_last=3, keep_best=0), 3, stream())
    assert restore(filled, like, stream())[0].meta == {"note": 3}


def test_a_relative_path(filled, like, stream, monkeypatch):
    """`--out run` would work from one folder and fail from another."""
    monkeypatch.chdir(filled.parent)
    store = CheckpointStore(Path("checkpoints"), keep_last=3, keep_best=0)
    assert store.restore(like, stream(), saved=3, warn=pytest.fail).step == 3
    save(store, 4, stream())
    assert steps_in(filled) == [2, 3, 4]
    assert read_step(Path("checkpoints/2"), like).step == 2


def test_a_checkpoint_that_cannot_be_written(filled, like, stream, tmp_path):
    """The user would see Orbax's traceback, or not learn what is left."""
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match=r"checkpoint 1 could not be written to .*file.*There is no earlier"):
        save(CheckpointStore(tmp_path / "file", keep_last=2, keep_best=0), 1, stream())
    shutil.rmtree(filled / "3" / "state")
    with pytest.raises(CheckpointError, match=r"checkpoint 4 .* The last good checkpoint is that of step 2. Free"):
        CheckpointStore(filled, keep_last=4, keep_best=0).save(4, like, stream(), {"not JSON": object()})


def test_another_recipe_s_state_is_refused(filled, like):
    """Orbax would cast or drop what does not fit in silence, and the run would go on from something else."""
    other = {"a": jnp.zeros((3, 2), jnp.float32), "n": jnp.zeros((), jnp.float32), "more": jnp.zeros(1)}
    with pytest.raises(CheckpointError) as caught:
        read_step(filled / "3", other)
    assert str(caught.value).splitlines() == [
        f"{filled / '3'}: the checkpoint does not belong to this recipe.",
        "  a: float32[2, 3] in the checkpoint, float32[3, 2] in the recipe",
        "  n: int32[] in the checkpoint, float32[] in the recipe",
        "  more: float32[1] in the recipe, missing in the checkpoint",
    ]
    with pytest.raises(CheckpointError, match=r"n: int32\[\] in the checkpoint, unknown to the recipe"):
        read_step(filled / "3", {"a": like["a"]})
