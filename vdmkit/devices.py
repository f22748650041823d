# SPDX-License-Identifier: Apache-2.0
"""Devices and numerics of a process: matmul precision, software versions, the device mesh, and array placement.

The mesh covers all devices. Its axis `data` divides batches. With an axis `fsdp`, large arrays of the training state
are sharded over it, and batches are sharded over both axes. Model and optimiser are otherwise replicated.
"""

import functools
import importlib.metadata
import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from typing import Any, Literal, ParamSpec, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from vdmkit.errors import DataError, RecipeError, in_one_line
from vdmkit.multihost import meet
from vdmkit.plugins import plugin_packages

P = ParamSpec("P")
T = TypeVar("T")
MatmulPrecision = Literal["default", "high", "highest"]
_PACKAGES = ("jax", "jaxlib", "equinox", "optax", "diffrax", "orbax-checkpoint", "grain", "numpy")


def precisely(measure: Callable[P, T]) -> Callable[P, T]:
    """Returns the function with matmul precision "highest", so that products have float32 precision on every device.

    By default a GPU multiplies in TF32 and a TPU in bfloat16. The user's own `jax_default_matmul_precision` takes
    precedence. JAX keeps the setting per thread, so code that starts threads must decorate what they run.
    """

    @functools.wraps(measure)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> T:
        with multiplying("highest"):
            return measure(*args, **kwargs)

    return wrapped


def multiplying(precision: MatmulPrecision | None) -> AbstractContextManager[None]:
    """Sets the matmul precision in the block; None leaves it to the device. The user's own setting takes precedence."""
    return jax.default_matmul_precision(_matmul_precision() or precision)


@dataclass(frozen=True)
class Arithmetic:
    """Floating-point type, precision of matrix products, and number and kind of devices, such as '1 x cpu'.

    `matmul_precision` is `jax_default_matmul_precision`. "default" leaves it to the device: a GPU or TPU may then
    multiply float32 at lower precision.
    """

    precision: str
    matmul_precision: str
    device: str

    def __str__(self) -> str:
        return f"{self.precision}, matmul precision {self.matmul_precision}, {self.device}"


def missing_device() -> str:
    """Returns why JAX has no device and what to do, or "" if it has one."""
    try:
        jax.devices()
    except Exception as error:  # a RuntimeError, or an AssertionError without a message
        platforms = os.environ.get("JAX_PLATFORMS", "")
        if not platforms:
            return f"JAX finds no device ({in_one_line(error)}). Install JAX for a device that is there."
        why = f" ({in_one_line(error)})" if str(error) else ""
        return f"JAX_PLATFORMS={platforms}: JAX finds no such device{why}. Unset it, or install JAX for such a device."
    return ""


def arithmetic() -> Arithmetic:
    """Returns the arithmetic of this process, including the precision set by `precisely` if it is active."""
    devices = f"{jax.device_count()} x {jax.devices()[0].device_kind}"
    return Arithmetic(str(jnp.zeros(()).dtype), _matmul_precision() or "default", devices)


def _matmul_precision() -> str | None:
    return jax.config.jax_default_matmul_precision  # pyright: ignore[reportAttributeAccessIssue]


def in_flight(dispatched: Iterable[T], ahead: int = 2) -> Iterator[T]:
    """Yields device results in order while `ahead` more are dispatched, so the device is busy while the host reads."""
    waiting = deque[T]()
    for result in dispatched:
        waiting.append(result)
        if len(waiting) > ahead:
            yield waiting.popleft()
    yield from waiting


def facts_of(report: Any) -> dict[str, Any]:
    """Returns the fields of a report (a dataclass) as JSON values, with those of its `arithmetic` at the top level.

    Numbers that are not finite become None, null in JSON.
    """
    facts = asdict(report)
    of_arithmetic = facts.pop("arithmetic")
    return finite(facts | of_arithmetic)


