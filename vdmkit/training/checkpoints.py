# SPDX-License-Identifier: Apache-2.0
"""SHA-256 of every file of a checkpoint, to find damage before the checkpoint is read, and of parameters.

Checkpoints of a training run, written and read by Orbax.

Each is renamed into place when it is complete. Reading changes nothing, so that a run can be evaluated while it trains.
"""

import errno
import hashlib
import json
import logging
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import equinox as eqx
import grain
import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging as absl_logging
from jaxtyping import PyTree
from orbax.checkpoint.checkpoint_managers import preservation_policy as policies

from vdmkit.errors import CheckpointError, VdmkitError, in_one_line
from vdmkit.io import are_intact, file_sha256, has_sha256, not_a_file, read_json, write_results
from vdmkit.multihost import is_first, lost, meet

_NAME = "checksums.json"


def write_checksums(folder: Path) -> None:
    """Writes the list of the folder's files, last and atomically: a checkpoint without the list is unfinished."""
    sums = {str(path.relative_to(folder)): file_sha256(path) for path in sorted(folder.rglob("*")) if path.is_file()}
    write_results(folder / _NAME, sums)


def is_finished(folder: Path) -> bool:
    """Returns whether the list of the folder's files was written."""
    return (folder / _NAME).exists()


def what_is_damaged(folder: Path, suffix: str = "") -> str | None:
    """Describes the first damaged or missing file; returns None if all are intact.

    Only files with this suffix are read; the others only have to exist.
    """
    if is_finished(folder) and (reason := not_a_file(folder / _NAME)):
        return f"{_NAME} is {reason}"
    try:
        found = read_json(folder / _NAME, dict[str, str | int])
    except FileNotFoundError:
        return "it was not finished"
    except ValueError:
        return f"{_NAME} is damaged"
    sums = {name: sha256 for name, sha256 in found.items() if isinstance(sha256, str)}  # without its own checksum
    if not sums or not are_intact(found):
        return f"{_NAME} is damaged"
    # Unlisted hidden files are allowed, because operating systems create some.
    there = {str(path.relative_to(folder)) for path in folder.rglob("[!.]*") if path.is_file()}
    if unlisted := there - {_NAME, *sums}:
        return f"{min(unlisted)} is not in {_NAME}"
    for name, expected in sums.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if name.endswith(suffix) and file_sha256(path) != expected:
            return f"{name} has changed since it was written ({path.stat().st_size} bytes now)"
    return None


def check_unchanged(path: Path, sha256: str, advice: str) -> None:
    """Raises CheckpointError if a file is missing, or its SHA-256 differs from that of the file the run wrote."""
    if not path.is_file():
        raise CheckpointError(f"{path}: missing. {advice}")
    if not has_sha256(path, sha256):
        raise CheckpointError(f"{path}: changed since the run wrote it. {advice}")


def sha256_of_arrays(tree: PyTree) -> str:
    """Returns the SHA-256 of the parameters, since runs on different data may share recipe, step and folder."""
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(eqx.filter(tree, eqx.is_array)):
        digest.update(np.asarray(leaf).tobytes())
    return digest.hexdigest()


_DELETED = ".deleted"  # folder inside the checkpoint folder
_BPD, _PASSING = "bpd", "passing"  # metrics of a checkpoint; the second only if it was written at a stop
_SHOWN = 20  # most differences from the recipe's state that an error lists
_NO_SPACE = os.strerror(errno.ENOSPC)

# Orbax logs tracebacks of errors for which vdmkit has its own messages.
absl_logging.get_absl_logger().addFilter(lambda record: "orbax" not in record.pathname)


@dataclass(frozen=True)
class Restored:
    """A restored checkpoint: its step, state and metadata."""

    step: int
    state: PyTree
    meta: dict[str, Any]


