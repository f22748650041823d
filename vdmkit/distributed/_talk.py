# SPDX-License-Identifier: Apache-2.0
"""What the processes of a run tell each other. With one process nothing is sent."""

import io
import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import numpy as np

T = TypeVar("T")
_DAY_MS = 24 * 60 * 60 * 1000  # a process may compile, or measure, for long
_numbers = itertools.count()


def is_first() -> bool:
    """Returns whether this process is the one that prints and writes."""
    import jax

    return jax.process_index() == 0


def is_alone() -> bool:
    """Returns whether there is no other process."""
    import jax

    return jax.process_count() == 1


def share_of(items: Sequence[T]) -> Sequence[T]:
    """Returns the items of this process: every n-th, beginning with its own number."""
    import jax

    return items[jax.process_index() :: jax.process_count()]


def client() -> Any:
    """Returns the client of the coordinator, by which processes talk without their devices."""
    from jax._src import distributed  # JAX has no public name for it

    return distributed.global_state.client


def meet() -> None:
    """Waits for all processes. All must call it, as often and in the same order."""
    if not is_alone():
        client().wait_at_barrier(f"vdmkit/{next(_numbers)}", _DAY_MS)


def gathered(arrays: Mapping[str, "np.ndarray"]) -> list[dict[str, "np.ndarray"]]:
    """Returns the arrays of every process, in the order of their numbers. All must call it."""
    if is_alone():
        return [dict(arrays)]
    import numpy as np
    from jax.experimental import multihost_utils

    file = io.BytesIO()
    np.savez(file, allow_pickle=False, **arrays)  # as bytes: JAX would make float32 of float64
    mine = np.frombuffer(file.getvalue(), np.uint8)
    meet()  # a collective does not wait as long
    sizes = np.asarray(multihost_utils.process_allgather(np.asarray([len(mine)], np.int32))).ravel()
    padded = np.zeros(sizes.max(), np.uint8)
    padded[: len(mine)] = mine
    rows = np.asarray(multihost_utils.process_allgather(padded)).reshape(len(sizes), -1)
    return [_read(row[:size].tobytes()) for row, size in zip(rows, sizes, strict=True)]


def as_first(arrays: Mapping[str, "np.ndarray"]) -> dict[str, "np.ndarray"]:
    """Returns the arrays of the first process, for what may differ, such as a time. All must call it."""
    return gathered(arrays if is_first() else {})[0]


def _read(contents: bytes) -> dict[str, "np.ndarray"]:
    import numpy as np

    with np.load(io.BytesIO(contents)) as file:
        return {name: file[name] for name in file.files}
