# SPDX-License-Identifier: Apache-2.0
"""How a check says that something does not hold."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from vdmkit.errors import ConformanceError


def expect(holds: bool | np.bool_, otherwise: str) -> None:
    """Raises ConformanceError with the sentence `otherwise`, which holds the number that shows it."""
    if not holds:
        raise ConformanceError(f"{otherwise}.")


def near(found: Array | np.ndarray | float, wanted: Array | np.ndarray | float, tolerance: float) -> bool:
    """Whether no entry is off by more than `tolerance` of 1 + the largest one wanted. A NaN is not near anything."""
    found, wanted = np.asarray(found, np.float64), np.asarray(wanted, np.float64)
    return bool(np.abs(found - wanted).max() < tolerance * (1 + np.abs(wanted).max()))


def in_float64(tree: PyTree) -> PyTree:
    """The same arrays, those of floating-point numbers in float64: for use inside `jax.enable_x64(True)`."""

    def widen(leaf: object) -> object:
        inexact = isinstance(leaf, Array | np.ndarray) and jnp.issubdtype(leaf.dtype, jnp.floating)
        return np.asarray(leaf, np.float64) if inexact else leaf

    return jax.tree.map(widen, tree)
