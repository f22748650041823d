# SPDX-License-Identifier: Apache-2.0
"""Adam's moments in the training states of Flax and of torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Shaped

from vdmkit.importers.files._list import flat_arrays

Arrays = dict[str, Shaped[np.ndarray, "..."]]


@dataclass(frozen=True)
class Adam:
    """Adam's first and second moments, by the names of the parameters, and its number of updates."""

    mu: Arrays
    nu: Arrays
    count: Any


_OF_TORCH, _OF_OLD_FLAX = ("exp_avg", "exp_avg_sq"), ("grad_ema", "grad_sq_ema")


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
    mu, nu = ({name: one.get(key) for name, one in zip(trained, found, strict=True)} for key in _OF_TORCH)
    return Adam(raw | mu, raw | nu, _whole(found[0].get("step")))


def _whole(step: Any) -> Any:
    """Returns the number of updates, for which torch has a float since 1.12, as an integer if it is one."""
    is_float = isinstance(step, np.ndarray) and step.dtype.kind == "f" and step.size == 1
    return int(step.item()) if is_float and step.item().is_integer() else step


def adam_of_old_flax(optimizer: Any, trained: list[str]) -> Adam | None:
    """Returns the state of Adam in `flax.optim`, of before Flax 0.6; None if it is another optimiser's."""
    state = optimizer.get("state") if isinstance(optimizer, dict) else None
    if not isinstance(state, dict):
        return None
    found = flat_arrays(state.get("param_states"))
    if not trained or not all(f"{name}/{key}" in found for name in trained for key in _OF_OLD_FLAX):
        return None
    mu, nu = ({name: found[f"{name}/{key}"] for name in trained} for key in _OF_OLD_FLAX)
    return Adam(mu, nu, state.get("step"))
