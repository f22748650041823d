# SPDX-License-Identifier: Apache-2.0
"""Signs of trouble as functions of numbers: what they say nothing of, and from where on they speak."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from vdmkit.losses import Objective, bits_per_dim, prior_loss
from vdmkit.training import Update
from vdmkit.training.health import (
    Window,
    average_behind_raw,
    crossed_ends,
    gradient_jumps,
    held_out_rises,
    initial_share,
    loss_jumps,
    measured_without_labels,
    nothing_learned,
    open_levels,
    prior_bpd,
    short_of_noise,
    slow_average,
)
from vdmkit.training.step import initial_state

INF = math.inf


def windows(*losses: float, gradient: tuple[float, ...] = ()) -> list[Window]:
    """Windows of 50 updates with these losses, and these gradients or 1."""
    gradients = gradient or (1.0,) * len(losses)
    return [Window(50 * (i + 1), *both) for i, both in enumerate(zip(losses, gradients, strict=True))]


def test_the_prior_is_that_of_the_bound(tiny_model):
    """The warning would speak of another number than the bound has."""
    x = jax.random.uniform(jax.random.key(0), tiny_model.shape, minval=-1)
    gamma_1 = float(tiny_model.schedule(jnp.ones(())))
    expected = bits_per_dim(float(prior_loss(tiny_model, x)), tiny_model.dimensions)
    assert prior_bpd(gamma_1, float(jnp.mean(x**2))) == pytest.approx(expected, rel=1e-5)  # float32


def test_a_latent_with_the_image_in_it():
    """A gamma_max that costs bits would go unnoticed, or the recipes' own be called too low."""
    assert "with gamma_max = 0 the prior term is 0.2" in (short_of_noise(0.0, 0.4) or "")
    assert short_of_noise(5.0, 0.4) is None
    assert short_of_noise(5.0, 1.0) is None


@pytest.mark.parametrize("levels", [17, 256])
def test_a_latent_that_leaves_the_levels_open(levels):
    """The warning would come at another noise than where a third of the pixels are nearest to another level."""
    spacing, limit = 2 / levels, -2 * math.log(levels)
    assert open_levels(limit - 0.01, spacing) is None
    message = open_levels(limit + 0.01, spacing) or ""
    noise = np.random.default_rng(0).normal(size=100_000) * math.exp(limit / 2)
    assert f"and {np.mean(abs(noise) > spacing / 2):.0%} of pixels" in message
    assert f"below {limit:.1f}" in message


def test_learned_ends_that_collapse():
    """Ends that moved by one or two, or outwards, would be called a collapse, or a collapse be missed."""
    assert crossed_ends(-6.2, 5.3, -8.0, 5.0) is None
    assert crossed_ends(-20.0, 30.0, -8.0, 5.0) is None
    for ends in [(-1.0, 5.0), (-8.0, -2.0), (9.0, 12.0)]:
        assert "the learned schedule has collapsed" in (crossed_ends(*ends, -8.0, 5.0) or "")


@pytest.mark.parametrize(
    ("losses", "untrained", "found"),
    [
        ((2.2, 2.0, 1.8), 2.3, False),
        ((1.8, 1.9, 2.1), 2.3, False),
        ((40.0, 12.0, 7.0), INF, False),  # an x prediction, which begins high
        ((300.0,), 2.3, True),
        ((2.2, 1.9, 4.0), 2.3, True),
        ((2.2, 1.9, INF), INF, True),
    ],
)
def test_a_loss_that_rises(losses, untrained, found):
    """Training that diverges would look like any other, or the noise of batches like divergence."""
    assert bool(loss_jumps(windows(*losses), untrained)) == found


@pytest.mark.parametrize(
    ("gradients", "found"),
    [
        ((8.0, 4.0, 2.6, 2.0, 1.8), False),
        ((0.9, 0.8, 0.9, 0.8, 2.7), False),
        ((0.9, 0.8, 50.0), False),  # too few to know what is usual
        ((0.9, 0.8, 0.9, 0.8, 9.0), True),
    ],
)
def test_a_gradient_that_jumps(gradients, found):
    """An explosion would be seen when the loss is lost already, or the fall of the first updates be one."""
    assert bool(gradient_jumps(windows(*(2.0,) * len(gradients), gradient=gradients))) == found


