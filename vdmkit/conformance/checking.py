# SPDX-License-Identifier: Apache-2.0
"""Shared tools of the conformance checks.

- `expect`, `near` and `Findings` compare numbers and report failures; `run_checks` collects what the checks find.
- `compiled_fast` and `fast_key` reduce compilation time, because checks take longer to compile than to run.
- `check_derivative` compares gradients with finite differences, which detects a stopped or replaced gradient.
"""

import functools
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from typing import Any, ParamSpec, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.random import define_prng_impl
from jaxtyping import Array, Float, PRNGKeyArray, PyTree, UInt, UInt32

from vdmkit.devices import precisely
from vdmkit.errors import ConformanceError, RecipeError, UntrustedError
from vdmkit.registry import Component
from vdmkit.schedules import Scalar


def expect(holds: bool | np.bool_, otherwise: str) -> None:
    """Raises ConformanceError with the sentence `otherwise`, which contains the number, unless `holds`."""
    if not holds:
        raise ConformanceError(f"{otherwise}.")


def near(found: Array | np.ndarray | float, wanted: Array | np.ndarray | float, tolerance: float) -> bool:
    """Returns whether all entries agree within `tolerance` * (1 + the largest wanted one); NaN never agrees."""
    found, wanted = np.asarray(found, np.float64), np.asarray(wanted, np.float64)
    return bool(np.abs(found - wanted).max() < tolerance * (1 + np.abs(wanted).max()))


def in_float64(tree: PyTree) -> PyTree:
    """Converts floating-point arrays to float64, for use inside `jax.enable_x64(True)`."""

    def widen(leaf: object) -> object:
        inexact = isinstance(leaf, Array | np.ndarray | np.generic) and jnp.issubdtype(leaf.dtype, jnp.floating)
        return np.asarray(leaf, np.float64) if inexact else leaf

    return jax.tree.map(widen, tree)


_TURN = 0.1  # seconds
Checked = tuple[Component, Callable[[], object]]
"""A component and its check, which raises, or returns False if the sum of probabilities could not be checked."""


@dataclass(frozen=True)
class Findings:
    """Problems of components, and remarks to print with a number, in sentences."""

    problems: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()

    def refuse(self) -> "Findings":
        """Returns the findings. Raises UntrustedError if there are problems."""
        if self.problems:
            raise UntrustedError(
                f"no number of this model can be trusted: {' '.join(self.problems)} "
                "Correct the component, or choose another."
            )
        return self

    def __add__(self, other: "Findings") -> "Findings":
        """Joins two findings without repeating sentences."""
        pairs = (self.problems, other.problems), (self.remarks, other.remarks)
        return Findings(*(tuple(dict.fromkeys(mine + others)) for mine, others in pairs))


@contextmanager
def threads(count: int) -> Iterator[ThreadPoolExecutor]:
    """Yields a pool of threads that switch rarely.

    Compiling in one thread overlaps with tracing in another, but two threads that trace slow each other down. Ctrl-C
    does not wait for them.
    """
    before = sys.getswitchinterval()
    sys.setswitchinterval(_TURN)
    pool, wait = ThreadPoolExecutor(count), True
    try:
        yield pool
    except KeyboardInterrupt:
        wait = False
        raise
    finally:
        pool.shutdown(wait=wait, cancel_futures=True)
        sys.setswitchinterval(before)


def run_checks(checks: Iterable[Checked]) -> Findings:
    """Runs the checks in two threads and returns their findings."""
    with threads(2) as pool:
        return sum(pool.map(lambda checked: findings_of(*checked), checks), Findings())


@precisely  # the setting is per thread, and this runs in the threads of `run_checks`
def findings_of(component: Component, check: Callable[[], object]) -> Findings:
    """Returns the problems of a component. A mistake in the recipe is raised instead.

    Raises:
        RecipeError: a component of vdmkit refuses the recipe's values.
        PluginError: a plugin fails.
    """
    try:
        with component.named("cannot be checked"):
            if check() is False:  # only the check of an observation returns False
                return Findings(remarks=(f"It was not checked whether the probabilities of {component} sum to 1.",))
    except ConformanceError as error:
        return Findings((f"{component}: {error}",))
    except RecipeError as error:
        if component.origin == "vdmkit":
            raise
        return Findings((str(error),))
    return Findings()


P = ParamSpec("P")
Out = TypeVar("Out")
# Options of XLA that halve the compilation time. Without any optimisation (level 0) float64 becomes infinite or NaN.
_WANTED = {"xla_backend_optimization_level": 1, "xla_cpu_use_fusion_emitters": False}


def compiled_fast(function: Callable[P, Out]) -> Callable[P, Out]:
    """Compiles like `eqx.filter_jit`, with fewer optimisations, for short computations."""

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> Out:
        return _compiled(function)(*args, **kwargs)

    return call


@functools.cache
def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    jit: Any = eqx.filter_jit  # forwards unknown arguments to jax.jit
    return jit(function, compiler_options=_options())


@functools.cache
def _options() -> dict[str, Any]:
    """Returns the options that this version of XLA supports on this device."""
    return {name: value for name, value in _WANTED.items() if _is_known(name, value)}


def _is_known(name: str, value: Any) -> bool:
    try:
        jax.jit(jnp.negative, compiler_options={name: value}).lower(0.0).compile()
    except jax.errors.JaxRuntimeError:
        return False
    return True


