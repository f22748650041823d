# SPDX-License-Identifier: Apache-2.0
"""One update, and many: what is differentiated, what decays, what is averaged, what is reused."""

from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import vdmkit
from vdmkit.errors import RecipeError
from vdmkit.losses import Elbo, LowDiscrepancy, Objective, bits_per_dim
from vdmkit.losses.training_loss import Draws
from vdmkit.recipes import find_recipe, load_recipe
from vdmkit.recipes.build import build_optimizer, build_update
from vdmkit.schedules import Pinned
from vdmkit.training import TrainState, Update, adamw, train_step
from vdmkit.training.optimizers import interior_apart
from vdmkit.training.step import initial_state, train_steps

OBJECTIVE = Objective(LowDiscrepancy(), Elbo(), 0)
RATE = 0.1
# One for the tests that compile a step, so that they share it. It has a state, and its first update is -RATE gradient.
UPDATE = Update(optax.sgd(RATE, momentum=0.9), 0.9, True)


@pytest.fixture(scope="module")
def key():
    """This generator compiles faster than the default one, and any random numbers will do."""
    return jax.random.key(0, impl="unsafe_rbg")


@pytest.fixture
def float64(as_float64, tiny_model):
    """The state before training, in float64; a fresh copy, since steps use it up."""
    with jax.enable_x64(True):
        yield initial_state(as_float64(jax.tree.map(jnp.copy, tiny_model)), UPDATE.optimizer, OBJECTIVE)


@pytest.fixture(scope="module")
def batches(tiny_images):
    """Three batches of four images with a flag each."""
    pixels = jnp.asarray(tiny_images.pixels).reshape(3, 4, *tiny_images.pixels.shape[1:])
    return {"image": pixels, "augmented": jnp.ones((3, 4))}


def params(tree):
    return jax.tree.leaves(eqx.filter(tree, eqx.is_inexact_array))


def constant(model, value):
    """A gradient that is `value` everywhere."""
    return jax.tree.map(lambda leaf: jnp.full_like(leaf, value), eqx.filter(model, eqx.is_inexact_array))


@pytest.mark.costly
def test_the_loss_as_a_function_has_the_gradient_of_a_step(float64, batches, key):
    """A training loop over `vdmkit.loss` would minimise something else than `vdmkit run`, or draw other noise."""
    model, batch = jax.tree.map(jnp.copy, float64.model), {name: rows[0] for name, rows in batches.items()}
    known = {"augmented": batch["augmented"]}
    loss_of = eqx.filter_jit(eqx.filter_value_and_grad(vdmkit.loss, has_aux=True))
    (loss, _), gradient = loss_of(model, batch["image"], key=jax.random.fold_in(key, 0), condition=known)
    state, metrics = train_step((UPDATE, batch, key), float64)
    np.testing.assert_allclose(loss, metrics["bpd"][0], rtol=1e-12)
    for old, new, slope in zip(*map(params, (model, state.model, gradient)), strict=True):
        np.testing.assert_allclose(new, old - RATE * slope, rtol=1e-12, atol=1e-12)  # rounding of float64


@pytest.mark.costly
def test_the_gradient_is_that_of_the_mean_bpd(float64, batches, key):
    """Training would minimise something else than the mean bound in bits per dimension."""
    model, batch = jax.tree.map(jnp.copy, float64.model), {name: rows[0] for name, rows in batches.items()}
    state, metrics = train_step((UPDATE, batch, key), float64)
    gradient = [(old - new) / RATE for old, new in zip(params(model), params(state.model), strict=True)]

    @eqx.filter_jit
    def mean_bpd(step):
        moved = eqx.apply_updates(model, jax.tree.map(lambda p: step * p, eqx.filter(model, eqx.is_inexact_array)))
        key_draws, key_dropout = jax.random.split(jax.random.fold_in(key, 0))
        draws = OBJECTIVE.draw(batch["image"].shape, key=key_draws)
        bound = OBJECTIVE(moved, batch["image"], {"augmented": batch["augmented"]}, draws, key=key_dropout)
        return bits_per_dim(bound.total.mean(), moved.dimensions)

    # Central difference along the parameters themselves: an error of h^2 = 1e-10, and 1e-16 / h = 1e-11 of rounding.
    h = 1e-5
    slope = (mean_bpd(h) - mean_bpd(-h)) / (2 * h)
    along = sum(jnp.vdot(g, p) for g, p in zip(gradient, params(model), strict=True))
    np.testing.assert_allclose(along, slope, rtol=1e-7)
    np.testing.assert_allclose(metrics["bpd"], [mean_bpd(0.0)], rtol=1e-10)
    np.testing.assert_allclose(metrics["gradient"], [optax.tree.norm(gradient)], rtol=1e-10)