class CheckpointStore:
    """Keeps the last `keep_last` checkpoints, and the `keep_best` evaluated ones with the lowest bpd.

    A `frugal` store copies a few arrays at a time while it saves, instead of the whole state.
    """

    def __init__(self, directory: Path, *, keep_last: int, keep_best: int, frugal: bool = False):
        self._frugal = frugal
        self._directory = directory.resolve()  # Orbax fails late and at length on a relative path
        self._manager: ocp.CheckpointManager | None = None  # opened by the first save, when damage is cleared
        lowest = [policies.BestN(get_metric_fn=_bpd_of, reverse=True, n=keep_best)] if keep_best else []
        self._options = ocp.CheckpointManagerOptions(
            preservation_policy=policies.AnyPreservationPolicy([_Last(keep_last), *lowest]),
            best_fn=_bpd_of,  # without it the metrics are not written, and a resumed run could not rank
            enable_async_checkpointing=False,
            cleanup_tmp_directories=True,
            todelete_subdir=_DELETED,
        )

    def restore(
        self,
        like: PyTree,
        data: grain.DatasetIterator,
        *,
        saved: int | None,
        warn: Callable[[str], None],
        check: Callable[[Restored | None], object] = lambda restored: None,
    ) -> Restored | None:
        """Restores the newest intact checkpoint and the state of `data`; returns None if there is no checkpoint.

        Damaged checkpoints are moved to damaged_checkpoints/, with a warning, so that training can save their steps
        again. Checkpoints after step `saved`, the last one that the run recorded, are deleted if a kill left them
        unfinished. Both happen after `check`, which may refuse the checkpoint.
        """
        if is_first():
            _put_back(self._directory)
        meet()
        steps = steps_in(self._directory)
        damage = {step: what_is_damaged(self._directory / str(step)) for step in steps}
        whole = [step for step in steps if not damage[step]]
        restored = read_step(self._directory / str(whole[-1]), like, data) if whole else None
        check(restored)
        meet()  # the first process must not move files that others still read
        for step in reversed(steps):
            unfinished = (saved is None or step > saved) and not is_finished(self._directory / str(step))
            if damage[step] and unfinished:
                warn(f"checkpoint {step} was not finished when the run was stopped, and is deleted.")
                if is_first():
                    shutil.rmtree(self._directory / str(step))
            elif damage[step]:
                warn(f"checkpoint {step} cannot be used: {damage[step]}. Moved to {self._set_aside(step)}.")
        if steps and not whole:
            warn("No usable checkpoint is left: training starts again from the beginning.")
        meet()
        return restored

    def save(
        self,
        step: int,
        state: PyTree,
        data: grain.DatasetIterator,
        meta: dict[str, Any],
        *,
        bpd: float = float("inf"),
        passing: bool = False,
    ) -> None:
        """Writes the state at `step`, unless it is saved already. `bpd`, if evaluated, ranks it.

        A `passing` checkpoint, written when a run is stopped, does not count towards `keep_last` and is deleted after
        the next save.

        Raises:
            CheckpointError: the disk is full or not writable. Earlier checkpoints do not change.
        """
        if step in steps_in(self._directory):
            return
        metrics = {_BPD: bpd} | ({_PASSING: 1.0} if passing else {})
        items = ocp.args.Composite(
            state=ocp.args.StandardSave(eqx.filter(state, eqx.is_array)),
            data=grain.checkpoint.CheckpointSave(data),
            meta=ocp.args.JsonSave(meta),
        )
        try:
            if self._manager is None:
                handlers = _few_at_a_time(state) if self._frugal else None
                self._manager = ocp.CheckpointManager(self._directory, options=self._options, item_handlers=handlers)
            with _late_errors_silenced():
                self._manager.save(step, args=items, metrics=metrics, force=True)
            if is_first():
                write_checksums(self._directory / str(step))
                _delete_for_good(self._directory)
            meet()
        except Exception as error:  # Orbax and TensorStore raise many types; all mean that it was not written
            if other := lost(error):
                raise other from error
            raise CheckpointError(self._not_written(step, error)) from error

    def _set_aside(self, step: int) -> Path:
        aside = self._directory.parent / "damaged_checkpoints" / str(step)
        if not is_first():
            return aside
        shutil.rmtree(aside, ignore_errors=True)
        aside.parent.mkdir(exist_ok=True)
        return Path(shutil.move(self._directory / str(step), aside))

    def _not_written(self, step: int, reason: object) -> str:
        whole = [s for s in steps_in(self._directory) if what_is_damaged(self._directory / str(s)) is None]
        kept = f"The last good checkpoint is that of step {whole[-1]}" if whole else "There is no earlier checkpoint"
        # TensorStore repeats all its settings.
        reason = _NO_SPACE if _NO_SPACE in str(reason) else str(reason).strip().partition("\n")[0]
        return (
            f"checkpoint {step} could not be written to {self._directory}: {reason}. {kept}. "
            "Free space and run the same command again."
        )


