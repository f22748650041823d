# SPDX-License-Identifier: Apache-2.0
"""The memory that a training step needs on each of many devices, from the compiler: nothing is allocated."""

import math
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from vdmkit.assembly import build_optimizer, build_update, state_like
from vdmkit.mesh import batch_sharding, data_mesh, state_shardings
from vdmkit.recipe import Recipe

_QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}  # this is never run


@dataclass(frozen=True)
class StepMemory:
    """Bytes on each device while a step is computed.

    Attributes:
        devices: Number of devices.
        divided: Whether the training state is divided over them.
        whole_state: Model, average and optimiser's state, undivided.
        state: This device's part of them, and of the batch.
        working: What the step needs besides.
    """

    devices: int
    divided: bool
    whole_state: int
    state: int
    working: int

    @property
    def total(self) -> int:
        """Returns the bytes on a device."""
        return self.state + self.working

    def __str__(self) -> str:
        how = "divided over the devices" if self.divided else "a copy on each device"
        return (
            f"{self.total / 2**20:,.0f} MiB on each of {self.devices} devices: state {self.state / 2**20:,.0f} MiB "
            f"({self.whole_state / 2**20:,.0f} MiB, {how}), step {self.working / 2**20:,.0f} MiB"
        )


def memory_of_step(recipe: Recipe, *, fsdp: bool) -> StepMemory:
    """Compiles a recipe's training step for all devices from shapes alone.

    Raises:
        DataError: the batch is not a multiple of the number of devices, or the shape of the images is not known.
    """
    devices = jax.device_count()
    mesh = data_mesh(recipe.training.batch_size, devices if fsdp else 1)
    source = recipe.data.build()
    like = state_like(recipe, source.shape, source.levels)
    shapes, static = eqx.partition(like, lambda leaf: isinstance(leaf, jax.ShapeDtypeStruct))
    state = jax.tree.map(_placed, shapes, state_shardings(like, mesh))
    update = build_update(recipe, build_optimizer(recipe))

    def step(arrays: PyTree, batch: Any, key: Any) -> tuple[PyTree, Any]:
        after, metrics = update(eqx.combine(arrays, static), batch, key=key)
        return eqx.filter(after, eqx.is_array), metrics

    key = _placed(jax.eval_shape(lambda: jax.random.key(0)), NamedSharding(mesh, PartitionSpec()))
    batch = _batch(recipe.training.batch_size, source.shape, source.levels, source.classes, mesh)
    lowered = jax.jit(step, donate_argnums=0).lower(state, batch, key)
    found: Any = lowered.compile(compiler_options=_QUICK).memory_analysis()
    whole = sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(shapes))
    working = found.temp_size_in_bytes + found.output_size_in_bytes - found.alias_size_in_bytes
    return StepMemory(devices, fsdp, whole, found.argument_size_in_bytes, working)


def _placed(leaf: Any, sharding: NamedSharding) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def _batch(size: int, shape: tuple[int, ...], levels: int, classes: int, mesh: Mesh) -> dict[str, Any]:
    """Returns the shapes of a batch: see `vdmkit.data.batches`."""
    kinds = {"image": ((size, *shape), jnp.uint8 if levels else jnp.float32), "augmented": ((size,), jnp.float32)}
    kinds |= {"label": ((size,), jnp.int32)} if classes else {}
    return {name: jax.ShapeDtypeStruct(*kind, sharding=batch_sharding(mesh)) for name, kind in kinds.items()}
