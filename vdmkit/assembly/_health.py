# SPDX-License-Identifier: Apache-2.0
"""What the health signs of a training depend on beside its metrics."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from vdmkit.assembly._labels import told_always
from vdmkit.data import Images
from vdmkit.estimate import Estimate
from vdmkit.health import Facts
from vdmkit.model import DiffusionModel
from vdmkit.recipe import Recipe

_IMAGES = 1000  # for the mean square of their values, which enters the prior term by a factor near exp(-gamma_max)


def health_facts(recipe: Recipe, model: DiffusionModel, train: Images) -> Facts:
    """Returns the facts of a training of this recipe, whatever the parameters of its model."""
    settings, schedule = recipe.training, model.schedule
    images = jnp.asarray(train.pixels[:_IMAGES])
    x = np.asarray(eqx.filter_jit(jax.vmap(model.observation.encode))(images))
    return Facts(
        steps=settings.steps,
        batch_size=settings.batch_size,
        gamma_min=float(schedule.gamma_min),
        gamma_max=float(schedule.gamma_max),
        levels=train.levels,
        spacing=model.observation.spacing if train.levels and not _asks_network(model) else None,
        mean_square=float(np.mean(np.square(x))),
        ema=settings.ema if recipe.evaluation.weights == "ema" else None,
        ema_warmup=settings.ema_warmup,
        told=told_always(recipe),
    )


def _asks_network(model: DiffusionModel) -> bool:
    """Returns whether the decoder p(x | z_0) uses the model's estimate at z_0, which may know more than z_0 alone."""
    asked = []

    def estimate() -> Estimate:
        asked.append(True)
        return model.estimate(jnp.zeros(model.shape), jnp.zeros(()))

    image = jnp.zeros(model.shape, jnp.uint8)
    eqx.filter_eval_shape(
        lambda z: model.observation.log_prob(image, z, jnp.zeros(()), estimate), jnp.zeros(model.shape)
    )
    return bool(asked)
