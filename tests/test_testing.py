# SPDX-License-Identifier: Apache-2.0
"""The conformance kit: vdmkit's own components pass it, and broken ones do not."""

import subprocess
import sys
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

from vdmkit.choice import Choice
from vdmkit.denoiser import Eps, Estimate, X, solve_direction
from vdmkit.distribution import GaussianMixture
from vdmkit.errors import ConformanceError, RecipeError
from vdmkit.networks import AbstractNetwork
from vdmkit.noise import AbstractGrid, AbstractPath, AbstractSchedule, FixedLinear
from vdmkit.objective import AbstractTimes, AbstractWeighting
from vdmkit.plugins import load_plugins
from vdmkit.registry import registry
from vdmkit.sampling import Ancestral
from vdmkit.testing import (
    check_grid,
    check_network,
    check_observation,
    check_path,
    check_prediction,
    check_sampler,
    check_schedule,
    check_times,
    check_weighting,
)

SHAPE = (8, 8, 1)
CONTEXT = {
    "key": jax.random.key(0, impl="rbg"),
    "shape": SHAPE,
    "levels": 17,
    "level_counts": jnp.ones((*SHAPE, 17), jnp.int32),
    "distribution": GaussianMixture(SHAPE, (1.0,), ((0.0,) * 64,), ((0.5,) * 64,)),
    "classes": 10,
    "gamma_range": (-8.0, 5.0),
}


def every(kind: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("name", sorted(registry(kind).components))


def build(kind: str, name: str, *, outputs: int = 1, **params):
    return registry(kind).get(name).build({**CONTEXT, "outputs": outputs}, **params)


@every("schedule")
def test_schedules(name):
    """A registered schedule would not be one."""
    check_schedule(build("schedule", name))


@every("path")
def test_paths(name):
    """A registered path would have another SNR than exp(-gamma)."""
    check_path(build("path", name))


@every("prediction")
def test_predictions(name):
    """x_hat and eps_hat of a registered prediction would contradict z."""
    check_prediction(build("prediction", name), SHAPE)


@every("weighting")
def test_weightings(name):
    """A registered weighting would be negative, or infinite."""
    check_weighting(build("weighting", name))


@every("times")
def test_times(name):
    """Registered times would bias the loss."""
    check_times(build("times", name))


@every("grid")
def test_grids(name):
    """A registered grid would leave out an end, or rise."""
    params = {"gammas": (5.0, -13.3)} if name == "gammas" else {}
    check_grid(build("grid", name, **params), FixedLinear(), 1 if name in ("tabulated", "gammas") else 7)


@every("sampler")
def test_samplers(name):
    """A chain of a registered sampler would not end at what the denoiser knows."""
    check_sampler(build("sampler", name))


def test_plugins_are_tested_whatever_is_run():
    """Tests that run over a registry would leave out installed plugins, unless some other file were run with them."""
    load_plugins()
    files = [Path(__file__).parent / "theory" / name for name in ("test_orders.py", "test_schedules.py")]
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *map(str, files)]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    registered = [name for kind in ("sampler", "schedule") for name in registry(kind).components]
    assert all(f"[{name}]" in found for name in registered if name != "ode")  # which has a test of its own


# One output is all that `translated` is about: tests/theory/test_translated.py.
@pytest.mark.parametrize("name", sorted(set(registry("network").components) - {"translated"}))
def test_networks(name):
    """A registered network would not give what its prediction asks for."""
    around = {"network": Choice("network", "small_unet", {"channels": 8})}
    small = {"vdm_unet": {"channels": 32, "blocks": 1}, "labelled": around}.get(name, {})  # compile in seconds
    check_network(lambda outputs: build("network", name, outputs=outputs, **small), SHAPE)


@pytest.mark.parametrize("name", sorted(set(registry("observation").components) - {"gaussian"}))
def test_observations(name):
    """A registered decoder would give more than probability 1."""
    check_observation(build("observation", name))


class _Falling(AbstractSchedule):
    gamma_min: float = -1.0
    gamma_max: float = 1.0

    def __call__(self, t):
        return 1 - 2 * t


class _ElsewhereEnding(AbstractSchedule):
    gamma_min: float = -1.0
    gamma_max: float = 2.0

    def __call__(self, t):
        return 2 * t - 1


class _NearlyEnding(AbstractSchedule):
    """Without parameters, and 0.009 off."""

    gamma_min: float = -1.0
    gamma_max: float = 1.009

    def __call__(self, t):
        return 2 * t - 1


