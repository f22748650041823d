# SPDX-License-Identifier: Apache-2.0
"""Which checkpoints of a run stay, and how the others go: renamed first, so that a kill leaves none in part."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from orbax.checkpoint.checkpoint_managers import preservation_policy as policies

from vdmkit.checkpoint._checksums import is_finished
from vdmkit.checkpoint._read import steps_in

DELETED = ".deleted"  # a folder in that of the checkpoints
_BPD, _PASSING = "bpd", "passing"  # metrics; the second is in checkpoints of a stop alone


def metrics_of(bpd: float, *, passing: bool) -> dict[str, float]:
    """Returns what is written with a checkpoint to decide whether it stays."""
    return {_BPD: bpd} | ({_PASSING: 1.0} if passing else {})


def bpd_of(metrics: dict[str, float]) -> float:
    """Returns what ranks a checkpoint; the lowest is the best."""
    return metrics[_BPD]


def policy(keep_last: int, keep_best: int) -> policies.AnyPreservationPolicy:
    """Returns what keeps the last checkpoints, and the best evaluated ones."""
    best = [policies.BestN(get_metric_fn=bpd_of, reverse=True, n=keep_best)] if keep_best else []
    return policies.AnyPreservationPolicy([_Last(keep_last), *best])


def put_back(directory: Path) -> None:
    """Restores what was deleted for a checkpoint that a kill left unfinished; and ends what was deleted for others."""
    steps = steps_in(directory)
    if steps and not is_finished(directory / str(steps[-1])):
        for one in (directory / DELETED).glob("*"):
            one.rename(directory / one.name)
    delete_for_good(directory)


def delete_for_good(directory: Path) -> None:
    """Deletes the checkpoints that were renamed."""
    shutil.rmtree(directory / DELETED, ignore_errors=True)


class _Last(policies.PreservationPolicy):
    """Keeps the newest checkpoint, and the last `n` of those that are not passing."""

    def __init__(self, n: int):
        self._n = n

    def should_preserve(self, checkpoints: Sequence[Any], *, context: policies.PreservationContext) -> Sequence[bool]:
        staying = [one.step for one in checkpoints if _PASSING not in (one.metrics or {})]
        kept = {*staying[-self._n :], *(one.step for one in checkpoints[-1:])}
        return [one.step in kept for one in checkpoints]
