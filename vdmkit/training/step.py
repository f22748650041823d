# SPDX-License-Identifier: Apache-2.0
"""One training update: gradient of the batch's mean bits per dimension, optimiser, running average."""

from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Int, Key, PRNGKeyArray, PyTree

from vdmkit.devices import MatmulPrecision, is_small, multiplying
from vdmkit.losses.bound import Bound, NoiseLevel, bits_per_dim
from vdmkit.losses.training_loss import Draws, Objective, mean_terms
from vdmkit.model import Compute, DiffusionModel
from vdmkit.schedules import AbstractSchedule, Scalar

Batch = Mapping[str, Array]
"""A batch: "image" is uint8 (b, h, w, c); every other entry is side information on the images, shape (b,)."""
Metrics = dict[str, Float[Array, "*steps"]]
FAULT = ("faulty", "faulty_row", "faulty_gamma")
"""Names of the metrics of `fault`."""


class TrainState(eqx.Module):
    """Everything that training changes: model, running average of its parameters, optimiser state, number of updates.

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


def is_finite(state: TrainState) -> bool:
    """Returns whether every parameter, and every average of one, is finite."""
    return bool(_all_finite((state.model, state.ema)))


@eqx.filter_jit
def _all_finite(tree: PyTree) -> Bool[Array, ""]:
    leaves = jax.tree.leaves(eqx.filter(tree, eqx.is_inexact_array))
    return jnp.array([jnp.isfinite(leaf).all() for leaf in leaves], bool).all()  # the list is empty for exact denoisers


class Update(eqx.Module):
    """A training step.

    Parameters, their average, the optimiser's state and the loss stay in float32.

    Attributes:
        optimizer: The optimiser.
        ema: Decay of the average.
        ema_warmup: Whether the decay is at most (1 + n) / (10 + n) after n updates.
        compute: Type in which the network computes; None for that of its parameters.
        matmul_precision: Precision of matrix products; None for the device's default.
        micro_batches: Number of parts of the batch whose gradients are computed one after the other.
    """

    optimizer: optax.GradientTransformation = eqx.field(static=True)
    ema: float = eqx.field(static=True)
    ema_warmup: bool = eqx.field(static=True)
    compute: Compute | None = eqx.field(static=True, default=None)
    matmul_precision: MatmulPrecision | None = eqx.field(static=True, default=None)
    micro_batches: int = eqx.field(static=True, default=1)

    def __call__(self, state: TrainState, batch: Batch, *, key: PRNGKeyArray) -> tuple[TrainState, Metrics]:
        """Returns the state after one update. The key of the step is folded from `key`, the run's key."""
        key_draws, key_dropout = jax.random.split(jax.random.fold_in(key, state.step))
        b, h, w, c = batch["image"].shape
        draws = state.objective.draw((b, h, w, c), key=key_draws)
        with multiplying(self.matmul_precision):
            gradient, (metrics, bound) = self.gradient(state.model, state.objective, batch, draws, key=key_dropout)
            metrics |= {"gradient": _norm(gradient)}
        return self.apply(state, gradient, state.objective.after(draws, bound)), metrics

    def gradient(
        self, model: DiffusionModel, objective: Objective, batch: Batch, draws: Draws, *, key: PRNGKeyArray | None
    ) -> tuple[PyTree, tuple[Metrics, Bound]]:
        """Returns the gradient of the batch's mean bits per dimension, with metrics and the bounds.

        Metrics are the mean, its terms, and where a number is not finite: see `fault`.
        The interior of a schedule may have the gradient of the variance instead. There is one bound per image, in nats.
        `key` drives dropout.
        """
        noise, vjp = eqx.filter_vjp(lambda schedule: objective.noise_levels(schedule, draws), model.schedule)
        keys = None if key is None else jax.random.split(key, len(batch["image"]))
        gradient_of = lambda examples: _batch_gradient(model, objective, examples, self.compute)  # noqa: E731
        examples = (noise, batch, draws, keys)
        if self.micro_batches == 1:
            (gradient, sensitivity), aux = gradient_of(examples)
        else:
            (gradient, sensitivity), aux = _in_micro_batches(gradient_of, examples, self.micro_batches)
        metrics, bound = aux
        loss = bits_per_dim(jnp.asarray(bound.diffusion), model.dimensions)
        schedule = objective.schedule_gradient(gradient.schedule, vjp, sensitivity, loss)
        metrics |= fault(bound, noise, model.schedule)
        return eqx.tree_at(lambda of: of.schedule, gradient, schedule), (metrics, bound)

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


