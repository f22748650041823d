# SPDX-License-Identifier: Apache-2.0
"""A common stop: a signal may reach one process only, and all must stop at the same step.

At some steps the first process says whether to go on, and at which step it will say so again, in about half a second.
The others wait for its word: they have dispatched what the first needs to come that far. Nothing waits for a process
that is asked to stop, because a step that others have dispatched needs all of them.
"""

import itertools
import time

from vdmkit.distributed._talk import client

_BETWEEN = 0.5  # seconds
_PATIENCE_MS = 1000  # so that a second Ctrl-C is heard
_KEPT = 100  # words of the first process that the coordinator keeps, for processes that are behind
_numbers = itertools.count()


class CommonStop:
    """Decides for one training at which step all processes stop."""

    def __init__(self):
        import jax

        self._process, self._processes = jax.process_index(), jax.process_count()
        self._name = f"vdmkit/stop/{next(_numbers)}"
        self._told = False  # that this process is asked to stop
        self._verdict: bool | None = None  # the last word
        self._next, self._said, self._time = 0, list[int](), time.monotonic()

    def __call__(self, asked: bool, step: int, *, last: bool = False) -> bool:
        """Returns whether to stop after `step`. All processes must call it at the same steps.

        Args:
            asked: Whether this process is asked to stop.
            step: The step, in rising order.
            last: Whether no step follows.
        """
        if self._processes == 1:
            return asked
        if asked and not self._told:
            client().key_value_set(f"{self._name}/asked/{self._process}", "")
            self._told = True
        if self._verdict is None and (last or step >= self._next):
            word = self._say(asked, step) if self._process == 0 else self._hear(step)
            stop, self._next = word
            self._verdict = stop if stop or last else None
        return bool(self._verdict)

    def _say(self, asked: bool, step: int) -> tuple[bool, int]:
        stop = asked or bool(client().key_value_dir_get(f"{self._name}/asked/"))
        steps = step - self._said[-1] if self._said else 0
        pace = steps / max(time.monotonic() - self._time, 1e-3)
        following = step + max(1, min(int(pace * _BETWEEN), 2 * steps))  # the first steps tell little of the pace
        client().key_value_set(f"{self._name}/{step}", f"{int(stop)} {following}")
        self._said, self._time = [*self._said, step], time.monotonic()
        if len(self._said) > _KEPT:
            client().key_value_delete(f"{self._name}/{self._said.pop(0)}")
        return stop, following

    def _hear(self, step: int) -> tuple[bool, int]:
        while True:
            try:
                word = client().blocking_key_value_get(f"{self._name}/{step}", _PATIENCE_MS)
            except Exception as error:
                if "DEADLINE_EXCEEDED" not in str(error):
                    raise
            else:
                stop, following = map(int, word.split())
                return bool(stop), following