def finite(value: Any) -> Any:
    """Returns a JSON value, with None for numbers that are not finite."""
    if isinstance(value, tuple):
        return [finite(one) for one in value]
    if isinstance(value, dict):
        return {name: finite(one) for name, one in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def packages(plugins: Iterable[str] | None = None) -> dict[str, str]:
    """Returns the versions of the packages that results depend on, and of these plugin packages (default: all)."""
    names = (*_PACKAGES, *sorted(plugin_packages() if plugins is None else plugins))
    return {name: importlib.metadata.version(name) for name in names}


_DATA, _FSDP = "data", "fsdp"
_SMALL = 4 * 2**20  # bytes; below, gathering costs more time than sharding saves memory


def data_mesh(batch_size: int, fsdp: int = 1) -> Mesh:
    """Returns a mesh of all devices, in groups of `fsdp` devices that share one copy of the training state.

    Raises:
        DataError: the global batch does not divide over the devices.
        RecipeError: the devices do not divide into groups of `fsdp`.
    """
    n = jax.device_count()
    if batch_size % n:
        raise DataError(
            f"training.batch_size = {batch_size} does not divide over {n} devices. Choose a multiple of {n}."
        )
    if n % fsdp:
        raise RecipeError(f"{n} devices do not divide into groups of {fsdp}. Choose a divisor of {n}.")
    # A process loads neighbouring rows of the batch, so its devices must be neighbours.
    devices = sorted(jax.devices(), key=lambda device: (device.process_index, device.id))
    if fsdp == 1:
        return _mesh(devices, (n,), (_DATA,))
    return _mesh(devices, (n // fsdp, fsdp), (_DATA, _FSDP))


def local_mesh(count: int) -> Mesh:
    """Returns a mesh of this process's first `count` devices, for computations without the other processes."""
    return _mesh(jax.local_devices()[:count], (count,), (_DATA,))


def devices_for(batches: int) -> int:
    """Returns the smallest number of this process's devices that process so many batches in the fewest rounds."""
    rounds = -(-batches // jax.local_device_count())
    return -(-batches // rounds) if batches else 1


def in_groups(items: Sequence[T], size: int) -> list[Sequence[T]]:
    """Returns the items in groups of `size`; the last may be smaller."""
    return [items[first : first + size] for first in range(0, len(items), size)]


def _mesh(devices: list[Any], shape: tuple[int, ...], axes: tuple[str, ...]) -> Mesh:
    return Mesh(np.asarray(devices).reshape(shape), axes, axis_types=(AxisType.Auto,) * len(axes))


def place_batch(batch: PyTree[np.ndarray], mesh: Mesh, *, stacked: bool = False) -> PyTree:
    """Places this process's rows of the global batch as one global array.

    Args:
        batch: Arrays whose leading axis is the batch.
        mesh: The mesh.
        stacked: Whether the arrays have an additional leading axis of training steps, which is not sharded.
    """
    sharding = batch_sharding(mesh, stacked=stacked)
    return jax.tree.map(lambda rows: jax.make_array_from_process_local_data(sharding, rows), batch)


def batch_sharding(mesh: Mesh, *, stacked: bool = False) -> NamedSharding:
    """Returns the sharding that `place_batch` uses."""
    return NamedSharding(mesh, PartitionSpec(*((None,) if stacked else ()), mesh.axis_names))


def replicate(tree: PyTree, mesh: Mesh) -> PyTree:
    """Copies every array to every device; all processes must hold the same values."""
    whole = NamedSharding(mesh, PartitionSpec())
    return jax.tree.map(lambda leaf: _put(leaf, whole), tree)


def _put(leaf: Any, sharding: NamedSharding) -> jax.Array:
    if sharding.is_fully_addressable or getattr(leaf, "sharding", None) == sharding:
        return jax.device_put(leaf, sharding)
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(_put(jax.random.key_data(leaf), sharding), impl=jax.random.key_impl(leaf))
    # From the host: JAX cannot copy an array to the devices of a different process.
    values = np.asarray(leaf)
    return jax.make_array_from_callback(values.shape, sharding, lambda part: values[part])


def replicate_arrays(tree: PyTree, mesh: Mesh) -> PyTree:
    """Copies JAX arrays to every device and leaves numpy arrays, which are read on the host."""
    return jax.tree.map(lambda leaf: replicate(leaf, mesh) if isinstance(leaf, jnp.ndarray) else leaf, tree)


def state_shardings(state: PyTree, mesh: Mesh, *, small: int = _SMALL) -> PyTree:
    """Returns the sharding of each array of the training state; arrays may be `jax.ShapeDtypeStruct`.

    Without an axis `fsdp` every array is replicated. With one, the largest dimension divisible by the size of that axis
    is sharded, except in arrays of less than `small` bytes.
    """
    n = mesh.shape.get(_FSDP, 1)
    return jax.tree.map(lambda leaf: NamedSharding(mesh, _spec(leaf, n, small)), eqx.filter(state, _is_array))


def _spec(leaf: Any, n: int, small: int) -> PartitionSpec:
    divisible = [(size, -axis) for axis, size in enumerate(leaf.shape) if size % n == 0]
    if n == 1 or not divisible or is_small(leaf, small):
        return PartitionSpec()
    axis = -max(divisible)[1]
    return PartitionSpec(*(None,) * axis, _FSDP)


def is_small(leaf: Any, small: int = _SMALL) -> bool:
    """Returns whether an array is always replicated because it has less than `small` bytes."""
    return math.prod(leaf.shape) * leaf.dtype.itemsize < small


def place_state(state: PyTree, mesh: Mesh) -> PyTree:
    """Copies the training state to every device, unless `build_on` has already placed it."""
    arrays, static = eqx.partition(state, eqx.is_array)
    return state if mesh_of(arrays) else eqx.combine(replicate(arrays, mesh), static)


def shardings_of(state: PyTree) -> PyTree:
    """Returns the shardings of the arrays of the training state."""
    return jax.tree.map(lambda leaf: leaf.sharding, eqx.filter(state, eqx.is_array))


def keep(state: PyTree, shardings: PyTree) -> PyTree:
    """Returns the training state with these shardings; arrays that already have them are not moved."""
    arrays, static = eqx.partition(state, eqx.is_array)
    placed = jax.tree.map(lambda leaf, there: leaf if leaf.sharding == there else _put(leaf, there), arrays, shardings)
    return eqx.combine(placed, static)


def build_on(mesh: Mesh, build: Callable[..., PyTree], *arguments: Any, small: int = _SMALL) -> PyTree:
    """Returns `build(*arguments)`; with an axis `fsdp` the result is built sharded and never exists on one device."""
    if _FSDP not in mesh.shape:
        return build(*arguments)
    shapes, static = eqx.partition(eqx.filter_eval_shape(build, *arguments), _is_array)
    shardings = state_shardings(shapes, mesh, small=small)
    built = jax.jit(lambda: eqx.filter(build(*arguments), eqx.is_array), out_shardings=shardings)()
    return eqx.combine(built, static)


def mesh_of(state: PyTree) -> Mesh | None:
    """Returns the mesh on which `build_on` placed the training state, or None if it is not placed yet."""
    placed = [leaf.sharding for leaf in jax.tree.leaves(state) if isinstance(leaf, jax.Array)]
    meshes = [sharding.mesh for sharding in placed if isinstance(sharding, NamedSharding)]
    return next((mesh for mesh in meshes if isinstance(mesh, Mesh)), None)


def gather_local(tree: PyTree) -> PyTree:
    """Returns unsharded copies of the arrays on this process's first device. All processes must call it."""
    arrays, others = eqx.partition(tree, lambda leaf: isinstance(leaf, jax.Array) and len(leaf.sharding.device_set) > 1)
    leaves, structure = jax.tree.flatten(arrays)
    if not leaves:
        return tree
    mesh = leaves[0].sharding.mesh
    meet()  # a collective times out after 30 seconds
    whole = jax.jit(lambda leaves: leaves, out_shardings=NamedSharding(mesh, PartitionSpec()))(leaves)
    local = [leaf.addressable_data(0) for leaf in whole]
    return eqx.combine(jax.tree.unflatten(structure, local), others)


def _is_array(leaf: Any) -> bool:
    return eqx.is_array(leaf) or isinstance(leaf, jax.ShapeDtypeStruct)