def fast_key(seed: int) -> PRNGKeyArray:
    """Returns a key whose draws are a hash of a counter, which compiles twice as fast as JAX's own keys.

    It is good enough for averages over a thousand draws in checks; the numbers of a run use JAX's own keys.
    """
    return jax.random.wrap_key_data(jax.device_put(np.asarray([seed, 0xC2B2AE35], np.uint32)), impl=_HASHED)


def _mixed(x: UInt32[Array, "*n"]) -> UInt32[Array, "*n"]:
    """Applies a bijection of 32 bits whose output bits all depend on every input bit: "lowbias32" by Chris Wellons."""
    x = (x ^ (x >> 16)) * jnp.uint32(0x7FEB352D)
    x = (x ^ (x >> 15)) * jnp.uint32(0x846CA68B)
    return x ^ (x >> 16)


def _fold_in(key: UInt32[Array, "2"], data: Any) -> UInt32[Array, "2"]:
    low, high = key
    return jnp.stack([_mixed(low ^ _mixed(data + high)), _mixed(high + _mixed(data ^ low ^ jnp.uint32(0x9E3779B9)))])


def _seed(seed: Array) -> UInt32[Array, "2"]:
    return _fold_in(jnp.zeros(2, jnp.uint32), seed.astype(jnp.uint32))


def _split(key: UInt32[Array, "2"], shape: tuple[int, ...]) -> UInt32[Array, "*n 2"]:
    # The constant makes the counter differ from the numbers that callers fold in.
    numbers = jnp.arange(prod(shape), dtype=jnp.uint32) ^ jnp.uint32(0x85EBCA6B)
    return jax.vmap(lambda number: _fold_in(key, number))(numbers).reshape(*shape, 2)


def _bits(key: UInt32[Array, "2"], width: int, shape: tuple[int, ...]) -> UInt[Array, "*n"]:
    counter = jnp.arange(prod(shape), dtype=jnp.uint32)
    words = [_mixed(_mixed(counter ^ key[0]) + key[1] + jnp.uint32(word)) for word in range(max(1, width // 32))]
    if width == 64:
        high, low = (word.astype(jnp.uint64) for word in words)
        return ((high << 32) | low).reshape(shape)
    return words[0].astype(f"uint{width}").reshape(shape)


_HASHED = define_prng_impl(
    key_shape=(2,), seed=_seed, split=_split, random_bits=_bits, fold_in=_fold_in, name="hashed", tag="hash"
)


_STEPS = np.array([1e-2, 1e-3, 1e-4, 1e-5, 1e-6])
_TOLERANCE = 1e-4  # relative to the derivative; the best step errs by 1e-6 in float64, and by more at a ReLU kink
_ROUNDING = 1e-6  # relative to outputs, divided by the step: rounding of a difference quotient


class Quotients(eqx.Module):
    """Values <w, f(point +- h v)> for every step length h, for directions v and w, and the gradient."""

    values: Float[Array, "2 steps"]
    norm: Scalar  # norm of the gradient
    found: Scalar  # the gradient along v


def check_derivative(function: Callable[[Array], Array], at: Float[np.ndarray, "*n"], *, what: str) -> None:
    """Checks JAX's gradient of `function` against a difference quotient along a random direction.

    Args:
        function: The function; a pytree, such as an Equinox module, is compiled once.
        at: The point.
        what: Name of the function in the message, such as "eps_hat".

    Raises:
        ConformanceError: the gradient and the quotient differ.
    """
    check_quotients(compiled_fast(quotients)(function, at), what=what)


def quotients(function: Callable[[Array], Array], at: Float[Any, "*n"]) -> Quotients:
    """Computes difference quotients and the gradient along directions that depend only on the shapes.

    The gradient uses reverse mode, which is the transpose of forward mode, or the only mode that is defined.
    """
    rng, out = np.random.default_rng(0), eqx.filter_eval_shape(function, at)
    v, w = (jnp.asarray(rng.standard_normal(shape), at.dtype) for shape in (at.shape, out.shape))
    gradient = jax.grad(lambda at: (w * function(at)).sum())(at)
    sides = jnp.asarray([1.0, -1.0], at.dtype)[:, None] * jnp.asarray(_STEPS, at.dtype)
    moved = at + sides.reshape(-1, *[1] * at.ndim) * v
    values = jax.vmap(lambda point: (w * function(point)).sum())(moved)
    return Quotients(values.reshape(2, -1), jnp.sqrt((gradient**2).sum()), (gradient * v).sum())


def check_quotients(given: Quotients, *, what: str) -> None:
    """Checks the gradient against the best of the step lengths, to allow for kinks and for fast variation.

    Raises:
        ConformanceError: the gradient along v differs from the difference quotient.
    """
    values, norm, found = (np.asarray(one, np.float64) for one in (given.values, given.norm, given.found))
    wanted = (values[0] - values[1]) / (2 * _STEPS)
    off = np.where(np.isfinite(wanted), abs(found - wanted), np.inf)
    allowed = _TOLERANCE * np.maximum(norm, abs(wanted)) + _ROUNDING * abs(values).max()
    best = int(np.argmin(off / (allowed + 1e-300)))
    expect(
        off[best] <= allowed[best],
        f"the derivative of {what} by JAX is {float(found):.6g} along a direction where the difference quotient is "
        f"{wanted[best]:.6g}: a gradient is stopped or replaced",
    )
