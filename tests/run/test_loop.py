# SPDX-License-Identifier: Apache-2.0
"""The training loop: grouping updates into dispatches, and numbers that are not finite."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from vdmkit.data.batches import batches
from vdmkit.errors import DataError, NonFiniteError
from vdmkit.losses import Elbo, LowDiscrepancy, Objective
from vdmkit.training import TrainState, Update
from vdmkit.training import loop as training_loop
from vdmkit.training.loop import Loop, means, next_multiple
from vdmkit.training.step import initial_state


@pytest.fixture
def loop(tiny_model, tiny_images, monkeypatch):
    """`loop(k)` returns the dispatches of a loop with k steps each, as numbers of updates; nothing is computed."""

    def step(inputs, state):
        return TrainState(state.model, state.ema, state.opt_state, state.step + 1, state.objective), {
            "bpd": jnp.zeros(1)
        }

    def steps(inputs, state):
        n = inputs[1]["image"].shape[0]
        return TrainState(state.model, state.ema, state.opt_state, state.step + n, state.objective), {
            "bpd": jnp.zeros(n)
        }

    monkeypatch.setattr(training_loop, "train_step", step)
    monkeypatch.setattr(training_loop, "train_steps", steps)
    update = Update(optax.sgd(0.1), 0.9, False)
    state = initial_state(tiny_model, update.optimizer, Objective(LowDiscrepancy(), Elbo(), 0))

    def dispatches(k, last, intervals, start=0):
        of = Loop(update, batches(tiny_images, batch_size=4, seed=0), jax.random.key(0), 4, k)
        begin = TrainState(state.model, state.ema, state.opt_state, jnp.asarray(start), state.objective)
        found = []
        for new, step, metrics in of.updates(begin, last, intervals):
            assert int(new.step) == step
            found.append((step, len(metrics["bpd"])))
        return found

    return dispatches


@pytest.mark.costly
@pytest.mark.parametrize(
    ("k", "intervals"), [(1, (100,)), (3, (100, 7)), (4, (6, 10, 0, 0)), (10, (1,)), (10, (4, 20))]
)
def test_which_updates_share_a_dispatch_depends_on_the_step_alone(loop, k, intervals):
    """The grouping of updates into dispatches depends on the step only, so a resumed run rounds the same."""
    whole = loop(k, 30, intervals)
    assert [step for step, _ in whole][-1] == 30
    assert sum(n for _, n in whole) == 30
    assert {n for _, n in whole} <= {1, k}
    ends = {step for step, _ in whole}
    assert ends >= {step for step in range(1, 31) if any(n and step % n == 0 for n in intervals)}
    for start in ends:  # a run is saved, and so resumed, at the end of a dispatch
        assert loop(k, 30, intervals, start) == [(step, n) for step, n in whole if step > start]


def test_long_dispatches_are_used_where_they_fit(loop):
    """Updates are grouped into dispatches of k wherever no interval ends inside."""
    short = [(21, 1), (22, 1), (23, 1), (24, 1), (25, 1)]
    assert loop(10, 25, (20,)) == [(10, 10), (20, 10), *short]
    # A run that is extended returns to the dispatches of a run that was as long from the start.
    assert loop(10, 40, (20,), start=25)[-2:] == [(30, 1), (40, 10)]


def test_a_cpu_gets_single_steps(loop):
    """By default a CPU gets single steps, because a convolution inside a scan is 16 times slower there."""
    assert jax.default_backend() != "cpu" or loop(0, 3, (100,)) == [(1, 1), (2, 1), (3, 1)]


def test_two_dispatches_wait_on_the_device(loop, monkeypatch):
    """At most two dispatches are queued on the device."""
    done = []
    monkeypatch.setattr(jax, "block_until_ready", lambda metrics: done.append(metrics))
    loop(1, 5, (100,))
    assert len(done) == 3


def test_a_batch_that_devices_cannot_share(loop, monkeypatch):
    """A batch size that is not a multiple of the number of devices is refused."""
    monkeypatch.setattr(jax, "device_count", lambda: 3)
    with pytest.raises(DataError, match=r"training\.batch_size = 4 does not divide over 3 devices.*multiple of 3"):
        loop(1, 3, (100,))


@pytest.mark.parametrize(
    ("step", "intervals", "expected"), [(0, (5,), 5), (4, (5, 3), 5), (5, (5, 3), 6), (6, (0, 4), 8)]
)
def test_next_multiple(step, intervals, expected):
    """`next_multiple` is the next step at which any of the intervals ends; 0 means no interval."""
    assert next_multiple(step, *intervals) == expected


def metrics(**terms):
    """Returns the metrics of two dispatches of two updates each, all ones except for `terms`."""
    names = ("bpd", "diffusion", "gradient", "prior", "reconstruction")
    values = {name: np.ones(4) for name in names} | {name: np.asarray(values, float) for name, values in terms.items()}
    return [{name: jnp.asarray(v[half]) for name, v in values.items()} for half in (slice(0, 2), slice(2, 4))]


def test_means():
    """Logged values are means over all updates since the last log."""
    assert means(metrics(bpd=[1, 2, 3, 6]), 20)["bpd"] == 3.0


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ({"reconstruction": [1, 1, np.nan, 1]}, "the reconstruction term was not finite at step 19"),
        ({"diffusion": [1, 1, 1, np.inf], "prior": [1, np.nan, 1, 1]}, "the prior term was not finite at step 18"),
        ({"gradient": [np.nan, 1, 1, 1]}, "the gradient term was not finite at step 17"),
    ],
)
def test_the_first_number_that_is_not_finite_is_named(terms, message):
    """The error for a non-finite number names the first step and term."""
    first = min(int(np.argmin(np.isfinite(values))) for values in terms.values())
    spoiled = [1.0] * first + [np.nan] * (4 - first)  # the total and the gradient are not finite either
    with pytest.raises(NonFiniteError, match=message):
        means(metrics(**{"bpd": spoiled, "gradient": spoiled} | terms), 20)


@pytest.mark.costly
def test_the_steady_state_compiles_nothing(tiny_model, tiny_images, caplog):
    """Nothing is compiled after the first step."""
    update = Update(optax.sgd(0.1), 0.9, False)
    state = initial_state(jax.tree.map(jnp.copy, tiny_model), update.optimizer, Objective(LowDiscrepancy(), Elbo(), 0))
    of = Loop(update, batches(tiny_images, batch_size=4, seed=0), jax.random.key(0), 4, 1)
    updates = of.updates(state, 6, (100,))
    next(updates)
    with jax.log_compiles():
        assert [step for _, step, _ in updates] == [2, 3, 4, 5, 6]
        assert "Compiling" not in caplog.text
        jax.jit(lambda x: x + 1)(jnp.zeros(3))
        assert "Compiling" in caplog.text
