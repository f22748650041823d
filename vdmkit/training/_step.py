# SPDX-License-Identifier: Apache-2.0
"""One training update: gradient of the batch's mean bits per dimension, optimiser, running average."""

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import PRNGKeyArray, PyTree

from vdmkit.devices import MatmulPrecision, is_small, multiplying
from vdmkit.losses.bound import Bound, bits_per_dim
from vdmkit.losses.training_loss import Draws, Objective
from vdmkit.model import Compute, DiffusionModel
from vdmkit.schedules import Scalar
from vdmkit.training._fault import fault
from vdmkit.training._gradient import Batch, Metrics, batch_gradient, in_micro_batches
from vdmkit.training._state import TrainState


class Update(eqx.Module):
    """A training step. `ema` is the decay of the average; `ema_warmup` limits it to (1 + n) / (10 + n) at first.

    The network computes in the type `compute`, None for that of its parameters, and multiplies with `matmul_precision`,
    None for the device's. Parameters, their average, the optimiser's state and the loss stay in float32.

    The gradient is computed of `micro_batches` parts of the batch, one after the other.
    """

    optimizer: optax.GradientTransformation = eqx.field(static=True)
    ema: float = eqx.field(static=True)
    ema_warmup: bool = eqx.field(static=True)
    compute: Compute | None = eqx.field(static=True, default=None)
    matmul_precision: MatmulPrecision | None = eqx.field(static=True, default=None)
    micro_batches: int = eqx.field(static=True, default=1)

    def gradient(
        self, model: DiffusionModel, objective: Objective, batch: Batch, draws: Draws, *, key: PRNGKeyArray | None
    ) -> tuple[PyTree, tuple[Metrics, Bound]]:
        """Returns the gradient of the batch's mean bits per dimension, with metrics and the bounds.

        Metrics are the mean, its terms, and where a number is not finite: see `fault`.
        The interior of a schedule may have the gradient of the variance instead. Bounds are of each image, in nats.
        `key` drives dropout.
        """
        noise, vjp = eqx.filter_vjp(lambda schedule: objective.noise_levels(schedule, draws), model.schedule)
        keys = None if key is None else jax.random.split(key, len(batch["image"]))
        gradient_of = lambda given: batch_gradient(model, objective, given, self.compute)  # noqa: E731
        given = (noise, batch, draws, keys)
        if self.micro_batches == 1:
            (gradient, sensitivity), aux = gradient_of(given)
        else:
            (gradient, sensitivity), aux = in_micro_batches(gradient_of, given, self.micro_batches)
        metrics, bound = aux
        loss = bits_per_dim(jnp.asarray(bound.diffusion), model.dimensions)
        schedule = objective.schedule_gradient(gradient.schedule, vjp, sensitivity, loss)
        metrics |= fault(bound, noise, model.schedule)
        return eqx.tree_at(lambda of: of.schedule, gradient, schedule), (metrics, bound)

    def __call__(self, state: TrainState, batch: Batch, *, key: PRNGKeyArray) -> tuple[TrainState, Metrics]:
        """Returns the state after one update. The step's key is folded from `key`, that of the run."""
        key_draws, key_dropout = jax.random.split(jax.random.fold_in(key, state.step))
        b, h, w, c = batch["image"].shape
        draws = state.objective.draw((b, h, w, c), key=key_draws)
        with multiplying(self.matmul_precision):
            gradient, (metrics, bound) = self.gradient(state.model, state.objective, batch, draws, key=key_dropout)
            metrics |= {"gradient": _norm(gradient)}
        return self.apply(state, gradient, state.objective.after(draws, bound)), metrics

    def apply(self, state: TrainState, gradient: PyTree, objective: Objective) -> TrainState:
        """Applies the optimiser's update, then ema + (1 - decay) (params - ema). `objective` is the next step's."""
        params = eqx.filter(state.model, eqx.is_inexact_array)
        updates, opt_state = self.optimizer.update(gradient, state.opt_state, params)
        model = eqx.apply_updates(state.model, updates)
        # 1 - ema is computed in float64, because float32 has a relative error of 1e-4.
        rate = jnp.maximum(1 - self.ema, 9 / (10 + state.step)) if self.ema_warmup else 1 - self.ema
        params = eqx.filter(model, eqx.is_inexact_array)
        ema = jax.tree.map(lambda average, new: average + rate * (new - average), state.ema, params)
        return TrainState(model, ema, opt_state, state.step + 1, objective)


def _norm(tree: PyTree) -> Scalar:
    """Returns the Euclidean norm. Small arrays are joined, since a sum for each takes a fifth of the compile time."""
    small, large = eqx.partition(tree, is_small)
    parts = [ravel_pytree(small)[0], *jax.tree.leaves(large)]
    return jnp.sqrt(sum((jnp.sum(jnp.square(part)) for part in parts), jnp.zeros(())))


Inputs = tuple[Update, Batch, PRNGKeyArray]


def one_step(inputs: Inputs, state: TrainState) -> tuple[TrainState, Metrics]:
    """Makes one update. Metrics have shape (1,)."""
    update, batch, key = inputs
    state, metrics = update(state, batch, key=key)
    return state, jax.tree.map(lambda v: v[None], metrics)


@eqx.filter_jit(donate="all-except-first")
def train_step(inputs: Inputs, state: TrainState) -> tuple[TrainState, Metrics]:
    """Makes one update in one dispatch, reusing the state's buffers. Metrics have shape (1,)."""
    return one_step(inputs, state)


@eqx.filter_jit(donate="all-except-first")
def train_steps(inputs: Inputs, state: TrainState) -> tuple[TrainState, Metrics]:
    """Makes one update for each entry of the batches' leading axis in one dispatch, for accelerators.

    On CPU a convolution inside lax.scan is 16 times slower than outside; use `train_step` there.
    """
    update, batches, key = inputs
    arrays, static = eqx.partition(state, eqx.is_array)

    def body(arrays: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        state, metrics = update(eqx.combine(arrays, static), batch, key=key)
        return eqx.filter(state, eqx.is_array), metrics

    arrays, metrics = jax.lax.scan(body, arrays, batches)
    return eqx.combine(arrays, static), metrics
