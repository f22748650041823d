# SPDX-License-Identifier: Apache-2.0
"""One pass of an estimator over images, in batches on all devices."""

import time
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int, PRNGKeyArray

from vdmkit.data import Pixels
from vdmkit.devices import data_mesh, place_batch, replicate
from vdmkit.likelihood._estimator import AbstractEstimator, Estimates
from vdmkit.model import DiffusionModel


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


def batch_of(batch_size: int, count: int) -> int:
    """Returns the number of images in a batch, a multiple of the number of devices."""
    devices = jax.device_count()
    return -(-min(batch_size, count) // devices) * devices


def pass_over(
    estimator: AbstractEstimator[Any],
    model: DiffusionModel,
    pixels: Pixels,
    index: Int[np.ndarray, " m"],
    plan: Any,
    *,
    batch_size: int,
    key: PRNGKeyArray,
    kept: Parts | None = None,
    seconds: float = float("inf"),
    on_round: Callable[[], object] = lambda: None,
) -> Estimates:
    """Returns two independent estimates of each image in `index`, in its order; every array is (2, m).

    After `seconds` no batch is begun; m is then the number of images done, at least 2.
    """
    size, end = batch_of(batch_size, len(index)), time.monotonic() + seconds
    mesh = data_mesh(size)
    model, plan = replicate_arrays((model, plan), mesh)
    parts, done = [], 0
    for start in range(0, len(index), size):
        if done > 1 and time.monotonic() > end:
            break
        found = kept.read(start) if kept else None
        if found is None:
            rows = np.resize(index[start : start + size], size)  # one shape, one compilation
            images, numbers = place_batch((np.ascontiguousarray(pixels[rows]), rows.astype(np.int32)), mesh)
            pair = [estimator(model, images, numbers, plan, replicate=r, key=key, on_round=on_round) for r in (0, 1)]
            part = jax.tree.map(lambda *both: np.stack([np.asarray(one) for one in both]), *pair)
            if kept:
                kept.write(start, as_arrays(part))
        else:
            part = _of_arrays(found)
            for _ in range(2 * estimator.rounds(plan)):
                on_round()
        parts.append(part)
        done = min(start + size, len(index))
    return jax.tree.map(lambda *values: np.concatenate(values, axis=1)[:, :done], *parts)


def replicate_arrays(tree: Any, mesh: jax.sharding.Mesh) -> Any:
    """Copies JAX arrays to every device; numpy arrays stay, because they are read on the host."""
    return jax.tree.map(lambda leaf: replicate(leaf, mesh) if isinstance(leaf, jnp.ndarray) else leaf, tree)
