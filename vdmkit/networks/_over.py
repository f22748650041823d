# SPDX-License-Identifier: Apache-2.0
"""Layers of equal shapes, one after the other: each compiled for itself, or one for all."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

Layer = TypeVar("Layer", bound=eqx.Module)
Given = TypeVar("Given")


def one_by_one(
    layers: Sequence[Layer], apply: Callable[[Layer, Array, Given], Array], h: Array, given: Sequence[Given]
) -> list[Array]:
    """Returns the outputs of all layers: each is `apply(layer, output of the layer before, its own of given)`."""
    outputs = []
    for layer, own in zip(layers, given, strict=True):
        h = apply(layer, h, own)
        outputs.append(h)
    return outputs


def scanned_over(
    layers: Sequence[Layer], apply: Callable[[Layer, Array, Given], Array], h: Array, given: Sequence[Given]
) -> list[Array]:
    """Returns what `one_by_one` does, by a loop in the compiled program: its size does not grow with the layers."""
    arrays, static = zip(*(eqx.partition(layer, eqx.is_array) for layer in layers), strict=True)

    def body(h: Array, each: tuple[Any, Any]) -> tuple[Array, Array]:
        layer, own = each
        h = apply(eqx.combine(layer, static[0]), h, own)
        return h, h

    _, outputs = jax.lax.scan(body, h, (_stacked(arrays), _stacked(given)))
    return list(outputs)


def _stacked(trees: Sequence[PyTree]) -> PyTree:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)
