# SPDX-License-Identifier: Apache-2.0
"""The tensors of a checkpoint by name."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Shaped

from vdmkit.importers.files._limits import shown
from vdmkit.importers.files._plain import PersistentObject


@dataclass(frozen=True)
class TensorFacts:
    """A tensor of a checkpoint; `sum` is that of its numbers, in float64."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    sum: float

    @property
    def printable(self) -> str:
        """The name as a terminal can show it, cut if it is long."""
        return shown(self.name)


def list_tensors(tree: Any) -> list[TensorFacts]:
    """Returns the facts on every tensor in the tree of a `Content`."""
    arrays = flat_arrays(tree).items()
    return [TensorFacts(name, array.shape, array.dtype.name, float(_sum(array))) for name, array in arrays]


def flat_arrays(tree: Any) -> dict[str, Shaped[np.ndarray, "..."]]:
    """Returns every array by its path: names of dictionaries and places in lists, joined by '/'.

    An object of EDM's pickles counts as its state dict, so that its tensors have torch's names with dots.
    """
    return dict(_walk(tree, ""))


def _walk(tree: Any, name: str) -> Iterator[tuple[str, Shaped[np.ndarray, "..."]]]:
    if isinstance(tree, np.ndarray):
        yield name, tree
        return
    if isinstance(tree, PersistentObject):
        tree = tree.state_dict()
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list | tuple) else ()
    for key, item in items:
        yield from _walk(item, f"{name}/{key}" if name else str(key))


def _sum(array: Shaped[np.ndarray, "..."]) -> Any:
    with np.errstate(all="ignore"):  # infinities of both signs
        return np.sum(array, dtype=np.float64)