StepInputs = tuple[Update, Batch, PRNGKeyArray]


@eqx.filter_jit(donate="all-except-first")
def train_step(inputs: StepInputs, state: TrainState) -> tuple[TrainState, Metrics]:
    """Makes one update in one dispatch, reusing the state's buffers. Metrics have shape (1,)."""
    update, batch, key = inputs
    state, metrics = update(state, batch, key=key)
    return state, jax.tree.map(lambda v: v[None], metrics)


@eqx.filter_jit(donate="all-except-first")
def train_steps(inputs: StepInputs, state: TrainState) -> tuple[TrainState, Metrics]:
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


def fault(bound: Bound, noise: NoiseLevel, schedule: AbstractSchedule) -> dict[str, Float[Array, ""]]:
    """Returns how many images of a batch have a bound that is not finite, the row of the first, and its gamma.

    The gamma is that of the diffusion term if that term is not finite; else gamma_0 or gamma_1, depending on which term
    is not finite. Row and gamma mean nothing if there is no such image.
    """
    terms = [jnp.asarray(term) for term in (bound.diffusion, bound.reconstruction, bound.prior)]
    faulty = ~jnp.isfinite(sum(terms))
    row = jnp.argmax(faulty)
    gammas = [noise.gamma[row], schedule(jnp.zeros(())), schedule(jnp.ones(()))]
    gamma = jnp.select([~jnp.isfinite(term[row]) for term in terms], gammas, gammas[0])
    return dict(zip(FAULT, (faulty.sum().astype(float), row.astype(float), gamma), strict=True))


_Examples = tuple[NoiseLevel, Batch, Draws, Key[Array, " b"] | None]
"""What the bound of each image depends on besides the model; every array has the batch in front."""
_Gradient = tuple[tuple[DiffusionModel, NoiseLevel], tuple[Metrics, Bound]]
"""The gradient with respect to model and noise levels, with the mean bound and its terms, and each image's bound."""


def _batch_gradient(
    model: DiffusionModel, objective: Objective, examples: _Examples, compute: Compute | None
) -> _Gradient:
    """Returns the gradient of the mean over a batch. Bounds are in nats, the mean and its terms in bits/dim."""

    def mean_bpd(parts: tuple[DiffusionModel, NoiseLevel]) -> tuple[Scalar, tuple[Metrics, Bound]]:
        model, noise = parts
        _, batch, draws, keys = examples
        condition = {name: value for name, value in batch.items() if name != "image"}
        bound = objective.at(noise, model.computing_in(compute), batch["image"], condition, draws, keys=keys)
        terms = mean_terms(bound, model.dimensions)
        bpd = sum(terms.values(), jnp.zeros(()))
        return bpd, ({"bpd": bpd, **terms}, bound)

    return eqx.filter_grad(mean_bpd, has_aux=True)((model, examples[0]))


def _in_micro_batches(gradient_of: Callable[[_Examples], _Gradient], examples: _Examples, count: int) -> _Gradient:
    """Returns the gradient of a batch by its micro-batches, one after the other, which need less memory.

    Image i is in micro-batch i modulo `count`, so that each device of a sharded batch holds a part of every
    micro-batch.
    """
    divided = jax.tree.map(lambda a: jnp.moveaxis(a.reshape(-1, count, *a.shape[1:]), 1, 0), examples)

    def add(total: PyTree, part: _Examples) -> tuple[PyTree, Any]:
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


def _norm(tree: PyTree) -> Scalar:
    """Returns the Euclidean norm. Small arrays are joined, since a sum for each takes a fifth of the compile time."""
    small, large = eqx.partition(tree, is_small)
    parts = [ravel_pytree(small)[0], *jax.tree.leaves(large)]
    return jnp.sqrt(sum((jnp.sum(jnp.square(part)) for part in parts), jnp.zeros(())))
