# SPDX-License-Identifier: Apache-2.0
"""The training loop, which dispatches updates up to the next step at which something else has to happen.

The module also defines the records of a training: the mean metrics of a log line, the metrics not yet logged when a run
stops, and the session, which describes the process that trained.
"""

import platform
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import grain
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from vdmkit import __version__
from vdmkit.devices import (
    arithmetic,
    data_mesh,
    keep,
    mesh_of,
    packages,
    place_batch,
    place_state,
    replicate,
    shardings_of,
)
from vdmkit.errors import CheckpointError, NonFiniteError
from vdmkit.multihost import CommonStop, is_alone, meet
from vdmkit.training.step import FAULT, Metrics, StepInputs, TrainState, Update, train_step, train_steps

_STEPS_PER_DISPATCH_ON_ACCELERATORS = 10
_AHEAD = 2  # dispatches queued on the device, which keep it busy with few batches in memory
_UNLOGGED = "unlogged"  # entry of a checkpoint's metadata
_Step = Callable[[StepInputs, TrainState], tuple[TrainState, Metrics]]


@dataclass(frozen=True)
class Loop:
    """The constant parts of the training loop."""

    update: Update
    data: grain.DatasetIterator
    key: PRNGKeyArray
    batch_size: int
    steps_per_dispatch: int

    def updates(
        self, state: TrainState, last: int, intervals: tuple[int, ...]
    ) -> Iterator[tuple[TrainState, int, Metrics]]:
        """Trains up to step `last`; after every dispatch yields the state, its step, and each update's metrics.

        The device may still be computing them; reading a value blocks until it is done.

        A dispatch ends at the next multiple of one of `intervals`. Which updates share a dispatch depends on the step
        alone, so that a resumed run repeats them exactly.
        """
        mesh = mesh_of(state) or data_mesh(self.batch_size)
        state, key = place_state(state, mesh), replicate(self.key, mesh)
        shardings = shardings_of(state)
        step, running = int(state.step), deque[Metrics]()
        k = self.steps_per_dispatch or default_steps_per_dispatch()
        one: _Step | None = None
        many: _Step | None = None
        while step < last:
            until = min(next_multiple(step, *intervals), last)
            n = k if step % k == 0 and step + k <= until else 1
            batches = [next(self.data) for _ in range(n)]
            if n == 1:
                inputs = (self.update, place_batch(batches[0], mesh), key)
                one = one or _compiled_together(train_step, inputs, state)
                state, metrics = one(inputs, state)
            else:
                stacked = jax.tree.map(lambda *rows: np.stack(rows), *batches)
                inputs = (self.update, place_batch(stacked, mesh, stacked=True), key)
                many = many or _compiled_together(train_steps, inputs, state)
                state, metrics = many(inputs, state)
            if mesh.size > 1:  # no-op unless the compiler chose a different sharding
                state = keep(state, shardings)
            step += n
            running.append(metrics)
            if len(running) > _AHEAD:
                jax.block_until_ready(running.popleft())
            yield state, step, metrics


def default_steps_per_dispatch() -> int:
    """Returns the updates per dispatch: 1 on CPU, where a convolution in a compiled loop is 16 times slower."""
    return 1 if jax.default_backend() == "cpu" else _STEPS_PER_DISPATCH_ON_ACCELERATORS


