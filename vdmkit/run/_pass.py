# SPDX-License-Identifier: Apache-2.0
"""One pass of an estimator over test images: batches on all devices, each kept on disk until the pass is done."""

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int, PRNGKeyArray, Real

from vdmkit.files import whole_file
from vdmkit.likelihood import AbstractEstimator, Estimates
from vdmkit.model import DiffusionModel
from vdmkit.training import data_mesh, place_batch, replicate


@dataclass(frozen=True)
class Kept:
    """Parts of a measurement in a folder of its own, named by everything that the numbers depend on."""

    folder: Path

    def read(self, number: int) -> dict[str, np.ndarray] | None:
        """The arrays of a part by name, if it was done before."""
        path = self.folder / f"{number}.npz"
        if not path.exists():
            return None
        with np.load(path) as file:
            return {name: file[name] for name in file.files}

    def write(self, number: int, arrays: dict[str, Any]) -> None:
        """Keep a part; in a folder that may not be written nothing is kept."""
        if os.access(self.folder.parent.parent, os.W_OK):
            self.folder.mkdir(parents=True, exist_ok=True)
            with whole_file(self.folder / f"{number}.npz") as part, part.open("wb") as file:
                np.savez(file, **arrays)

    def clear(self) -> None:
        """Delete them, and those of other measurements that never ended."""
        shutil.rmtree(self.folder.parent, ignore_errors=True)


def as_arrays(estimates: Estimates) -> dict[str, Any]:
    """By name, as an .npz file holds them."""
    terms = {f"term_{name}": np.asarray(values) for name, values in estimates.terms.items()}
    return {**terms, "evaluations": estimates.evaluations, "failed": estimates.failed}


def _of_arrays(arrays: dict[str, Any]) -> Estimates:
    terms = {name.removeprefix("term_"): values for name, values in arrays.items() if name.startswith("term_")}
    return Estimates(terms, arrays["evaluations"], arrays["failed"])


def sample_of(count: int, wanted: int) -> Int[np.ndarray, " m"]:
    """Numbers of `wanted` of the images, in their order: all, or a random sample of them."""
    return np.sort(np.random.default_rng(0).permutation(count)[:wanted])


def batch_of(batch_size: int, count: int) -> int:
    """Images of a batch: a multiple of the number of devices."""
    devices = jax.device_count()
    return -(-min(batch_size, count) // devices) * devices


def pass_over(
    estimator: AbstractEstimator[Any],
    model: DiffusionModel,
    pixels: Real[np.ndarray, "n h w c"],
    index: Int[np.ndarray, " m"],
    plan: Any,
    *,
    batch_size: int,
    key: PRNGKeyArray,
    kept: Kept | None = None,
    on_round: Callable[[], object] = lambda: None,
) -> Estimates:
    """Two independent estimates of each image that `index` names, every array of shape (2, m)."""
    size = batch_of(batch_size, len(index))
    mesh = data_mesh(size)
    model, plan = replicate_arrays((model, plan), mesh)
    parts = []
    for start in range(0, len(index), size):
        found = kept and kept.read(start)
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
    return jax.tree.map(lambda *values: np.concatenate(values, axis=1)[:, : len(index)], *parts)


def replicate_arrays(tree: Any, mesh: jax.sharding.Mesh) -> Any:
    """Arrays of JAX on every device; numpy's stay as they are, since they are read here."""
    return jax.tree.map(lambda leaf: replicate(leaf, mesh) if isinstance(leaf, jnp.ndarray) else leaf, tree)
