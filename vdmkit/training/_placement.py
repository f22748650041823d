# SPDX-License-Identifier: Apache-2.0
"""Where arrays live: batches split over all devices, the state on each of them."""

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from vdmkit.errors import DataError


def data_mesh(batch_size: int) -> Mesh:
    """All devices on one axis. Raises DataError if they cannot share the global batch evenly."""
    n = jax.device_count()
    if batch_size % n:
        raise DataError(
            f"training.batch_size = {batch_size} does not divide over {n} devices. Choose a multiple of {n}."
        )
    return jax.make_mesh((n,), ("batch",), axis_types=(AxisType.Auto,))


def place_batch(batch: PyTree[np.ndarray], mesh: Mesh, *, stacked: bool = False) -> PyTree:
    """This process's rows of the global batch, as one global array. `stacked` has a leading axis of steps."""
    spec = PartitionSpec(None, "batch") if stacked else PartitionSpec("batch")
    sharding = NamedSharding(mesh, spec)
    return jax.tree.map(lambda rows: jax.make_array_from_process_local_data(sharding, rows), batch)


def replicate(tree: PyTree, mesh: Mesh) -> PyTree:
    """A copy of every array on every device."""
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))
