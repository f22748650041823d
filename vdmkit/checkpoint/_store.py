# SPDX-License-Identifier: Apache-2.0
"""Writes the checkpoints of a training run by Orbax; each is renamed into place when it is complete."""

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import equinox as eqx
import grain
import jax
import orbax.checkpoint as ocp
from jaxtyping import PyTree

from vdmkit.checkpoint._checksums import is_finished, what_is_damaged, write_checksums
from vdmkit.checkpoint._kept import DELETED, bpd_of, delete_for_good, metrics_of, policy, put_back
from vdmkit.checkpoint._late import late_reports_unheard
from vdmkit.checkpoint._read import Restored, read_step, steps_in
from vdmkit.errors import CheckpointError
from vdmkit.multihost import is_first, lost, meet

_NO_SPACE = os.strerror(errno.ENOSPC)


class CheckpointStore:
    """Keeps the last `keep_last` checkpoints, and the `keep_best` evaluated ones of lowest bpd.

    A `frugal` store copies few arrays at a time while it saves, and not the whole state.
    """

    def __init__(self, directory: Path, *, keep_last: int, keep_best: int, frugal: bool = False):
        self._frugal = frugal
        self._directory = directory.resolve()  # Orbax fails late and at length on a relative path
        self._manager: ocp.CheckpointManager | None = None  # opened by the first save, after damage was cleared
        self._options = ocp.CheckpointManagerOptions(
            preservation_policy=policy(keep_last, keep_best),
            best_fn=bpd_of,  # without it the metrics are not written, and a resumed run could not rank
            enable_async_checkpointing=False,
            cleanup_tmp_directories=True,
            todelete_subdir=DELETED,
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
        again. Those after step `saved`, which the run recorded last, are deleted if a kill left them unfinished. Both
        happen after `check`, which may refuse the checkpoint.
        """
        if is_first():
            put_back(self._directory)
        meet()
        steps = steps_in(self._directory)
        damage = {step: what_is_damaged(self._directory / str(step)) for step in steps}
        whole = [step for step in steps if not damage[step]]
        restored = read_step(self._directory / str(whole[-1]), like, data) if whole else None
        check(restored)
        meet()  # the first must not move what others read
        for step in reversed(steps):
            if damage[step] and self._was_never_finished(step, saved):
                warn(f"checkpoint {step} was not finished when the run was stopped, and is deleted.")
                self._delete(step)
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

        A `passing` one, of a stop, takes no other's place, and is deleted after the next was saved.

        Raises:
            CheckpointError: the disk is full or not writable. Earlier checkpoints do not change.
        """
        if step in steps_in(self._directory):
            return
        items = ocp.args.Composite(
            state=ocp.args.StandardSave(eqx.filter(state, eqx.is_array)),
            data=grain.checkpoint.CheckpointSave(data),
            meta=ocp.args.JsonSave(meta),
        )
        try:
            if self._manager is None:
                handlers = _few_at_a_time(state) if self._frugal else None
                self._manager = ocp.CheckpointManager(self._directory, options=self._options, item_handlers=handlers)
            with late_reports_unheard():
                self._manager.save(step, args=items, metrics=metrics_of(bpd, passing=passing), force=True)
            if is_first():
                write_checksums(self._directory / str(step))
                delete_for_good(self._directory)
            meet()
        except Exception as error:  # Orbax and TensorStore raise many types; all mean that it was not written
            if other := lost(error):
                raise other from error
            raise CheckpointError(self._not_written(step, error)) from error

    def _was_never_finished(self, step: int, saved: int | None) -> bool:
        return (saved is None or step > saved) and not is_finished(self._directory / str(step))

    def _delete(self, step: int) -> None:
        if is_first():
            shutil.rmtree(self._directory / str(step))

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
    """Returns Orbax's handlers with room for two of the largest array, which must fit, and for many small ones."""
    largest = max((leaf.nbytes for leaf in jax.tree.leaves(eqx.filter(state, eqx.is_array))), default=0)
    room: Any = (2 * largest + 2**23) / 1e9  # Orbax multiplies it by 1e9, and need not have an int
    return {
        "state": ocp.StandardCheckpointHandler(save_concurrent_gb=room),
        "data": grain.checkpoint.CheckpointHandler(),
        "meta": ocp.JsonCheckpointHandler(),
    }
