# SPDX-License-Identifier: Apache-2.0
"""The distribution function of mixtures of normal laws on cells, and the search in it, in integers.

    F(j) = (sum_k w_k G(edge_j - m_k)) / 2^24 + j

is that at the lower edge of cell j of the window, in slots. G of the common standard deviation reaches 2^26 less the
slots that j and the escape take; the w_k sum to 2^24. numpy and XLA agree on integers; the search is XLA's, which is
ten times as fast.
"""

from functools import partial
from types import ModuleType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int32, Int64, UInt64

from vdmkit.compression._gaussian_law import FINE
from vdmkit.compression._law import ESCAPE
from vdmkit.compression._rans import SLOTS, Symbols

WEIGHT_BITS = 24
_FEWEST = 64  # values of a search: fewer are padded, so that few shapes are compiled


class Window(NamedTuple):
    """A common standard deviation and means, in parts.

    Args:
        normal: G at every part of its own window, whose last is number `end`; what follows is padding.
        means: of the levels, rising, from 0 on.
        cells: of the window, from the first mean's window to the last's.
    """

    normal: Int64[np.ndarray, " padded"]
    end: Int64[np.ndarray, ""]
    means: Int64[np.ndarray, " v"]
    cells: Int64[np.ndarray, ""]


def below(xp: ModuleType, window: Window, near: int, cumulative: Any, cell: Any, lead: Any) -> Any:
    """F at the lower edges of cells, of which the outer ones reach to infinity.

    Args:
        xp: numpy, or jax.numpy, whose arrays all the others are.
        near: levels, at most, whose windows hold one point.
        cumulative: weights of the levels of each value, (n, V + 1).
        cell: of each value, (n,);
        lead: and at which part of the window its cell 0 begins.
    """
    normal, end, means, cells = window
    parts = cell * FINE + lead
    begin = xp.clip(xp.searchsorted(means, parts - end, side="right"), 0, len(means) - near)
    level = begin[:, None] + xp.arange(near + 1)  # levels before these count whole, those after them not at all
    weights = xp.take_along_axis(cumulative, level, axis=1).astype(xp.int64)
    at = normal[xp.clip(parts[:, None] - means[level[:, :-1]], 0, end)]
    total = weights[:, 0] * normal[end] + ((weights[:, 1:] - weights[:, :-1]) * at).sum(1)
    inner = (total >> WEIGHT_BITS) + cell
    return xp.where(cell <= 0, 0, xp.where(cell >= cells, SLOTS - ESCAPE, inner))


def search(
    window: Window,
    near: int,
    cumulative: Int32[np.ndarray, "n v_plus_1"],
    lead: Int64[np.ndarray, " n"],
    slots: UInt64[np.ndarray, " n"],
) -> tuple[Symbols, Symbols, Symbols]:
    """The cell of each value with F(cell) <= slot < F(cell + 1), and these two; the last cell for higher slots."""
    count = len(slots)
    rows = np.resize(np.arange(count), max(_FEWEST, 1 << (count - 1).bit_length()))
    with jax.enable_x64(True):
        found = _search(window, near, cumulative[rows], lead[rows], slots.astype(np.int64)[rows])
        cell, low, high = (np.array(array)[:count] for array in found)
    return cell, low, high


@partial(jax.jit, static_argnames="near")
def _search(window: Window, near: int, cumulative: Any, lead: Any, slots: Any) -> Any:
    def halve(bracket: Any) -> Any:
        low, high, at_low, at_high = bracket
        middle = (low + high) // 2
        at = below(jnp, window, near, cumulative, middle, lead)
        left = slots < at
        return (
            jnp.where(left, low, middle),
            jnp.where(left, middle, high),
            jnp.where(left, at_low, at),
            jnp.where(left, at, at_high),
        )

    zero = jnp.zeros_like(lead)
    bracket = zero, zero + window.cells, zero, zero + (SLOTS - ESCAPE)
    low, _, at_low, at_high = jax.lax.while_loop(lambda b: (b[1] - b[0] > 1).any(), halve, bracket)
    return low, at_low, at_high
