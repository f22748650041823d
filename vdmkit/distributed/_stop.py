# SPDX-License-Identifier: Apache-2.0
"""A common stop: a signal may reach one process only, and all must stop at the same step.

A process that is asked to stop says so, with the step that it has reached. The others notice, and say theirs; then all
go on to the largest of these steps, which every process has dispatched or will. Until then this costs a question to the
coordinator now and then, and nothing on the devices.
"""

import itertools
import time

from vdmkit.distributed._talk import client

_BETWEEN = 0.5  # seconds between questions to the coordinator
_PATIENCE_MS = 1000  # so that a second Ctrl-C is heard
_numbers = itertools.count()


class CommonStop:
    """Decides for one training at which step all processes stop."""

    def __init__(self):
        import jax

        self._process, self._processes = jax.process_index(), jax.process_count()
        self._name = f"vdmkit/stop/{next(_numbers)}"
        self._end: float | None = None  # of the agreement: a step, or infinity
        self._questioned = 0.0

    def __call__(self, asked: bool, step: int, *, last: bool = False) -> bool:
        """Returns whether to stop after `step`. All processes must call it with `last` after their last step."""
        if self._processes == 1:
            return asked
        if self._end is None and (asked or last or self._someone_asked()):
            self._end = self._agree(asked, step)
        return self._end is not None and step >= self._end

    def _someone_asked(self) -> bool:
        if time.monotonic() < self._questioned + _BETWEEN:
            return False
        self._questioned = time.monotonic()
        return bool(client().key_value_dir_get(f"{self._name}/"))

    def _agree(self, asked: bool, step: int) -> float:
        client().key_value_set(f"{self._name}/{self._process}", f"{step} {int(asked)}")
        said = [self._heard_from(process).split() for process in range(self._processes)]
        stop = any(wanted == "1" for _, wanted in said)
        return max(int(reached) for reached, _ in said) if stop else float("inf")

    def _heard_from(self, process: int) -> str:
        while True:
            try:
                return client().blocking_key_value_get(f"{self._name}/{process}", _PATIENCE_MS)
            except Exception as error:
                if "DEADLINE_EXCEEDED" not in str(error):
                    raise