class _OtherSigma(AbstractPath):
    def log_alpha(self, gamma):
        return jnp.zeros_like(gamma)

    def sigma(self, gamma):
        return jnp.exp(gamma)


class _Half(Eps):
    """eps_hat of half the size."""

    def __call__(self, output, z, gamma, path):
        estimate = super().__call__(output, z, gamma, path)
        return Estimate(estimate.x_hat, estimate.eps_hat / 2)


class _Parallel(Eps):
    """A direction that is z's own on the variance exploding path, from which nothing is learnt there."""

    def direction(self, gamma, path):
        return jnp.ones_like(gamma), jnp.exp(gamma / 2)


class _Other(X):
    """Reads its output as the data, and says that it is -x."""

    def direction(self, gamma, path):
        return -jnp.ones_like(gamma), jnp.zeros_like(gamma)

    def __call__(self, output, z, gamma, path):
        return solve_direction(output[..., 0], z, (jnp.ones(()), jnp.zeros(())), gamma, path)


class _Negative(AbstractWeighting):
    def __call__(self, gamma, rate):
        return -jnp.ones_like(gamma)


class _Early(AbstractTimes):
    """Twice as often in the first half, and without weights."""

    def __call__(self, n, *, key):
        return jax.random.uniform(key, (n,)) ** 2, jnp.ones(n)


class _Short(AbstractGrid):
    def __call__(self, schedule, steps):
        return jnp.linspace(5.0, -13.3, steps)


class _TooSmall(Ancestral):
    """Steps of half the size."""

    def step(self, denoise, y_t, gamma_t, gamma_s, past, noise):
        y_s, estimate = super().step(denoise, y_t, gamma_t, gamma_s, past, noise)
        return (y_t + y_s) / 2, estimate


class _Noise(Ancestral):
    """Nothing but noise, until the last step."""

    def step(self, denoise, y_t, gamma_t, gamma_s, past, noise):
        estimate = denoise(y_t, gamma_t)
        return jnp.where(jnp.isneginf(gamma_s), estimate.x_hat, 1000 * noise[0]), estimate


class _Quiet(Ancestral):
    """Half of the noise, which the last step hides."""

    def step(self, denoise, y_t, gamma_t, gamma_s, past, noise):
        return super().step(denoise, y_t, gamma_t, gamma_s, past, noise / 2)


class _Flat(AbstractNetwork):
    outputs: int = eqx.field(static=True)

    def __call__(self, z, gamma, condition, *, key=None):
        return z


BROKEN = {
    "_ElsewhereEnding": (lambda: check_schedule(_ElsewhereEnding()), "gamma_max = 2, but gamma is 1 there"),
    "_NearlyEnding": (lambda: check_schedule(_NearlyEnding()), "gamma_max = 1.009, but gamma is 1 there"),
    "_OtherSigma": (lambda: check_path(_OtherSigma()), r"log sigma\^2 / alpha\^2"),
    "_Half": (lambda: check_prediction(_Half(), SHAPE), "alpha x_hat \\+ sigma eps_hat is not z"),
    "_Parallel": (lambda: check_prediction(_Parallel(), SHAPE), "alpha x_hat \\+ sigma eps_hat is not z"),
    "_Other": (lambda: check_prediction(_Other(), SHAPE), "of a x \\+ b eps it does not give x and eps back"),
    "_Negative": (lambda: check_weighting(_Negative()), "w = -1"),
    "_Early": (lambda: check_times(_Early()), r"the weighted mean of t\^1 is 0.33"),
    "_Short": (lambda: check_grid(_Short(), FixedLinear(), 7), r"7 steps give \(7,\) gammas: expected 8"),
    "_TooSmall": (lambda: check_sampler(_TooSmall()), "the chain ends .* away from the only image"),
    "_Noise": (lambda: check_sampler(_Noise()), "the noise is .* times as large as it should be at gamma = 2.9"),
    "_Quiet": (lambda: check_sampler(_Quiet()), "the noise is .* times as large as it should be"),
    "_Flat": (lambda: check_network(_Flat, SHAPE), r"output of shape \(8, 8, 1\): expected \(8, 8, 1, 1\)"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_components_are_told_why(name):
    """An author whose component is wrong would be told that it is right, or not why."""
    check, message = BROKEN[name]
    with pytest.raises(ConformanceError, match=message):
        check()


def test_a_falling_schedule_is_told_why():
    """A schedule that runs from noise to data would pass."""
    with pytest.raises(RecipeError, match="does not rise"):
        check_schedule(_Falling())
