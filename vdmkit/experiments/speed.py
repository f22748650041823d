# SPDX-License-Identifier: Apache-2.0
"""Measures how fast a recipe trains on this machine: compilation, steps, arithmetic, memory, and waiting for data.

`memory_of_step` asks the compiler for the memory that a training step needs on each of many devices, without allocating
anything.
"""

import math
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Float, PyTree

from vdmkit.data.batches import batches
from vdmkit.data.sources import Images, identified
from vdmkit.devices import Arithmetic, arithmetic, batch_sharding, data_mesh, place_batch, replicate, state_shardings
from vdmkit.recipes.build import build_optimizer, build_state, build_update, count_parameters, state_like
from vdmkit.recipes.schema import Recipe
from vdmkit.training.step import train_step

_IMAGES = 1024
_FEWEST = 8  # steps, enough for an interval of their median
_PEAK_TFLOPS = {"A100": 312.0, "H100": 989.0, "H200": 989.0, "TPU v4": 275.0, "TPU v5 lite": 197.0, "TPU v5p": 459.0}
"""bfloat16 without sparsity, by the vendors' data sheets; kinds of devices hold these words."""


@dataclass(frozen=True)
class Median:
    """A median with its 95% interval from order statistics, which is distribution-free; a busy machine has outliers."""

    value: float
    low: float
    high: float

    def over(self, other: "Median") -> "Median":
        """Returns the ratio of two independent medians; the errors of their logarithms add in quadrature."""
        ratio = self.value / other.value
        down, up = (
            math.hypot(*(math.log(one / of.value) for of, one in pairs))
            for pairs in (((self, self.low), (other, other.high)), ((self, self.high), (other, other.low)))
        )
        return Median(ratio, ratio * math.exp(-down), ratio * math.exp(up))


def median(values: Float[np.ndarray, " n"]) -> Median:
    """Returns the median of n independent values and the order statistics that bracket it with 95% confidence."""
    ranks = np.clip(0.5 + np.array([0, -1, 1]) * 0.98 / np.sqrt(len(values)), 0, 1)
    return Median(*map(float, np.quantile(values, ranks)))


@dataclass(frozen=True)
class Speed:
    """The measured training speed of a recipe.

    Attributes:
        batch_size: Images in a step.
        parameters: Number of trained parameters.
        compile_seconds: Time to trace and compile a step.
        step_seconds: Time of a step, data included.
        waiting: Fraction of the time in which a step waits for its batch and its transfer to the device.
        flops: Floating-point operations of a step according to the compiler; None if it does not count them.
        utilisation: `flops` per second divided by the peak of the devices in bfloat16; None if the peak is unknown.
        peak_mib: Peak memory of the device in MiB, or of the process on a CPU.
        arithmetic: Precision and devices.
    """

    batch_size: int
    parameters: int
    compile_seconds: float
    step_seconds: Median
    waiting: float
    flops: float | None
    utilisation: float | None
    peak_mib: float
    arithmetic: Arithmetic


def measure_speed(recipe: Recipe, *, seconds: float = 10.0, profile: tuple[int, str] | None = None) -> Speed:
    """Measures training steps of a recipe on random images, whose values do not affect the speed.

    Args:
        recipe: The recipe.
        seconds: Steps are repeated for this long, and at least 8 times.
        profile: A number of steps, and a folder for their trace, which TensorBoard and Perfetto read.

    Raises:
        DataError: the batch is not a multiple of the number of devices.
    """
    source, size = recipe.data.build(), recipe.training.batch_size
    images = _random_images(source.shape, source.levels, source.classes)
    data = batches(images, [one.build() for one in recipe.augmentations], batch_size=size, seed=recipe.seed)
    mesh = data_mesh(size)
    counts = np.ones((*source.shape, source.levels), np.int32)
    state = replicate(build_state(recipe, jax.numpy.asarray(counts)), mesh)
    key = replicate(jax.random.key(0), mesh)
    update = build_update(recipe, build_optimizer(recipe))

    start = time.monotonic()
    of_recipe: Any = train_step  # Equinox's wrapper has `lower`, but not in its type
    step = of_recipe.lower((update, place_batch(next(data), mesh), key), state).compile()
    compiled = time.monotonic() - start

    def one() -> tuple[float, float]:
        nonlocal state
        begin = time.monotonic()
        batch = jax.block_until_ready(place_batch(next(data), mesh))
        ready = time.monotonic()
        state, _ = jax.block_until_ready(step((update, batch, key), state))
        return time.monotonic() - begin, ready - begin

    one()
    times = np.array(_repeated(one, seconds))
    if profile:
        with jax.profiler.trace(profile[1]):
            for _ in range(profile[0]):
                one()
    of_step, flops = median(times[:, 0]), _flops(step)
    peak = _peak()
    return Speed(
        batch_size=size,
        parameters=count_parameters(recipe, source),
        compile_seconds=compiled,
        step_seconds=of_step,
        waiting=float(times[:, 1].sum() / times[:, 0].sum()),
        flops=flops,
        utilisation=flops / of_step.value / peak if flops and peak else None,
        peak_mib=_memory(),
        arithmetic=arithmetic(),
    )


def _random_images(shape: tuple[int, int, int], levels: int, classes: int) -> Images:
    rng = np.random.default_rng(0)
    size = (_IMAGES, *shape)
    pixels = rng.integers(levels, size=size, dtype=np.uint8) if levels else rng.standard_normal(size, np.float32)
    labels = rng.integers(classes, size=_IMAGES) if classes else None
    return identified(pixels, levels, name="random", split="train", labels=labels)


def _repeated(one: Callable[[], tuple[float, float]], seconds: float) -> list[tuple[float, float]]:
    end, times = time.monotonic() + seconds, []
    while len(times) < _FEWEST or time.monotonic() < end:
        times.append(one())
    return times


def _flops(step: Any) -> float | None:
    """Returns the operations of a compiled step on all devices, according to the compiler."""
    found = step.compiled.cost_analysis()
    flops = (found[0] if isinstance(found, list) else found or {}).get("flops", 0.0)
    return flops * jax.device_count() if flops > 0 else None


def _peak() -> float | None:
    """Returns the peak bfloat16 operations per second of all devices, or None if their kind is unknown."""
    kind = jax.devices()[0].device_kind
    known = [peak for name, peak in _PEAK_TFLOPS.items() if name in kind]
    return known[0] * 1e12 * jax.device_count() if known else None


def _memory() -> float:
    found = [(device.memory_stats() or {}).get("peak_bytes_in_use", 0) for device in jax.local_devices()]
    return (max(found) or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024) / 2**20


# The compiled step is never run.
_QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


@dataclass(frozen=True)
class StepMemory:
    """Bytes on each device while a step is computed.

    Attributes:
        devices: Number of devices.
        divided: Whether the training state is sharded over them.
        whole_state: Model, average and optimiser state, unsharded.
        state: This device's shard of them and of the batch.
        working: Additional memory of the step.
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
    """Returns the shapes of a batch; see `vdmkit.data.batches`."""
    kinds = {"image": ((size, *shape), jnp.uint8 if levels else jnp.float32), "augmented": ((size,), jnp.float32)}
    kinds |= {"label": ((size,), jnp.int32)} if classes else {}
    return {name: jax.ShapeDtypeStruct(*kind, sharding=batch_sharding(mesh)) for name, kind in kinds.items()}
