# SPDX-License-Identifier: Apache-2.0
"""One pass of an estimator over images, in batches on all devices."""

import time
from collections.abc import Callable
from itertools import cycle, islice, takewhile
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int, PRNGKeyArray

from vdmkit.data import Pixels
from vdmkit.distributed import as_first, gathered, is_alone, share_of
from vdmkit.likelihood._estimator import NOTHING, AbstractEstimator, Estimates
from vdmkit.mesh import devices_for, in_groups, local_mesh, place_batch, replicate_arrays
from vdmkit.model import DiffusionModel
from vdmkit.networks import Conditions


@runtime_checkable
class Parts(Protocol):
    """A store of the batches of a pass, so that an interrupted pass can continue."""

    def read(self, number: int) -> dict[str, np.ndarray] | None:
        """Returns the arrays of a batch by name, or None if they were not written."""
        ...

    def write(self, number: int, arrays: dict[str, Any]) -> None:
        """Writes the arrays of a batch."""
        ...


def as_arrays(estimates: Estimates) -> dict[str, Any]:
    """Returns estimates as arrays by name, for an .npz file."""
    terms = {f"term_{name}": np.asarray(values) for name, values in estimates.terms.items()}
    return {**terms, "evaluations": estimates.evaluations, "failed": estimates.failed}


def _of_arrays(arrays: dict[str, Any]) -> Estimates:
    terms = {name.removeprefix("term_"): values for name, values in arrays.items() if name.startswith("term_")}
    return Estimates(terms, arrays["evaluations"], arrays["failed"])


def sample_of(count: int, wanted: int) -> Int[np.ndarray, " m"]:
    """Returns the rising indices of `wanted` images: all, or a random sample."""
    return np.sort(np.random.default_rng(0).permutation(count)[:wanted])


def calls_of(batch_size: int, count: int) -> int:
    """Returns how often this process will call the estimator for each replicate, for a progress bar."""
    starts = share_of(range(0, count, min(batch_size, count)))
    return -(-len(starts) // devices_for(len(starts)))


def pass_over(
    estimator: AbstractEstimator[Any],
    model: DiffusionModel,
    pixels: Pixels,
    index: Int[np.ndarray, " m"],
    plan: Any,
    *,
    batch_size: int,
    key: PRNGKeyArray,
    condition: Conditions = NOTHING,
    kept: Parts | None = None,
    seconds: float = float("inf"),
    on_round: Callable[[], object] = lambda: None,
) -> Estimates:
    """Returns two independent estimates of each image in `index`, in its order; every array is (2, m).

    A device measures whole batches, so that the estimates do not depend on the number of devices and processes, each of
    which takes its share. After `seconds` no batch is begun; m is then the number of images done, at least 2.
    `condition` has a row for each of `pixels`.
    """
    size, end = min(batch_size, len(index)), time.monotonic() + seconds
    starts = share_of(range(0, len(index), size))
    mesh = local_mesh(devices_for(len(starts)))
    model, plan = replicate_arrays((model, plan), mesh)
    done: dict[int, Estimates] = {}
    for at_once in in_groups(starts, mesh.size):
        if len(done) * size > 1 and time.monotonic() > end:
            break
        found = {start: kept.read(start) if kept else None for start in at_once}
        if None in found.values():
            rows = [np.resize(index[start : start + size], size) for start in at_once]
            rows = np.concatenate(list(islice(cycle(rows), mesh.size)))  # one shape, one compilation
            told = {name: np.asarray(values)[rows] for name, values in condition.items()}
            batch = np.ascontiguousarray(pixels[rows]), rows.astype(np.int32), told
            images, numbers, told = place_batch(batch, mesh)
            how = {"key": key, "on_round": on_round} | ({"condition": told} if told else {})
            pair = [estimator(model, images, numbers, plan, replicate=r, **how) for r in (0, 1)]
            part = jax.tree.map(lambda *both: np.stack([np.asarray(one) for one in both]), *pair)
            for i, start in enumerate(at_once):
                done[start] = jax.tree.map(lambda values, i=i: values[:, i * size : (i + 1) * size], part)
                if kept:
                    kept.write(start, as_arrays(done[start]))
        else:
            done |= {start: _of_arrays(arrays) for start, arrays in found.items() if arrays is not None}
            for _ in range(2 * estimator.rounds(plan)):
                on_round()
    return _joined(done, size, len(index))


def _joined(done: dict[int, Estimates], size: int, count: int) -> Estimates:
    """Returns the batches of all processes, up to the first that is missing, as one."""
    sent = {f"{start} {name}": array for start, part in done.items() for name, array in as_arrays(part).items()}
    batches: dict[int, dict[str, Any]] = {}
    for arrays in gathered(sent):
        for words, array in arrays.items():
            start, _, name = words.partition(" ")
            batches.setdefault(int(start), {})[name] = array
    whole = takewhile(lambda start: start in batches, range(0, count, size))
    parts = [_of_arrays(batches[start]) for start in whole]
    return jax.tree.map(lambda *values: np.concatenate(values, axis=1)[:, :count], *parts)


def as_first_plan(plan: Any) -> Any:
    """Returns the plan of the first process: by rounding, the pilot of another machine may choose other draws."""
    leaves, structure = jax.tree.flatten(plan)
    arrays = {str(i): np.asarray(leaf) for i, leaf in enumerate(leaves) if isinstance(leaf, jax.Array | np.ndarray)}
    if is_alone() or not arrays:
        return plan
    for i, array in as_first(arrays).items():
        leaves[int(i)] = jnp.asarray(array) if isinstance(leaves[int(i)], jax.Array) else array
    return jax.tree.unflatten(structure, leaves)
