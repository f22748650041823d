# SPDX-License-Identifier: Apache-2.0
"""The training state: everything that training changes, and that a resumed run needs."""

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Int, PyTree

from vdmkit.losses.training_loss import Objective
from vdmkit.model import DiffusionModel


class TrainState(eqx.Module):
    """Model, running average of its parameters, optimiser state and number of updates.

    The objective is part of the state because its time sampler may learn.
    """

    model: DiffusionModel
    ema: PyTree
    opt_state: PyTree
    step: Int[Array, ""]
    objective: Objective

    @property
    def ema_model(self) -> DiffusionModel:
        """Returns the model with averaged parameters."""
        return eqx.combine(self.ema, self.model)


def initial_state(model: DiffusionModel, optimizer: optax.GradientTransformation, objective: Objective) -> TrainState:
    """Returns the state before the first update; the average starts as a copy of the parameters."""
    params = eqx.filter(model, eqx.is_inexact_array)
    ema = jax.tree.map(jnp.copy, params)  # separate buffers, because both are donated
    return TrainState(model, ema, optimizer.init(params), jnp.zeros((), int), objective)


@eqx.filter_jit
def _all_finite(tree: PyTree) -> Bool[Array, ""]:
    leaves = jax.tree.leaves(eqx.filter(tree, eqx.is_inexact_array))
    return jnp.array([jnp.isfinite(leaf).all() for leaf in leaves], bool).all()  # exact denoisers have no leaves


def is_finite(state: TrainState) -> bool:
    """Returns whether every parameter, and every average of one, is finite."""
    return bool(_all_finite((state.model, state.ema)))
