# SPDX-License-Identifier: Apache-2.0
"""Checks that an earlier command ran on the same code, values and arrays, and that found nothing."""

import hashlib
from collections.abc import Callable

import jax
import numpy as np
from jaxtyping import PyTree

from vdmkit.recipe import Recipe, text_if_own
from vdmkit.remembered import in_words, key_of, recall, remember
from vdmkit.testing._findings import Findings


def unless_proven(check: Callable[[], Findings], recipe: Recipe, name: str, *given: PyTree) -> Findings:
    """Returns what the check finds, or nothing at once if an earlier command's same check found nothing.

    Components of plugins are checked every time: see `vdmkit.remembered`.

    Args:
        check: A function of the recipe and `given` alone.
        recipe: The recipe.
        name: The name of the check.
        given: What it checks: arrays, and objects with arrays.
    """
    text = text_if_own(recipe)
    key = text and key_of(name, text, *map(_digest, given))
    if key and recall(key) is not None:
        return Findings()
    found = check()
    if key and found == Findings():
        remember(key, b"")
    return found


def _digest(tree: PyTree) -> str:
    """Returns a hash of all arrays of a tree, and of its structure with the constants, without addresses."""
    leaves, structure = jax.tree.flatten(tree)
    found = hashlib.sha256(in_words(structure).encode())
    for leaf in leaves:
        value = np.asarray(leaf)
        found.update(f"{value.dtype}{value.shape}\0".encode() + value.tobytes())
    return found.hexdigest()