def _few_at_a_time(state: PyTree) -> dict[str, Any]:
    """Returns Orbax handlers that copy at most twice the size of the largest array (plus 8 MB) at a time."""
    largest = max((leaf.nbytes for leaf in jax.tree.leaves(eqx.filter(state, eqx.is_array))), default=0)
    room: Any = (2 * largest + 2**23) / 1e9  # Orbax multiplies it by 1e9 and accepts a float
    return {
        "state": ocp.StandardCheckpointHandler(save_concurrent_gb=room),
        "data": grain.checkpoint.CheckpointHandler(),
        "meta": ocp.JsonCheckpointHandler(),
    }


class _Last(policies.PreservationPolicy):
    """Keeps the newest checkpoint, and the last `n` that are not passing."""

    def __init__(self, n: int):
        self._n = n

    def should_preserve(self, checkpoints: Sequence[Any], *, context: policies.PreservationContext) -> Sequence[bool]:
        steps = [one.step for one in checkpoints if _PASSING not in (one.metrics or {})]
        kept = {*steps[-self._n :], *(one.step for one in checkpoints[-1:])}
        return [one.step in kept for one in checkpoints]


def _bpd_of(metrics: dict[str, float]) -> float:
    return metrics[_BPD]


def _put_back(directory: Path) -> None:
    """Restores what was deleted for a checkpoint that a kill left unfinished, and completes all other deletions."""
    steps = steps_in(directory)
    if steps and not is_finished(directory / str(steps[-1])):
        for one in (directory / _DELETED).glob("*"):
            one.rename(directory / one.name)
    _delete_for_good(directory)


def _delete_for_good(directory: Path) -> None:
    """Deletes what Orbax renamed: renaming first means that a kill leaves no checkpoint half deleted."""
    shutil.rmtree(directory / _DELETED, ignore_errors=True)


def steps_in(directory: Path) -> list[int]:
    """Returns the steps that have a checkpoint folder, oldest first."""
    return sorted(int(path.name) for path in directory.glob("*") if path.name.isdecimal())


def read_newest(directory: Path, like: PyTree, *, saved: int | None) -> Restored | None:
    """Returns the newest checkpoint, or None if none was saved.

    Args:
        directory: The folder of checkpoints.
        like: Structure of the state.
        saved: Step that the run recorded as saved last, None before the first. A later checkpoint without checksums is
            ignored, because it is unfinished.

    Raises:
        CheckpointError: the newest checkpoint is damaged, or its folder is missing.
    """
    noted = -1 if saved is None else saved
    newest = max([noted, *(step for step in steps_in(directory) if is_finished(directory / str(step)))])
    if newest < 0:
        return None
    folder = directory / str(newest)
    if not folder.is_dir():
        damage = "missing"
    elif reason := what_is_damaged(folder):
        damage = f"damaged: {reason}"
    else:
        return _read_widened(folder, like)
    advice = _other_than(newest, directory)
    raise CheckpointError(f"{folder}: this checkpoint, the last that was saved, is {damage}. {advice}")


def _other_than(newest: int, directory: Path) -> str:
    """Advises what to do without the newest checkpoint."""
    whole = [s for s in steps_in(directory) if s != newest and what_is_damaged(directory / str(s)) is None]
    if not whole:
        return "No other is whole. To train again, run the recipe again."
    others = ", ".join(f"--checkpoint-step {step}" for step in reversed(whole))
    return f"Choose an earlier one ({others}), or run the recipe again, which goes on from step {whole[-1]:,}."


