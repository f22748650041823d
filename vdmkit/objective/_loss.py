# SPDX-License-Identifier: Apache-2.0
"""The training loss as a function, for custom training loops."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray, Real

from vdmkit.arguments import check_instance
from vdmkit.data import check_pixels
from vdmkit.errors import DataError
from vdmkit.model import DiffusionModel
from vdmkit.objective._bound import Bound
from vdmkit.objective._objective import Objective
from vdmkit.objective._units import bits_per_dim
from vdmkit.typing import Scalar


def loss(
    model: DiffusionModel,
    images: Real[Array | np.ndarray, "b h w c"],
    *,
    key: PRNGKeyArray,
    objective: Objective | None = None,
    condition: Mapping[str, Real[Array, " b"]] | None = None,
) -> tuple[Scalar, Bound]:
    """Returns the mean loss of a batch, bits/dim, and the three terms of each image, nats.

    It is what `vdmkit run` minimises (Kingma et al. 2021, arXiv 2107.00630, eq. 11), differentiable by
    `equinox.filter_value_and_grad(loss, has_aux=True)`. It works under `jax.jit`.

    Args:
        model: The model.
        images: Levels 0..levels - 1, or float32 if the model's data are continuous.
        key: Random key of times, noise and dropout.
        objective: By default the bound in continuous time with low-discrepancy times.
        condition: Side information on the images by name, each of shape (b,).

    Raises:
        DataError: there are no images, or they differ from the model's in shape, type or range; under `jax.jit` the
            range cannot be checked.
        RecipeError: an argument is not what is said here.
    """
    check_instance("model", model, DiffusionModel)
    check_instance("objective", objective, Objective, optional=True)
    images = images if isinstance(images, jax.Array) else np.asarray(images)
    check_pixels(model, images)
    if not len(images):
        raise DataError("images: an empty batch has no loss.")
    objective = objective or Objective()
    key_draws, key_dropout = jax.random.split(key)
    b, h, w, c = images.shape
    draws = objective.draw((b, h, w, c), key=key_draws)
    bound = objective(model, jnp.asarray(images), condition or {}, draws, key=key_dropout)
    return sum(mean_terms(bound, model.dimensions).values(), jnp.zeros(())), bound


def mean_terms(bound: Bound, dimensions: int) -> dict[str, Scalar]:
    """Returns the means of the three terms over a batch by name, bits/dim; their sum is the loss."""
    terms = {name: jnp.asarray(getattr(bound, name)) for name in ("prior", "reconstruction", "diffusion")}
    return {name: bits_per_dim(values.mean(), dimensions) for name, values in terms.items()}
