# SPDX-License-Identifier: Apache-2.0
"""Fast compilation and random keys for checks, which take longer to compile than to run."""

import functools
from collections.abc import Callable
from math import prod
from typing import Any, ParamSpec, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.random import define_prng_impl
from jaxtyping import Array, PRNGKeyArray, UInt, UInt32

P = ParamSpec("P")
Out = TypeVar("Out")
# Options of XLA that halve the compilation time. Without any optimisation (level 0) float64 becomes infinite or NaN.
_WANTED = {"xla_backend_optimization_level": 1, "xla_cpu_use_fusion_emitters": False}


def compiled_fast(function: Callable[P, Out]) -> Callable[P, Out]:
    """Compiles like `eqx.filter_jit`, with less optimisation, for short computations."""

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> Out:
        return _compiled(function)(*args, **kwargs)

    return call


@functools.cache
def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    jit: Any = eqx.filter_jit  # passes unknown arguments on to jax.jit
    return jit(function, compiler_options=_options())


@functools.cache
def _options() -> dict[str, Any]:
    """Returns the options that this version of XLA, on this device, knows."""
    return {name: value for name, value in _WANTED.items() if _is_known(name, value)}


def _is_known(name: str, value: Any) -> bool:
    try:
        jax.jit(jnp.negative, compiler_options={name: value}).lower(0.0).compile()
    except jax.errors.JaxRuntimeError:
        return False
    return True


def fast_key(seed: int) -> PRNGKeyArray:
    """Returns a key whose draws are a hash of a counter, which compiles in half the time of JAX's own keys.

    It is good enough for averages over a thousand draws in checks; the numbers of a run use JAX's own keys.
    """
    return jax.random.wrap_key_data(jax.device_put(np.asarray([seed, 0xC2B2AE35], np.uint32)), impl=_HASHED)


def _mixed(x: UInt32[Array, "*n"]) -> UInt32[Array, "*n"]:
    """Applies a bijection of 32 bits in which every bit depends on all: "lowbias32" of Chris Wellons."""
    x = (x ^ (x >> 16)) * jnp.uint32(0x7FEB352D)
    x = (x ^ (x >> 15)) * jnp.uint32(0x846CA68B)
    return x ^ (x >> 16)


def _fold_in(key: UInt32[Array, "2"], data: Any) -> UInt32[Array, "2"]:
    low, high = key
    return jnp.stack([_mixed(low ^ _mixed(data + high)), _mixed(high + _mixed(data ^ low ^ jnp.uint32(0x9E3779B9)))])


def _seed(seed: Array) -> UInt32[Array, "2"]:
    return _fold_in(jnp.zeros(2, jnp.uint32), seed.astype(jnp.uint32))


def _split(key: UInt32[Array, "2"], shape: tuple[int, ...]) -> UInt32[Array, "*n 2"]:
    # Different from the numbers that callers fold in.
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