def read_chosen(directory: Path, step: int, like: PyTree) -> Restored:
    """Returns the checkpoint of `step`. Raises CheckpointError if it is missing or damaged."""
    if step not in steps_in(directory):
        there = ", ".join(f"{s:,}" for s in steps_in(directory)) or "none"
        raise CheckpointError(f"{directory}: no checkpoint of step {step:,}. Steps that are there: {there}.")
    if damage := what_is_damaged(directory / str(step)):
        raise CheckpointError(f"{directory / str(step)}: cannot be used: {damage}. Choose another step.")
    return _read_widened(directory / str(step), like)


def read_step(folder: Path, like: PyTree, data: grain.DatasetIterator | None = None) -> Restored:
    """Reads one intact checkpoint.

    Args:
        folder: The checkpoint.
        like: Structure of the state; its arrays may be `jax.ShapeDtypeStruct`.
        data: Iterator over batches, which is set to its state at the checkpoint.

    Raises:
        CheckpointError: paths, shapes or types differ from those of `like`.
    """
    with _readable(folder):
        return _read(folder, _metadata(folder), like, data)


def _read_widened(folder: Path, like: PyTree) -> Restored:
    """Reads a float32 checkpoint when JAX is in float64; widening is exact."""
    with _readable(folder):
        arrays, static = eqx.partition(like, _is_array_like)
        metadata = _metadata(folder)
        stored = {path: leaf.dtype for path, leaf in _by_path(metadata).items()}
        names = list(_by_path(arrays))
        leaves, structure = jax.tree.flatten(arrays)
        narrow = [_narrowed(leaf, stored.get(name, leaf.dtype)) for name, leaf in zip(names, leaves, strict=True)]
        restored = _read(folder, metadata, eqx.combine(jax.tree.unflatten(structure, narrow), static))
        read, _ = eqx.partition(restored.state, eqx.is_array)
        wide = jax.tree.map(lambda leaf, wanted: leaf.astype(wanted.dtype), read, arrays)
        return Restored(restored.step, eqx.combine(wide, static), restored.meta)


def _narrowed(leaf: Any, stored: Any) -> Any:
    narrower = stored.kind == leaf.dtype.kind and stored.itemsize < leaf.dtype.itemsize
    return jax.ShapeDtypeStruct(leaf.shape, stored if narrower else leaf.dtype)


def _read(folder: Path, metadata: PyTree, like: PyTree, data: grain.DatasetIterator | None = None) -> Restored:
    """Reads a checkpoint whose `metadata` is known."""
    folder = folder.resolve()  # Orbax fails late and at length on a relative path
    arrays, static = eqx.partition(like, _is_array_like)
    _check_fit(str(folder), metadata, arrays)
    state_reader = ocp.Checkpointer(ocp.StandardCheckpointHandler())
    stored = state_reader.restore(folder / "state", args=ocp.args.StandardRestore(_placed(metadata, arrays)))
    state = _with_leaves(arrays, _by_path(stored))
    if data is not None:
        # Grain only reads states of the same number of processes. The state, the next batch, is the same in each.
        data.set_state(json.loads(next((folder / "data").glob("process_0-of-*.json")).read_text()))
    meta = ocp.Checkpointer(ocp.JsonCheckpointHandler()).restore(folder / "meta")
    return Restored(int(folder.name), eqx.combine(state, static), meta)


def _metadata(folder: Path) -> PyTree:
    """Returns shapes and types of the stored arrays."""
    stored: Any = ocp.Checkpointer(ocp.StandardCheckpointHandler()).metadata(folder.resolve() / "state").item_metadata
    return stored.tree


def _is_array_like(leaf: Any) -> bool:
    return eqx.is_array(leaf) or isinstance(leaf, jax.ShapeDtypeStruct)


