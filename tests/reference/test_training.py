# SPDX-License-Identifier: Apache-2.0
"""Gradients and updates with the authors' raw weights equal those of their code, parameter by parameter.

The reference gives a gradient by its norm |g| and its dot product with cos(0), cos(1), ... A relative error of 1e-4 in
a gradient of n values changes the dot product by about 1e-4 |g|, so that is the tolerance of both.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vdmkit.importers.vdm import official_parameters
from vdmkit.losses import bits_per_dim
from vdmkit.process import diffuse
from vdmkit.schedules import gamma_and_derivative
from vdmkit.training import TrainState, Update, adamw

ROUNDING = 2**-24
LEARNING_RATE, EMA = 2e-4, 0.999


def test_loss(case):
    """The mean bits per dimension of the batch equal the authors'."""
    loss, _ = _loss_and_gradient(case)
    assert float(loss) == pytest.approx(case.training["loss"], rel=1e-5)


def test_gradient_of_the_network(case):
    """The gradient of every parameter of the network equals the authors'.

    Some gradients are zero in exact arithmetic: a key bias cancels in the softmax, and a constant per channel cancels
    in a normalisation of that channel alone. There both sides contain only rounding errors of the other gradients.
    """
    _, gradient = _loss_and_gradient(case)
    rounding = ROUNDING * _global_norm(case)
    for name, (norm, norm_error, dot_error) in _compare(case, gradient).items():
        if name.startswith("score_model/"):
            tolerance = 1e-4 * norm + rounding
            assert norm_error <= tolerance, name
            assert dot_error <= tolerance, name


@pytest.mark.costly
def test_gradient_of_the_schedule(case):
    """The gradient of the schedule's parameters equals the authors'.

    It is the sum over all pixels of dL/dz dz/dgamma, values of both signs. The Fourier features turn the error of z_t
    (3e-7 by the reference's README) into a phase error of 2 pi 128 * 3e-7 = 2.4e-4, independent at every pixel. The sum
    is therefore uncertain by 2.4e-4 times the Euclidean norm of its terms, in addition to 1e-4 of its value.
    """
    _, gradient = _loss_and_gradient(case)
    uncertain = _schedule_uncertainty(case)
    for name, (norm, norm_error, dot_error) in _compare(case, gradient).items():
        if name.startswith("gamma/"):
            tolerance = 1e-4 * norm + 2.4e-4 * uncertain[name]
            assert norm_error <= tolerance, name
            assert dot_error <= tolerance, name


@pytest.mark.costly
def test_gradient_against_float64(case):
    """Float32 gradients, including those of the schedule, are within 1e-4 of float64."""
    _, gradient = _loss_and_gradient(case)
    with jax.enable_x64(True):
        _, exact = _loss_and_gradient(case, np.float64)
        exact = {name: np.asarray(leaf) for name, leaf in official_parameters(exact).items()}
    rounding = ROUNDING * _global_norm(case)
    for name, leaf in official_parameters(gradient).items():
        error = np.linalg.norm(np.asarray(leaf, np.float64) - exact[name])
        assert error <= 1e-4 * np.linalg.norm(exact[name]) + rounding, name


@pytest.mark.costly
def test_three_updates(case):
    """Three AdamW updates with the running average equal the authors'.

    Adam divides a gradient by its size, so an error of delta in an element g changes the update by up to
    lr delta / |g|, at most 2 lr. delta is 1e-5 of the gradient's size, as for forward quantities. The errors of the
    elements are independent, and four standard errors of their sum are allowed. The average changes by 1 - EMA of it.
    """
    training, rounding = case.training, ROUNDING * _global_norm(case)
    state, update = _start(case)
    doubt = dict.fromkeys(official_parameters(case.template), 0.0)
    for i in range(3):
        draws = case.draws(training["step_eps_0"][i], training["step_eps"][i], case.times(training["step_t0"][i]))
        loss, gradient = case.loss_and_gradient(state.model, draws)
        assert float(loss) == pytest.approx(training["step_loss"][i], rel=1e-5)
        state = update(state, gradient)
        for name, leaf in official_parameters(gradient).items():
            doubt[name] += _update_variance(np.asarray(leaf, np.float64), rounding)
    for prefix, tree, share in (("after3_dot:", state.model, 1.0), ("ema3_dot:", state.ema, 3 * (1 - EMA))):
        for name, leaf in official_parameters(tree).items():
            values = np.asarray(leaf, np.float64)
            stored = 4 * ROUNDING * np.linalg.norm(values)  # three additions on both sides, four standard errors
            tolerance = 4 * share * LEARNING_RATE * np.sqrt(doubt[name]) + stored
            assert abs(values.ravel() @ _cosines(values) - training[prefix + name]) <= tolerance, prefix + name