def next_multiple(step: int, *intervals: int) -> int:
    """Returns the first step after `step` that is a multiple of one of the intervals; an interval of 0 is ignored."""
    return min((step // n + 1) * n for n in intervals if n)


def _compiled_together(step: Any, inputs: StepInputs, state: TrainState) -> _Step:
    """Compiles the step in all of several processes before it runs: collectives time out after 30 seconds."""
    if is_alone():
        return step
    compiled = step.lower(inputs, state).compile()
    meet()
    return compiled


def means(
    metrics: list[dict[str, Float[Array, "..."]]],  # of dispatches that need not be of equal length
    last_step: int,
    image_of: Callable[[int, int], int] | None = None,
) -> dict[str, float]:
    """Returns the mean of every metric over the updates that end at `last_step`.

    If these include the first update, "untrained" is the loss before it.

    Args:
        metrics: The metrics of these updates.
        last_step: The last of them.
        image_of: Gives the number of a training image by step and row of the batch, for the message.

    Raises:
        NonFiniteError: a metric is not finite; the message names the term, the first such step, and the image and its
            gamma if the term of an image is not finite.
    """
    # The gradient comes last, because any non-finite term makes it non-finite.
    names = sorted(metrics[0], key=lambda name: name == "gradient")
    joined = {name: np.concatenate([np.asarray(m[name]) for m in metrics]) for name in names}
    faults = [joined.pop(name, np.zeros(len(joined["bpd"]))) for name in FAULT]
    first_step = last_step - len(joined["bpd"]) + 1
    bad = [
        (int(np.argmin(np.isfinite(v))), name)
        for name, v in joined.items()
        if name != "bpd" and not np.isfinite(v).all()
    ]
    if bad:
        offset, name = min(bad, key=lambda found: found[0])
        step, (count, row, gamma) = first_step + offset, (float(values[offset]) for values in faults)
        where = _where(int(count), image_of(step, int(row)) if image_of else int(row), gamma)
        raise NonFiniteError(f"training stopped: the {name} term was not finite at step {step}{where}.")
    untrained = {"untrained": float(joined["bpd"][0])} if first_step == 1 else {}
    return {name: float(values.mean()) for name, values in joined.items()} | untrained


def _where(count: int, image: int, gamma: float) -> str:
    others = f" and {count - 1} others of the batch" if count > 1 else ""
    return f", in training image {image}{others}, at gamma = {gamma:.4g}" if count else ""


class Unlogged(NamedTuple):
    """Metrics of the updates since the last log line, and the seconds that these took.

    The checkpoint of a stopped run keeps them. A log line is a mean over the steps since the previous line; without
    these metrics the first line after a stop would average fewer steps.
    """

    metrics: list[Metrics]
    seconds: float

    def as_json(self) -> dict[str, Any]:
        """Returns an entry of a checkpoint's metadata, or {} if there are no metrics."""
        joined = {
            name: np.concatenate([np.asarray(one[name]) for one in self.metrics]).tolist()
            for name in (self.metrics[0] if self.metrics else ())
        }
        return {_UNLOGGED: {"seconds": self.seconds, "metrics": joined}} if joined else {}


def unlogged_in(meta: Mapping[str, Any], where: Path) -> Unlogged:
    """Parses what `as_json` stored in a checkpoint's metadata. Raises CheckpointError if it is invalid."""
    found = meta.get(_UNLOGGED)
    if found is None:
        return Unlogged([], 0.0)
    try:
        metrics = {name: jnp.asarray(np.asarray(values, float)) for name, values in found["metrics"].items()}
        if {(one.ndim, one.shape) for one in metrics.values()} != {(1, metrics["bpd"].shape)}:
            raise ValueError("they are not of the same updates")
        return Unlogged([metrics], float(found["seconds"]))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        advice = "Give the run another copy of it, or delete it."
        raise CheckpointError(f"{where}: its metrics cannot be read ({error}). {advice}") from error


@contextmanager
def stop_requests(last: int) -> Iterator[Callable[[int], bool]]:
    """Turns Ctrl-C and SIGTERM into a request to stop, to be honoured when the state is consistent.

    Yields a function that returns whether to stop after a step. A second Ctrl-C stops at once. With several processes,
    a request to any of them stops all at the same step, and each must call the function after step `last`.
    """
    requested, common = False, CommonStop()

    def request(number: int, frame: FrameType | None) -> None:
        nonlocal requested
        if requested:
            raise KeyboardInterrupt
        requested = True

    before = {number: signal.signal(number, request) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda step: common(requested, step, last=step >= last)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def session(from_step: int, goal_step: int) -> dict[str, Any]:
    """Returns the steps that this process trains, with its versions, device and command."""
    return {
        "from_step": from_step,
        "goal_step": goal_step,
        "vdmkit": __version__,
        "git": _git(),
        "python": platform.python_version(),
        "packages": packages(),
        **asdict(arithmetic()),
        "processes": jax.process_count(),
        "command": sys.argv,
    }


def _git() -> str | None:
    """Returns the commit of vdmkit's source, with '+' if files have changed; None outside of a checkout."""
    here = str(Path(__file__).parent)
    command = ["git", "-C", here, "describe", "--always", "--dirty=+", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None