def test_each_image_has_dropout_of_its_own(tiny_model, batches):
    """All images of a batch would lose the same inputs: here eight copies differ in nothing else."""
    copies, noise = jnp.repeat(batches["image"][0, :1], 8, axis=0), jnp.ones((8, *tiny_model.shape))
    draws = Draws(noise, noise, jnp.full(8, 0.5), jnp.ones(8), jax.random.split(jax.random.key(0), 8))
    losses = eqx.filter_jit(OBJECTIVE)(tiny_model, copies, {}, draws, key=jax.random.key(0)).diffusion
    # Two of them lose the same of 17 inputs with chance 0.03. Rounded: equal losses of about 100 may differ by 1e-5.
    assert len(np.unique(np.round(losses, 3))) > 4


def test_only_biases_do_not_decay(tiny_model):
    """A bias would shrink, or a kernel or an end of the schedule would not: not the authors' AdamW."""
    optimizer = adamw(10, learning_rate=0.1, weight_decay=0.5, warmup_steps=0)
    update = Update(optimizer, 0.9, False)
    new = update.apply(initial_state(tiny_model, optimizer, OBJECTIVE), constant(tiny_model, 0.0), OBJECTIVE).model
    np.testing.assert_array_equal(new.network.bias, tiny_model.network.bias)
    shrunk = [(new.network.kernel, tiny_model.network.kernel)]
    shrunk += [(new.schedule.w, tiny_model.schedule.w), (new.schedule.b, tiny_model.schedule.b)]
    for after, before in shrunk:
        np.testing.assert_allclose(after, 0.95 * before, rtol=1e-6)  # a few float32 roundings


def test_the_first_update_of_a_warm_up_changes_nothing(tiny_model):
    """The learning rate would be that after the count, not before it, or would not start at 0."""
    optimizer = adamw(10, warmup_steps=5)
    update = Update(optimizer, 0.9, False)
    first = update.apply(initial_state(tiny_model, optimizer, OBJECTIVE), constant(tiny_model, 1.0), OBJECTIVE)
    second = update.apply(first, constant(tiny_model, 1.0), OBJECTIVE)
    assert all(map(np.array_equal, params(first.model), params(tiny_model)))
    assert not any(map(np.array_equal, params(second.model), params(tiny_model)))


def sizes_of_updates(optimizer, norms):
    """How far gradients of one direction, (0.6, 0.8), and of these norms move the first of two parameters."""
    direction, params = {"a": jnp.full(1, 0.6), "b": jnp.full(1, 0.8)}, {"a": jnp.zeros(1), "b": jnp.zeros(1)}
    state, sizes = optimizer.init(params), []
    for norm in norms:
        moved, state = optimizer.update(optax.tree.scale(norm, direction), state, params)
        sizes.append(-float(moved["a"][0]))
    return sizes


@pytest.mark.parametrize("decay", ["none", "cosine"])
def test_the_learning_rate_from_the_first_step_to_the_last(digits_toml, decay):
    """It would not rise and stay, or not fall along the cosine that reaches 0 with the recipe's last step."""
    overrides = ["training.steps=12", "optimizer.learning_rate=0.1", "optimizer.warmup_steps=2"]
    optimizer = build_optimizer(load_recipe(digits_toml, [*overrides, f"optimizer.decay={decay}"]))
    after = 0.05 * (1 + np.cos(np.pi * np.arange(10) / 10)) if decay == "cosine" else np.full(10, 0.1)
    # Adam divides a gradient that does not change by its size, which leaves the rate, but for float32 roundings.
    np.testing.assert_allclose(sizes_of_updates(optimizer, [1.0] * 12), [0, 0.05, *after], rtol=1e-5)


def test_gradients_are_clipped_together_and_only_above_the_norm():
    """A large gradient would fill Adam's moments, or be clipped parameter by parameter, or a small one be changed."""
    clipped, free = (adamw(10, warmup_steps=0, clip_norm=norm) for norm in (1.0, 0.0))
    found, expected = sizes_of_updates(clipped, [0.5, 10.0]), sizes_of_updates(free, [0.5, 1.0])
    np.testing.assert_allclose(found, expected, rtol=1e-5)  # float32 roundings
    assert not np.allclose(sizes_of_updates(free, [0.5, 10.0]), expected, rtol=0.01)


@pytest.mark.costly
def test_the_interior_of_a_schedule_is_clipped_apart(tiny_model):
    """A large gradient of the variance, which is of other units, would take the network's learning rate away."""
    model = eqx.tree_at(lambda model: model.schedule, tiny_model, Pinned(jax.random.key(0)))
    clipped = optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(1.0))
    gradient = constant(model, 1e-3)  # together well below the norm
    large = eqx.tree_at(lambda of: of.schedule.interior, gradient, constant(model.schedule.interior, 50.0))
    optimizer = interior_apart(clipped)
    moved, _ = optimizer.update(large, optimizer.init(gradient))
    np.testing.assert_allclose(moved.network.kernel, -1e-3, rtol=1e-6)  # one rounding
    np.testing.assert_allclose(moved.schedule.learned_ends, -1e-3, rtol=1e-6)
    np.testing.assert_allclose(optax.tree.norm(moved.schedule.interior), 1.0, rtol=1e-5)  # of 3,074 float32 numbers


