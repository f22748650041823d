# SPDX-License-Identifier: Apache-2.0
"""Compares a stored tree with the recipe's before reading, because Orbax casts types silently."""

from collections.abc import Mapping
from typing import Any

import jax
from jaxtyping import PyTree

from vdmkit.errors import CheckpointError

_SHOWN = 20


def check_fit(where: str, stored: PyTree, wanted: PyTree) -> None:
    """Raises CheckpointError with every path whose presence, shape or type differs."""
    have, want = ({path: _type(leaf) for path, leaf in by_path(tree).items()} for tree in (stored, wanted))
    lines = [
        f"  {path}: {have[path]} in the checkpoint, {want[path]} in the recipe"
        for path in want
        if path in have and have[path] != want[path]
    ]
    lines += [f"  {path}: {want[path]} in the recipe, missing in the checkpoint" for path in want if path not in have]
    lines += [f"  {path}: {have[path]} in the checkpoint, unknown to the recipe" for path in have if path not in want]
    if lines:
        more = [f"  and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else []
        raise CheckpointError(
            "\n".join([f"{where}: the checkpoint does not belong to this recipe.", *lines[:_SHOWN], *more])
        )


def by_path(tree: PyTree) -> dict[str, Any]:
    """Returns the arrays (or their shapes) by path, in order."""
    leaves = jax.tree_util.tree_leaves_with_path(tree, is_leaf=_is_leaf)
    return {_joined(path): leaf for path, leaf in leaves if leaf is not None}


def with_leaves(tree: PyTree, leaves: Mapping[str, Any]) -> PyTree:
    """Returns the tree with other arrays, given by path."""
    return jax.tree_util.tree_map_with_path(lambda path, leaf: leaves[_joined(path)], tree, is_leaf=_is_leaf)


def _is_leaf(node: Any) -> bool:
    return hasattr(node, "dtype")


def _joined(path: tuple[Any, ...]) -> str:
    return ".".join(_name(key) for key in path)


def _type(leaf: Any) -> str:
    return f"{leaf.dtype}{list(leaf.shape)}"


def _name(key: Any) -> str:
    """Returns the attribute, dictionary key or index in a key of JAX or Orbax."""
    for attribute in ("name", "key", "idx"):
        if hasattr(key, attribute):
            return str(getattr(key, attribute))
    return str(key)