@pytest.mark.costly
def test_what_decays(case):
    """Weight decay applies to every parameter except biases, and is the only change at zero gradient."""
    state, update = _start(case)
    zero = jax.tree.map(jnp.zeros_like, eqx.filter(state.model, eqx.is_inexact_array))
    before, after = (official_parameters(model) for model in (state.model, update(state, zero).model))
    for name, leaf in before.items():
        kept = 1 if name.endswith("/bias") else 1 - LEARNING_RATE * 0.01
        # one rounding of the product and one of the sum; the decay is as large as 34 roundings
        np.testing.assert_allclose(after[name], kept * leaf, rtol=2 * ROUNDING, err_msg=name)


def _loss_and_gradient(case, dtype=np.float32):
    golden = case.golden
    model, draws = jax.tree.map(
        lambda leaf: leaf.astype(dtype) if eqx.is_inexact_array(leaf) else leaf,
        (case.checkpoint.model, case.draws(golden["eps_0"], golden["eps"], golden["t"])),
    )
    return case.loss_and_gradient(model, draws)


def _start(case):
    """Returns the authors' state with zero moments, and the compiled update."""
    checkpoint = case.checkpoint
    optimizer = adamw(3, learning_rate=LEARNING_RATE, warmup_steps=0)
    params, ema = (eqx.filter(model, eqx.is_inexact_array) for model in (checkpoint.model, checkpoint.ema))
    update = Update(optimizer, EMA, ema_warmup=False)
    state = TrainState(checkpoint.model, ema, optimizer.init(params), jnp.zeros((), int), case.objective)
    return state, eqx.filter_jit(lambda state, gradient: update.apply(state, gradient, state.objective))


def _compare(case, gradient):
    """Returns by path the norm of the reference, and the errors of our norm and of our dot product."""
    result = {}
    for name, leaf in official_parameters(gradient).items():
        values = np.asarray(leaf, np.float64)
        norm, dot = (float(case.training[f"{key}:{name}"]) for key in ("grad_norm", "grad_dot"))
        result[name] = norm, abs(np.linalg.norm(values) - norm), abs(values.ravel() @ _cosines(values) - dot)
    return result


def _cosines(values: np.ndarray) -> np.ndarray:
    return np.cos(np.arange(values.size))


def _global_norm(case) -> float:
    return float(np.linalg.norm([value for name, value in case.training.items() if name.startswith("grad_norm:")]))


def _update_variance(gradient: np.ndarray, rounding: float) -> float:
    """Returns the variance of an update's dot product in units of lr^2, given uncertain gradient elements."""
    delta = (1e-5 * np.linalg.norm(gradient) + rounding) / np.sqrt(gradient.size)
    relative = delta / np.maximum(np.abs(gradient.ravel()), delta / 2)
    return float(np.sum((relative * _cosines(gradient)) ** 2))


def _schedule_uncertainty(case):
    """Returns by path the Euclidean norm of the per-pixel terms of the schedule's gradient."""
    model, golden, steps = case.checkpoint.model, case.golden, case.objective.steps

    def terms(image, t, eps):
        x = model.observation.encode(image)
        gamma, rate = gamma_and_derivative(model.schedule, t)
        if steps:
            rate = steps * jnp.expm1(gamma - model.schedule(t - 1 / steps))
        z, dz_dgamma = jax.jvp(lambda g: diffuse(model.path, g, x, eps), (gamma,), (jnp.ones(()),))
        loss = jax.grad(lambda z: 0.5 * rate * ((eps - model.denoise(z, gamma, {}).eps_hat) ** 2).sum())
        return bits_per_dim(jnp.linalg.norm(loss(z) * dz_dgamma), model.dimensions)

    sizes = eqx.filter_jit(jax.vmap(terms))(golden["images"], golden["t"], golden["eps"]) / len(golden["t"])
    slopes = jax.vmap(eqx.filter_grad(lambda model, t: model.schedule(t)), in_axes=(None, 0))(model, golden["t"])
    return {
        name: float(jnp.linalg.norm(sizes * jnp.linalg.norm(leaf.reshape(len(sizes), -1), axis=1)))
        for name, leaf in official_parameters(slopes).items()
    }