def _placed(metadata: PyTree, arrays: PyTree) -> PyTree:
    """Returns Orbax's restore target: the stored structure, which may lack parts without arrays, typed as `arrays`.

    Sharded arrays are restored with their sharding, others on one device of this process.
    """
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])

    def like(array: Any) -> jax.ShapeDtypeStruct:
        sharding = getattr(array, "sharding", None)
        placed = sharding if sharding is not None and len(sharding.device_set) > 1 else here
        return jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=placed)

    return _with_leaves(metadata, {path: like(array) for path, array in _by_path(arrays).items()})


@contextmanager
def _readable(folder: Path) -> Iterator[None]:
    """Raises CheckpointError for any error of Orbax, because forged files may have matching checksums."""
    try:
        with _late_errors_silenced():
            yield
    except VdmkitError:
        raise
    except Exception as error:
        if other := lost(error):
            raise other from error
        reason = in_one_line(error)[:200]
        raise CheckpointError(
            f"{folder}: cannot be read ({reason}), although its checksums are right: it is of another version, or "
            "forged. Choose another step, or another copy of the run."
        ) from error


def _check_fit(where: str, stored: PyTree, wanted: PyTree) -> None:
    """Raises CheckpointError with every path whose presence, shape or type differs: Orbax casts types silently."""
    have, want = ({path: _type(leaf) for path, leaf in _by_path(tree).items()} for tree in (stored, wanted))
    lines = [
        f"  {path}: {have[path]} in the checkpoint, {want[path]} in the recipe"
        for path in want
        if path in have and have[path] != want[path]
    ]
    lines += [f"  {path}: {want[path]} in the recipe, missing in the checkpoint" for path in want if path not in have]
    lines += [f"  {path}: {have[path]} in the checkpoint, unknown to the recipe" for path in have if path not in want]
    if lines:
        more = [f"  and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else []
        raise CheckpointError(
            "\n".join([f"{where}: the checkpoint does not belong to this recipe.", *lines[:_SHOWN], *more])
        )


def _by_path(tree: PyTree) -> dict[str, Any]:
    """Returns the arrays (or their shapes) by path, in order."""
    leaves = jax.tree_util.tree_leaves_with_path(tree, is_leaf=_is_leaf)
    return {_joined(path): leaf for path, leaf in leaves if leaf is not None}


def _with_leaves(tree: PyTree, leaves: Mapping[str, Any]) -> PyTree:
    """Returns the tree with its arrays replaced by `leaves`, given by path."""
    return jax.tree_util.tree_map_with_path(lambda path, leaf: leaves[_joined(path)], tree, is_leaf=_is_leaf)


def _is_leaf(node: Any) -> bool:
    return hasattr(node, "dtype")


def _joined(path: tuple[Any, ...]) -> str:
    return ".".join(_name(key) for key in path)


def _type(leaf: Any) -> str:
    return f"{leaf.dtype}{list(leaf.shape)}"


def _name(key: Any) -> str:
    """Returns the attribute, dictionary key or index in a key of JAX or Orbax."""
    for attribute in ("name", "key", "idx"):
        if hasattr(key, attribute):
            return str(getattr(key, attribute))
    return str(key)


@contextmanager
def _late_errors_silenced() -> Iterator[None]:
    """Silences late errors of TensorStore's threads, which report to a closed event loop after a full or forged file.

    The first error closes the loop, and Python and asyncio would print a traceback for each of the others. After an
    error they are never awaited, so this stays in force.
    """
    hook, log = sys.unraisablehook, logging.getLogger("asyncio")
    if getattr(hook, "func", None) is not _unless_late:
        sys.unraisablehook = partial(_unless_late, hook)
    log.disabled = True
    yield
    sys.unraisablehook, log.disabled = hook, False


def _unless_late(otherwise: Callable[[Any], object], report: Any) -> None:
    code = getattr(report.object, "cr_code", None)  # of a coroutine
    if str(report.exc_value) != "Event loop is closed" and not (code and "orbax" in Path(code.co_filename).parts):
        otherwise(report)