@pytest.mark.parametrize(
    ("last", "loss", "levels", "found"),
    [(800, 4.05, 17, True), (800, 3.5, 17, False), (400, 9.0, 17, False), (600, 9.0, 17, False), (800, 9.0, 0, False)],
)
def test_a_model_that_is_no_better_than_none(last, loss, levels, found):
    """A collapsed run would end with a number that any table of 17 equal probabilities gives."""
    assert bool(nothing_learned(Window(last, loss, 1.0), levels, 1600)) == found


@pytest.mark.parametrize(("decay", "warmup"), [(0.9, False), (0.999, True), (0.9, True), (0.05, True), (0.0, False)])
@pytest.mark.parametrize("steps", [0, 1, 7, 400])
def test_the_share_is_a_product_of_decays(decay, warmup, steps):
    """The share would be that of another average than the one that is trained."""
    decays = [min(decay, (1 + n) / (10 + n)) if warmup else decay for n in range(steps)]
    assert initial_share(decay, warmup, steps) == pytest.approx(math.prod(decays), rel=1e-9)


@pytest.mark.parametrize("warmup", [False, True])
def test_the_share_is_that_of_training(tiny_model, warmup):
    """The average that training keeps would hold another share of its beginning."""
    update = Update(optax.sgd(1.0), 0.7, warmup)
    zeros = jax.tree.map(jnp.zeros_like, eqx.filter(tiny_model, eqx.is_inexact_array))
    state = initial_state(eqx.combine(zeros, tiny_model), update.optimizer, Objective())
    to_one = jax.tree.map(lambda zero: zero - 1.0, zeros)
    for gradient in (to_one, zeros, zeros):
        state = update.apply(state, gradient, state.objective)
    for leaf in jax.tree.leaves(state.ema):
        np.testing.assert_allclose(1 - leaf, initial_share(0.7, warmup, 3), rtol=1e-5)  # float32


def test_an_average_that_is_too_slow():
    """A short run would be reported by parameters that are those of its beginning, without a word."""
    assert "will be 100% those of the untrained model" in (slow_average(0.99999, False, 400) or "")
    assert slow_average(0.99999, False, 4_000_000) is None
    assert slow_average(0.999, True, 1600) is None
    assert slow_average(0.9999, False, 2) is None  # a recipe that is tried out
    message = slow_average(0.9999, False, 2000) or ""
    advised = float(message.partition("training.ema, to ")[2].split()[0])
    assert slow_average(advised, False, 2000) is None


@pytest.mark.parametrize(
    ("difference", "step", "share", "found"),
    [(0.1, 900, 0.0, True), (0.01, 900, 0.0, False), (0.1, 700, 0.0, False), (0.1, 900, 0.5, False)],
)
def test_an_average_that_is_worse_than_its_parameters(difference, step, share, found):
    """The reported model would be the worse of two, or an average that lags behind at first be called so."""
    assert bool(average_behind_raw(difference, 0.02, step, 1600, share)) == found
    assert average_behind_raw(-difference, 0.02, step, 1600, share) is None
    assert average_behind_raw(0.001, 1e-6, step, 1600, share) is None


LOSSES = [(100, 2.0), (200, 1.9), (300, 1.8)]


@pytest.mark.parametrize(
    ("held_out", "losses", "found"),
    [
        ([(100, 2.0), (200, 1.95), (300, 2.0)], LOSSES, True),
        ([(100, 2.0), (200, 1.95), (300, 1.96)], LOSSES, False),  # the noise of a curve
        ([(100, 2.0), (200, 1.95), (300, 2.0)], [(100, 2.0), (200, 1.9), (300, 1.95)], False),  # both rise
        ([(100, 2.0)], LOSSES, False),
        ([(10, 2.0), (300, 2.1)], LOSSES, False),  # no loss is known at the lowest
    ],
)
def test_held_out_images_that_part_from_training(held_out, losses, found):
    """A model that learns its images by heart would look like one that learns, or noise like overfitting."""
    assert bool(held_out_rises(held_out, losses)) == found


def test_labels_of_training_alone():
    """The bound of images without labels would be reported of a network that never saw one."""
    assert "network adm_unet is conditioned on the label of every training image" in (
        measured_without_labels("adm_unet") or ""
    )
    assert measured_without_labels(None) is None
