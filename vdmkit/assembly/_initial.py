# SPDX-License-Identifier: Apache-2.0
"""The initial training state, kept for later commands: JAX runs a program for each kind of array in it."""

import io
from hashlib import sha256

import equinox as eqx
import jax
import numpy as np
from jax.sharding import Mesh

from vdmkit.assembly._model import training_counts
from vdmkit.assembly._training import build_state, state_like
from vdmkit.data import Images
from vdmkit.mesh import build_on
from vdmkit.recipe import Recipe, text_if_own
from vdmkit.remembered import key_of, recall, remember
from vdmkit.training import TrainState

_LARGEST = 2**26  # bytes; to build a larger state takes a moment of its training, to keep it much of the cache folder


def initial_state_of(recipe: Recipe, train: Images, mesh: Mesh) -> TrainState:
    """Returns `build_state`, from an earlier command if one built the same. `build_on` says where its arrays are."""
    counts = training_counts(recipe, train)
    height, width, channels, levels = counts.shape
    shapes, static = eqx.partition(state_like(recipe, (height, width, channels), levels), _is_shape)
    small = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(shapes)) <= _LARGEST
    text = text_if_own(recipe) if small and len(mesh.axis_names) == 1 else None
    key = text and key_of("initial state", text, counts.shape, sha256(np.asarray(counts).tobytes()).hexdigest())
    if key and (entry := recall(key)) is not None:
        file = io.BytesIO(entry)
        found = jax.device_put([np.load(file) for _ in jax.tree.leaves(shapes)])
        return eqx.combine(jax.tree.unflatten(jax.tree.structure(shapes), found), static)
    state = build_on(mesh, build_state, recipe, counts)
    if key:
        file = io.BytesIO()
        for leaf in jax.tree.leaves(eqx.filter(state, eqx.is_array)):
            np.save(file, leaf)
        remember(key, file.getvalue())
    return state


def _is_shape(leaf: object) -> bool:
    return isinstance(leaf, jax.ShapeDtypeStruct)
