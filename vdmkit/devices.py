# SPDX-License-Identifier: Apache-2.0
"""The precision, devices and software of a process."""

import functools
import importlib.metadata
import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from typing import Any, Literal, ParamSpec, TypeVar

import jax
import jax.numpy as jnp

from vdmkit.errors import in_one_line
from vdmkit.registry import plugin_packages

P = ParamSpec("P")
T = TypeVar("T")
MatmulPrecision = Literal["default", "high", "highest"]
_PACKAGES = ("jax", "jaxlib", "equinox", "optax", "diffrax", "orbax-checkpoint", "grain", "numpy")


def precisely(measure: Callable[P, T]) -> Callable[P, T]:
    """Returns a measurement whose float32 products have the precision of float32 on every device.

    A GPU would multiply in TF32 and a TPU in bfloat16. The user's own `jax_default_matmul_precision` comes first.
    JAX keeps the setting per thread, so what starts threads must decorate what they run.
    """

    @functools.wraps(measure)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> T:
        with multiplying("highest"):
            return measure(*args, **kwargs)

    return wrapped


def multiplying(precision: MatmulPrecision | None) -> AbstractContextManager[None]:
    """Sets the precision of products inside; None leaves it to the device. The user's own setting comes first."""
    return jax.default_matmul_precision(_matmul_precision() or precision)


@dataclass(frozen=True)
class Arithmetic:
    """Floating-point type, precision of matrix products, and number and kind of devices, such as '1 x cpu'.

    `matmul_precision` is `jax_default_matmul_precision`. "default" leaves it to the device: a GPU or TPU may then
    multiply float32 in less.
    """

    precision: str
    matmul_precision: str
    device: str

    def __str__(self) -> str:
        return f"{self.precision}, matmul precision {self.matmul_precision}, {self.device}"


def missing_device() -> str:
    """Returns why JAX has no device, and what to do; "" if it has one."""
    try:
        jax.devices()
    except Exception as error:  # a RuntimeError, or an AssertionError without words
        platforms = os.environ.get("JAX_PLATFORMS", "")
        if not platforms:
            return f"JAX finds no device ({in_one_line(error)}). Install JAX for a device that is there."
        why = f" ({in_one_line(error)})" if str(error) else ""
        return f"JAX_PLATFORMS={platforms}: JAX finds no such device{why}. Unset it, or install JAX for such a device."
    return ""


def arithmetic() -> Arithmetic:
    """Returns the arithmetic of this process; within a measurement, that of the measurement: see `precisely`."""
    devices = f"{jax.device_count()} x {jax.devices()[0].device_kind}"
    return Arithmetic(str(jnp.zeros(()).dtype), _matmul_precision() or "default", devices)


def _matmul_precision() -> str | None:
    return jax.config.jax_default_matmul_precision  # pyright: ignore[reportAttributeAccessIssue]


def in_flight(dispatched: Iterable[T], ahead: int = 2) -> Iterator[T]:
    """Yields results of the device, each when `ahead` later ones are dispatched: it has work while the host reads."""
    waiting = deque[T]()
    for result in dispatched:
        waiting.append(result)
        if len(waiting) > ahead:
            yield waiting.popleft()
    yield from waiting


def facts_of(report: Any) -> dict[str, Any]:
    """Returns the fields of a report (a dataclass) as JSON values, with the fields of its `arithmetic` beside them.

    None, null in JSON, stands for numbers that are not finite.
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
    """Returns the versions of what numbers depend on, and of these plugin packages: by default all that are loaded."""
    names = (*_PACKAGES, *sorted(plugin_packages() if plugins is None else plugins))
    return {name: importlib.metadata.version(name) for name in names}
