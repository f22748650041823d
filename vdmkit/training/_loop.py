# SPDX-License-Identifier: Apache-2.0
"""The training loop, which dispatches updates up to the next step at which something else has to happen."""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import grain
import jax
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from vdmkit.devices import data_mesh, keep, mesh_of, place_batch, place_state, replicate, shardings_of
from vdmkit.errors import NonFiniteError
from vdmkit.training._compiled_step import KeptStep, Step, compiled_step, in_step
from vdmkit.training._fault import FAULT
from vdmkit.training._gradient import Metrics
from vdmkit.training._state import TrainState
from vdmkit.training._step import Update, train_steps

_STEPS_PER_DISPATCH_ON_ACCELERATORS = 10
_AHEAD = 2  # dispatches that wait on the device: it is never idle, and few batches are in memory


@dataclass(frozen=True)
class Loop:
    """The constant parts of the training loop."""

    update: Update
    data: grain.DatasetIterator
    key: PRNGKeyArray
    batch_size: int
    steps_per_dispatch: int
    kept: KeptStep = KeptStep()

    def updates(
        self, state: TrainState, last: int, intervals: tuple[int, ...]
    ) -> Iterator[tuple[TrainState, int, Metrics]]:
        """Trains up to step `last`; after every dispatch yields the state, its step, and each update's metrics.

        The device may still be at work on them: reading one of their numbers waits for it.

        A dispatch ends at the next multiple of one of `intervals`. Which updates share a dispatch depends on the step
        alone, so that a resumed run repeats them exactly.
        """
        mesh = mesh_of(state) or data_mesh(self.batch_size)
        state, key = place_state(state, mesh), replicate(self.key, mesh)
        shardings = shardings_of(state)
        step, running = int(state.step), deque[Metrics]()
        k = self.steps_per_dispatch or default_steps_per_dispatch()
        one: Step | None = None
        many: Step | None = None
        while step < last:
            until = min(next_multiple(step, *intervals), last)
            n = k if step % k == 0 and step + k <= until else 1
            batches = [next(self.data) for _ in range(n)]
            if n == 1:
                inputs = (self.update, place_batch(batches[0], mesh), key)
                one = one or compiled_step(self.kept, inputs, state)
                state, metrics = one(inputs, state)
            else:
                inputs = (self.update, place_batch(_stack(batches), mesh, stacked=True), key)
                many = many or in_step(train_steps, inputs, state)
                state, metrics = many(inputs, state)
            if mesh.size > 1:  # there already, unless the compiler chose otherwise, which on one device it cannot
                state = keep(state, shardings)
            step += n
            running.append(metrics)
            if len(running) > _AHEAD:
                jax.block_until_ready(running.popleft())
            yield state, step, metrics


def default_steps_per_dispatch() -> int:
    """Returns the updates per dispatch: 1 on CPU, where a convolution in a compiled loop is 16 times slower."""
    return 1 if jax.default_backend() == "cpu" else _STEPS_PER_DISPATCH_ON_ACCELERATORS


def means(
    metrics: list[dict[str, Float[Array, "..."]]],  # of dispatches that need not be of equal length
    last_step: int,
    image_of: Callable[[int, int], int] | None = None,
) -> dict[str, float]:
    """Returns the mean of every metric over the updates that end at `last_step`.

    If they begin with the first, "untrained" is the loss before it.

    Args:
        metrics: The metrics of these updates.
        last_step: The last of them.
        image_of: Gives the number of a training image by step and row of the batch, for the message.

    Raises:
        NonFiniteError: a metric is not finite; the message names the term, the first such step, and the image and its
            gamma if the term of an image is not finite.
    """
    # The gradient comes last, because a term that is not finite makes it so.
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


def next_multiple(step: int, *intervals: int) -> int:
    """Returns the first step after `step` that is a multiple of one of the intervals; an interval of 0 is ignored."""
    return min((step // n + 1) * n for n in intervals if n)


def _stack(batches: list[PyTree[np.ndarray]]) -> PyTree[np.ndarray]:
    return jax.tree.map(lambda *rows: np.stack(rows), *batches)
