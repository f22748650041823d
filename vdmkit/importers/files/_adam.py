# SPDX-License-Identifier: Apache-2.0
"""Adam's moments in the training states of Flax and of torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Shaped

Arrays = dict[str, Shaped[np.ndarray, "..."]]


@dataclass(frozen=True)
class Adam:
    """Adam's first and second moments, by the names of the parameters, and its number of updates."""

    mu: Arrays
    nu: Arrays
    count: Any


_MOMENTS = ("exp_avg", "exp_avg_sq")


def find_adam(tree: Any) -> Mapping[str, Any] | None:
    """Finds the map with Adam's moments, whose place in opt_state depends on the versions of Flax and optax."""
    if not isinstance(tree, dict):
        return None
    if {"count", "mu", "nu"} <= tree.keys():
        return tree
    return next((found for child in tree.values() if (found := find_adam(child))), None)


def adam_of_torch(optimizer: Any, trained: list[str], raw: Arrays) -> Adam | None:
    """Returns the state of torch's Adam, which numbers the trained parameters; None before its first update."""
    state = optimizer.get("state") if isinstance(optimizer, dict) else None
    found: list[Any] = [state.get(i) for i in range(len(trained))] if isinstance(state, dict) else []
    if not found or not all(isinstance(one, dict) for one in found):
        return None
    mu, nu = ({name: one.get(key) for name, one in zip(trained, found, strict=True)} for key in _MOMENTS)
    return Adam(raw | mu, raw | nu, found[0].get("step"))
