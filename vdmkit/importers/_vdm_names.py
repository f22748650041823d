# SPDX-License-Identifier: Apache-2.0
"""Maps vdmkit's parameter names to the authors' and back, by one table."""

import re
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PyTree

_RENAMES = (
    (r"^schedule/", "gamma/"),
    (r"^network/(conditioning/)?", "score_model/"),
    (r"^encoder/(conditioning/)?", "encoder_model/"),
    (r"/(down|up)/(\d+)/block/", r"/\1.block_\2/"),
    (r"/(down|up)/(\d+)/attention/", r"/\1.attn_\2/"),
    (r"/mid/0/block/", "/mid.block_1/"),
    (r"/mid/0/attention/", "/mid.attn_1/"),
    (r"/mid/1/block/", "/mid.block_2/"),
    (r"/(norm|norm1|norm_out)/", "/GroupNorm_0/"),
    (r"/norm2/", "/GroupNorm_1/"),
    (r"/shortcut/", "/nin_shortcut/"),
)
"""Substitutions, applied in order to a path in vdmkit's model, such as network/down/3/block/norm1/scale."""


def official_parameters(model: PyTree) -> dict[str, Any]:
    """Returns every parameter of a model (or of gradients of one) by the authors' path.

    An example: "score_model/down.block_3/GroupNorm_0/scale". Leaves may be arrays or `jax.ShapeDtypeStruct`.
    """
    leaves, _ = jax.tree_util.tree_flatten_with_path(parameters_of(model))
    return {_official_path(path): leaf for path, leaf in leaves}


def with_official_parameters(model: PyTree, arrays: dict[str, Any]) -> PyTree:
    """Returns the model with its parameters replaced by `arrays`, a dict by the authors' paths, which is emptied."""
    parameters = parameters_of(model)
    replaced = jax.tree_util.tree_map_with_path(
        lambda path, leaf: jnp.asarray(arrays.pop(_official_path(path)), leaf.dtype), parameters
    )
    return eqx.combine(replaced, model)


def parameters_of(model: PyTree) -> PyTree:
    """Returns the model with everything but its trainable parameters replaced by None."""
    return eqx.filter(model, _is_parameter)


def _official_path(path: tuple[Any, ...]) -> str:
    name = jax.tree_util.keystr(path, simple=True, separator="/")
    for ours, theirs in _RENAMES:
        name = re.sub(ours, theirs, name)
    return name


def _is_parameter(leaf: Any) -> bool:
    return eqx.is_inexact_array(leaf) or (
        isinstance(leaf, jax.ShapeDtypeStruct) and jnp.issubdtype(leaf.dtype, jnp.inexact)
    )
