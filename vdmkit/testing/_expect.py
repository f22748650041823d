# SPDX-License-Identifier: Apache-2.0
"""The helpers by which checks compare numbers and report failures."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from vdmkit.errors import ConformanceError


def expect(holds: bool | np.bool_, otherwise: str) -> None:
    """Raises ConformanceError with the sentence `otherwise`, which has the number, unless `holds`."""
    if not holds:
        raise ConformanceError(f"{otherwise}.")


def near(found: Array | np.ndarray | float, wanted: Array | np.ndarray | float, tolerance: float) -> bool:
    """Returns whether all entries agree within `tolerance` of 1 + the largest wanted one; a NaN does not agree."""
    found, wanted = np.asarray(found, np.float64), np.asarray(wanted, np.float64)
    return bool(np.abs(found - wanted).max() < tolerance * (1 + np.abs(wanted).max()))


def in_float64(tree: PyTree) -> PyTree:
    """Converts floating-point arrays to float64, for use inside `jax.enable_x64(True)`."""

    def widen(leaf: object) -> object:
        inexact = isinstance(leaf, Array | np.ndarray | np.generic) and jnp.issubdtype(leaf.dtype, jnp.floating)
        return np.asarray(leaf, np.float64) if inexact else leaf

    return jax.tree.map(widen, tree)
