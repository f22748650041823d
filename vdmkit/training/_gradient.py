# SPDX-License-Identifier: Apache-2.0
"""The gradient of a batch's mean bits per dimension, of all of its images at once or of a few at a time."""

from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree

from vdmkit.losses.bound import Bound, NoiseLevel
from vdmkit.losses.training_loss import Draws, Objective, mean_terms
from vdmkit.model import Compute, DiffusionModel
from vdmkit.schedules import Scalar

Batch = Mapping[str, Array]
"""A batch: "image" is uint8 (b, h, w, c); every other entry is side information on the images, shape (b,)."""
Metrics = dict[str, Float[Array, "*steps"]]
Given = tuple[NoiseLevel, Batch, Draws, Key[Array, " b"] | None]
"""What the bound of each image depends on beside the model; every array has the batch in front."""
Gradient = tuple[tuple[DiffusionModel, NoiseLevel], tuple[Metrics, Bound]]
"""The gradient with respect to model and noise levels, with the mean bound and its terms, and each image's bound."""


def batch_gradient(model: DiffusionModel, objective: Objective, given: Given, compute: Compute | None) -> Gradient:
    """Returns the gradient of the mean over a batch. Bounds are in nats, the mean and its terms in bits/dim."""

    def mean_bpd(parts: tuple[DiffusionModel, NoiseLevel]) -> tuple[Scalar, tuple[Metrics, Bound]]:
        model, noise = parts
        _, batch, draws, keys = given
        condition = {name: value for name, value in batch.items() if name != "image"}
        bound = objective.at(noise, model.computing_in(compute), batch["image"], condition, draws, keys=keys)
        terms = mean_terms(bound, model.dimensions)
        bpd = sum(terms.values(), jnp.zeros(()))
        return bpd, ({"bpd": bpd, **terms}, bound)

    return eqx.filter_grad(mean_bpd, has_aux=True)((model, given[0]))


def in_micro_batches(gradient_of: Callable[[Given], Gradient], given: Given, count: int) -> Gradient:
    """Returns the gradient of a batch by its micro-batches, one after the other, which need less memory.

    Image i is in micro-batch i modulo `count`, so that each device of a divided batch has its share of all of them.
    """
    divided = jax.tree.map(lambda a: jnp.moveaxis(a.reshape(-1, count, *a.shape[1:]), 1, 0), given)

    def add(total: PyTree, part: Given) -> tuple[PyTree, Any]:
        (of_model, of_noise), (metrics, bound) = gradient_of(part)
        return jax.tree.map(jnp.add, total, (of_model, metrics)), (of_noise, bound)

    (of_model, _), (metrics, _) = jax.eval_shape(gradient_of, jax.tree.map(lambda a: a[0], divided))
    zeros = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), (of_model, metrics))
    # On CPU a convolution in a compiled loop is 16 times slower than outside.
    unroll = count if jax.default_backend() == "cpu" else 1
    total, of_images = jax.lax.scan(add, zeros, divided, unroll=unroll)
    of_model, metrics = jax.tree.map(lambda a: a / count, total)
    of_noise, bound = jax.tree.map(lambda a: jnp.moveaxis(a, 0, 1).reshape(-1, *a.shape[2:]), of_images)
    return (of_model, jax.tree.map(lambda a: a / count, of_noise)), (metrics, bound)