@pytest.mark.parametrize(
    ("warmup", "step", "decay"), [(False, 0, 0.99), (True, 0, 1 / 10), (True, 5, 6 / 15), (True, 10_000, 0.99)]
)
def test_the_average(tiny_model, warmup, step, decay):
    """The running average would not be ema + (1 - decay) (new - ema), with decay min(0.99, (1 + n) / (10 + n))."""
    optimizer = optax.sgd(1.0)
    state = initial_state(tiny_model, optimizer, OBJECTIVE)
    old = jax.tree.map(lambda leaf: leaf + 1.0, state.ema)
    state = TrainState(state.model, old, state.opt_state, jnp.asarray(step), OBJECTIVE)
    new = Update(optimizer, 0.99, warmup).apply(state, constant(tiny_model, 0.25), OBJECTIVE)
    assert int(new.step) == step + 1
    for average, before, param in zip(params(new.ema), params(old), params(tiny_model), strict=True):
        expected = before + (1 - decay) * (param - 0.25 - before)
        np.testing.assert_allclose(average, expected, rtol=1e-6, atol=1e-6)  # float32 roundings of values up to 11


def test_the_averaged_model_shares_nothing_but_constants(tiny_model):
    """Evaluation on averaged weights would use some raw ones, or donation would take one buffer twice."""
    state = initial_state(tiny_model, optax.sgd(1.0), OBJECTIVE)
    state = eqx.tree_at(lambda s: s.ema, state, constant(tiny_model, 3.0))
    assert all(np.all(leaf == 3.0) for leaf in params(state.ema_model))
    pointers = [leaf.unsafe_buffer_pointer() for leaf in params(initial_state(tiny_model, optax.sgd(1.0), OBJECTIVE))]
    assert len(pointers) == len(set(pointers))


@pytest.mark.costly
def test_many_steps_in_one_dispatch_are_the_same_steps(float64, batches, key):
    """An accelerator, which scans over steps, would train another model than a CPU, which does not."""
    scanned, metrics = train_steps((UPDATE, batches, key), jax.tree.map(jnp.copy, float64))
    state, one_by_one = float64, []
    for i in range(3):
        state, metric = train_step((UPDATE, {name: rows[i] for name, rows in batches.items()}, key), state)
        one_by_one.append(metric)
    assert int(state.step) == int(scanned.step) == 3
    for a, b in zip(params(state), params(scanned), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)
    for name, values in metrics.items():
        np.testing.assert_allclose(values, np.concatenate([m[name] for m in one_by_one]), rtol=1e-10, atol=1e-12)


def test_every_step_has_draws_of_its_own(float64, batches, key):
    """Each step would see the same noise and times: the loss of one batch would not change between steps."""
    batch = {name: rows[0] for name, rows in batches.items()}
    later = eqx.tree_at(lambda state: state.step, float64, float64.step + 7)
    (_, first), (_, second) = (train_step((UPDATE, batch, key), jax.tree.map(jnp.copy, s)) for s in (float64, later))
    assert float(first["bpd"][0]) != float(second["bpd"][0])


def test_a_step_reuses_the_state_and_nothing_else(float64, batches, key):
    """Training would hold the state twice, or a batch or key would be gone after its first use."""
    inputs = (UPDATE, {name: rows[0] for name, rows in batches.items()}, key)
    train_step(inputs, float64)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(eqx.filter(float64, eqx.is_array)))
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(eqx.filter(inputs, eqx.is_array)))


@pytest.mark.costly
def test_micro_batches_have_the_gradient_of_the_batch(float64, batches):
    """False if a batch that is too large for memory trained another model than it says."""
    key = jax.random.key(0)  # of the default generator: the numbers of others depend on the size of a batch
    batch = {name: rows[0] for name, rows in batches.items()}
    draws = OBJECTIVE.draw(batch["image"].shape, key=key)

    @eqx.filter_jit
    def gradient(micro_batches):
        update = replace(UPDATE, micro_batches=micro_batches)
        return update.gradient(float64.model, OBJECTIVE, batch, draws, key=key)

    whole, parts = gradient(1), gradient(2)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12), whole, parts)  # roundings


def test_micro_batches_divide_the_batch():
    """Images of a batch would be left out without a word."""
    recipe = load_recipe(find_recipe("digits"), ["training.batch_size=4", "training.micro_batches=3"])
    with pytest.raises(RecipeError, match="does not divide training"):
        build_update(recipe, build_optimizer(recipe))
