# SPDX-License-Identifier: Apache-2.0
"""What training changes, and all that a resumed run needs of it."""

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Int, PyTree

from vdmkit.model import DiffusionModel
from vdmkit.objective import Objective


class TrainState(eqx.Module):
    """The model, the running average of its parameters, the optimiser's state and the number of updates made.

    The objective is here because its time sampler may learn.
    """

    model: DiffusionModel
    ema: PyTree
    opt_state: PyTree
    step: Int[Array, ""]
    objective: Objective

    @property
    def ema_model(self) -> DiffusionModel:
        """The model with averaged parameters."""
        return eqx.combine(self.ema, self.model)


def initial_state(model: DiffusionModel, optimizer: optax.GradientTransformation, objective: Objective) -> TrainState:
    """The state before the first update; the average starts as a copy of the parameters."""
    params = eqx.filter(model, eqx.is_inexact_array)
    ema = jax.tree.map(jnp.copy, params)  # buffers of its own: both are donated
    return TrainState(model, ema, optimizer.init(params), jnp.zeros((), int), objective)


@eqx.filter_jit
def _all_finite(tree: PyTree) -> Bool[Array, ""]:
    leaves = jax.tree.leaves(eqx.filter(tree, eqx.is_inexact_array))
    return jnp.array([jnp.isfinite(leaf).all() for leaf in leaves], bool).all()  # an oracle has no leaves


def is_finite(state: TrainState) -> bool:
    """Whether every parameter, and every average of one, is finite."""
    return bool(_all_finite((state.model, state.ema)))
