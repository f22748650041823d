# SPDX-License-Identifier: Apache-2.0
"""Reads checkpoints without changing them, so that a run can be evaluated while it trains."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import equinox as eqx
import grain
import jax
import orbax.checkpoint as ocp
from jaxtyping import PyTree

from vdmkit.checkpoint._checksums import is_finished, what_is_damaged
from vdmkit.checkpoint._fit import by_path, check_fit, with_leaves
from vdmkit.checkpoint._late import late_reports_unheard
from vdmkit.errors import CheckpointError, VdmkitError, in_one_line
from vdmkit.multihost import lost


@dataclass(frozen=True)
class Restored:
    """A restored checkpoint: its step, state and metadata."""

    step: int
    state: PyTree
    meta: dict[str, Any]


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
    if damage := _damage(directory / str(newest)):
        raise CheckpointError(f"{directory / str(newest)}: {damage}. {_other_than(newest, directory)}")
    return _read_widened(directory / str(newest), like)


def _damage(folder: Path) -> str | None:
    """Describes the damage of a checkpoint; returns None if it is intact."""
    if not folder.is_dir():
        return "this checkpoint, the last that was saved, is missing"
    damage = what_is_damaged(folder)
    return damage and f"this checkpoint, the last that was saved, is damaged: {damage}"


def _other_than(newest: int, directory: Path) -> str:
    """Returns advice on what to do without the newest checkpoint."""
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


def _read_widened(folder: Path, like: PyTree) -> Restored:
    """Reads a float32 checkpoint when JAX is in float64; widening is exact."""
    with _hostile_refused(folder):
        return _read_wide(folder, like)


def _read_wide(folder: Path, like: PyTree) -> Restored:
    arrays, static = eqx.partition(like, _is_array_like)
    metadata = _metadata(folder)
    stored = {path: leaf.dtype for path, leaf in by_path(metadata).items()}
    names = list(by_path(arrays))
    leaves, structure = jax.tree.flatten(arrays)
    narrow = [_narrowed(leaf, stored.get(name, leaf.dtype)) for name, leaf in zip(names, leaves, strict=True)]
    restored = _read(folder, metadata, eqx.combine(jax.tree.unflatten(structure, narrow), static))
    read, _ = eqx.partition(restored.state, eqx.is_array)
    wide = jax.tree.map(lambda leaf, wanted: leaf.astype(wanted.dtype), read, arrays)
    return Restored(restored.step, eqx.combine(wide, static), restored.meta)


def _narrowed(leaf: Any, stored: Any) -> Any:
    narrower = stored.kind == leaf.dtype.kind and stored.itemsize < leaf.dtype.itemsize
    return jax.ShapeDtypeStruct(leaf.shape, stored if narrower else leaf.dtype)


def read_step(folder: Path, like: PyTree, data: grain.DatasetIterator | None = None) -> Restored:
    """Reads one intact checkpoint.

    Args:
        folder: The checkpoint.
        like: Structure of the state; its arrays may be `jax.ShapeDtypeStruct`.
        data: Iterator over batches, which is set to its state at the checkpoint.

    Raises:
        CheckpointError: paths, shapes or types differ from those of `like`.
    """
    with _hostile_refused(folder):
        return _read(folder, _metadata(folder), like, data)


@contextmanager
def _hostile_refused(folder: Path) -> Iterator[None]:
    """Raises CheckpointError for any error of Orbax: checksums may be right of files that nobody's training wrote."""
    try:
        with late_reports_unheard():
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


def _read(folder: Path, metadata: PyTree, like: PyTree, data: grain.DatasetIterator | None = None) -> Restored:
    """Reads a checkpoint whose `metadata` is known."""
    folder = folder.resolve()  # Orbax fails late and at length on a relative path
    arrays, static = eqx.partition(like, _is_array_like)
    check_fit(str(folder), metadata, arrays)
    state_reader = ocp.Checkpointer(ocp.StandardCheckpointHandler())
    stored = state_reader.restore(folder / "state", args=ocp.args.StandardRestore(_placed(metadata, arrays)))
    state = with_leaves(arrays, by_path(stored))
    if data is not None:
        # Grain reads only what as many processes wrote; the state is the number of the next batch, the same in each.
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
    """Returns how to restore: the stored structure, which may lack parts without arrays, with the types of `arrays`.

    Arrays that are divided over devices are restored so, others on one device of this process.
    """
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])

    def like(array: Any) -> jax.ShapeDtypeStruct:
        sharding = getattr(array, "sharding", None)
        placed = sharding if sharding is not None and len(sharding.device_set) > 1 else here
        return jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=placed)

    return with_leaves(metadata, {path: like(array) for path, array in by_path(arrays).items()})
