# SPDX-License-Identifier: Apache-2.0
"""Optimisers: optax transformations made from recipe keys."""

from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import optax
from annotated_types import Ge, Gt, Le
from jaxtyping import PyTree

from vdmkit.arguments import Count, Decay
from vdmkit.registry import define_kind, register

define_kind("optimizer", "an optax gradient transformation", None, ("steps",))


@register("optimizer", "adamw")
def adamw(
    steps: int,
    *,
    learning_rate: Annotated[float, Gt(0), Le(10)] = 2e-4,
    b1: Decay = 0.9,
    b2: Decay = 0.99,
    eps: Annotated[float, Ge(1e-30), Le(1)] = 1e-8,
    weight_decay: Annotated[float, Ge(0), Le(100)] = 0.01,
    warmup_steps: Count = 100,
    decay: Literal["none", "cosine"] = "none",
    clip_norm: Annotated[float, Ge(0), Le(1e6)] = 0.0,
) -> optax.GradientTransformation:
    """AdamW as in the authors' code: all parameters but `bias` decay, and the learning rate warms up from 0.

    decay = "cosine" takes the learning rate to 0 at the end of training, and clip_norm = 0 does not clip. The rate is a
    function of the number of earlier updates, so with a warm-up the first update changes nothing.
    """
    rate = learning_rates(steps, learning_rate, warmup_steps, decay)
    update = optax.adamw(rate, b1, b2, eps, weight_decay=weight_decay, mask=_decays)
    return optax.chain(optax.clip_by_global_norm(clip_norm), update) if clip_norm > 0 else update


def learning_rates(steps: int, learning_rate: float, warmup_steps: int, decay: str) -> optax.Schedule:
    """Returns the learning rate as a function of the number of updates made before."""
    if decay == "none":  # kept to one operation, which the compiler repeats in the update of every parameter
        return lambda count: learning_rate * (jnp.minimum(count / warmup_steps, 1) if warmup_steps else 1)
    after_warmup = optax.cosine_decay_schedule(learning_rate, max(steps - warmup_steps, 1))
    warmup = optax.linear_schedule(0.0, learning_rate, warmup_steps)
    return optax.join_schedules([warmup, after_warmup], [warmup_steps])


def interior_apart(optimizer: optax.GradientTransformation) -> optax.GradientTransformation:
    """Returns the optimizer with a separate state for the schedule's interior.

    The interior minimises a different objective, the variance of the loss, so a gradient norm for clipping must not mix
    the two.
    """
    return optax.partition({"interior": optimizer, "rest": optimizer}, _objective_of)


def _objective_of(params: PyTree) -> PyTree:
    def label(path: tuple[Any, ...], _: Any) -> str:
        names = [getattr(key, "name", "") for key in path[:2]]
        return "interior" if names == ["schedule", "interior"] else "rest"

    return jax.tree_util.tree_map_with_path(label, params)


def _decays(params: PyTree) -> PyTree:
    """Returns True for every parameter that is not named `bias`: kernels, scales, and the schedule's w and b."""
    return jax.tree_util.tree_map_with_path(lambda path, _: getattr(path[-1], "name", "") != "bias", params)
