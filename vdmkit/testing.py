# SPDX-License-Identifier: Apache-2.0
"""What every component of a kind must do. The author of a new one runs these; vdmkit's own pass them.

Each raises ConformanceError with what was found against what was expected.
"""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vdmkit.denoiser import AbstractDirection, AbstractPrediction, Estimate
from vdmkit.errors import ConformanceError
from vdmkit.networks import AbstractNetwork
from vdmkit.noise import (
    AbstractGrid,
    AbstractPath,
    AbstractSchedule,
    StraightLine,
    VarianceExploding,
    VariancePreserving,
    check_increasing,
    diffuse,
    ends_of,
    gamma_and_derivative,
)
from vdmkit.objective import AbstractTimes, AbstractWeighting
from vdmkit.observation import AbstractObservation
from vdmkit.sampling import AbstractSampler, Past, no_past

_GAMMAS = (-13.0, -5.0, 0.0, 5.0)


def check_schedule(schedule: AbstractSchedule) -> None:
    """gamma rises from gamma_min to gamma_max, and is the integral of its derivative.

    The ends may be off by float32 rounding, or by 1e-3 where the schedule has parameters, which training moves anyway.
    """
    check_increasing(schedule)
    learns = any(map(eqx.is_inexact_array, jax.tree.leaves(schedule)))
    with jax.enable_x64(True):
        ends = ends_of(schedule)
        for name, found, wanted in zip(("gamma_min", "gamma_max"), ends, _limits(schedule), strict=True):
            near = abs(found - wanted) < (1e-3 if learns else 1e-6 * (1 + abs(wanted)))
            _expect(near, f"{name} = {wanted:g}, but gamma is {found:g} there")
        slope = jax.vmap(lambda t: gamma_and_derivative(schedule, t)[1])(jnp.linspace(0.01, 0.99, 99))
        _expect(bool((slope > 0).all()), "gamma' is not above 0 everywhere")


def check_path(path: AbstractPath) -> None:
    """alpha > 0, and sigma^2 / alpha^2 = exp(gamma)."""
    with jax.enable_x64(True):
        for gamma in map(jnp.asarray, _GAMMAS):
            alpha, sigma = path.alpha(gamma), path.sigma(gamma)
            _expect(0 < float(alpha) < np.inf, f"alpha = {float(alpha):g} at gamma = {float(gamma):g}")
            found = 2 * jnp.log(sigma / alpha)
            _expect(_near(found, gamma, 1e-9), f"log sigma^2 / alpha^2 = {float(found):g} at gamma = {float(gamma):g}")
            _expect(_near(path.scale(gamma), jnp.hypot(alpha, sigma), 1e-9), "scale is not sqrt(alpha^2 + sigma^2)")


def check_prediction(prediction: AbstractPrediction, shape: tuple[int, int, int]) -> None:
    """alpha x_hat + sigma eps_hat = z on any path, and probabilities of levels sum to 1.

    Of a direction besides: from a x + b eps it gives x and eps back, the same on any path.
    """
    with jax.enable_x64(True):
        key_output, key_x, key_eps = jax.random.split(jax.random.key(0), 3)
        output = jax.random.normal(key_output, (*shape, prediction.outputs), dtype=float)
        x, eps = (jax.random.normal(key, shape, dtype=float) for key in (key_x, key_eps))
        for gamma in map(jnp.asarray, _GAMMAS):
            for path in (VariancePreserving(), VarianceExploding(), StraightLine()):
                z = diffuse(path, gamma, x, eps)
                estimate = prediction(output, z, gamma, path)
                again = diffuse(path, gamma, estimate.x_hat, estimate.eps_hat)
                _expect(_near(again, z, 1e-9), f"alpha x_hat + sigma eps_hat is not z at gamma = {float(gamma):g}")
                _check_probabilities(estimate)
                if isinstance(prediction, AbstractDirection):
                    _check_direction(prediction, x, eps, gamma, path)


def check_weighting(weighting: AbstractWeighting) -> None:
    """w >= 0 is finite."""
    for gamma in _GAMMAS:
        weight = float(weighting(jnp.asarray(gamma), jnp.asarray(10.0)))
        _expect(0 <= weight < np.inf, f"w = {weight:g} at gamma = {gamma:g}")


def check_times(times: AbstractTimes) -> None:
    """Times lie in [0, 1), and weighted means of 1, t and t^2 are integrals, within 5 standard errors of 400 draws.

    Also after losses that are uneven: times may learn, but not become biased.
    """
    _check_unbiased(times)
    t, _ = times(64, key=jax.random.key(1))
    for _ in range(3):
        times = times.after(t, 1 + 100 * t**4)
    _check_unbiased(times)


def _check_unbiased(times: AbstractTimes) -> None:
    draws = [times(64, key=key) for key in jax.random.split(jax.random.key(0), 400)]
    t, weight = (np.stack([np.asarray(part, np.float64) for part in parts]) for parts in zip(*draws, strict=True))
    _expect(bool((t >= 0).all() and (t < 1).all()), f"times from {t.min():g} to {t.max():g}: expected [0, 1)")
    for power in range(3):
        means = (weight * t**power).mean(1)
        off = abs(means.mean() - 1 / (power + 1))
        limit = 5 * means.std() / np.sqrt(len(means)) + 1e-6
        _expect(off < limit, f"the weighted mean of t^{power} is {means.mean():g}: expected {1 / (power + 1):g}")


def check_grid(grid: AbstractGrid, schedule: AbstractSchedule, steps: int) -> None:
    """steps + 1 gammas fall from gamma_1 to gamma_0."""
    gammas, (gamma_0, gamma_1) = np.asarray(grid(schedule, steps), np.float64), ends_of(schedule)
    _expect(gammas.shape == (steps + 1,), f"{steps} steps give {gammas.shape} gammas: expected {steps + 1}")
    _expect(bool((np.diff(gammas) < 0).all()), "the gammas do not fall")
    _expect(abs(gammas[0] - gamma_1) < 1e-3 and abs(gammas[-1] - gamma_0) < 1e-3, "the ends are not the schedule's")


def check_sampler(sampler: AbstractSampler) -> None:
    """With a denoiser that knows the image, chains that end at gamma = -inf give it, whatever the noise.

    After steps of 0.1 in gamma what is left of the noise is as large as gamma says. A quarter more or less is allowed:
    a method of first order is off by a part of each step.
    """
    gammas = jnp.append(jnp.linspace(3.0, -12.0, 151), -jnp.inf)
    left = _noise_left(sampler, gammas)
    _expect(_near(left[-1], 0.0, 1e-2), f"the chain ends {float(abs(left[-1]).max()):g} away from the only image")
    for noise, gamma in zip(left[:-1], gammas[1:-1], strict=True):
        times = float(jnp.sqrt((noise**2).mean()) / jnp.exp(gamma / 2))
        _expect(0.8 < times < 1.25, f"the noise is {times:.3g} times as large as it should be at gamma = {gamma:.1f}")


def _noise_left(sampler: AbstractSampler, gammas: Float[Array, " n"]) -> list[Float[Array, "chains 2 2 1"]]:
    """y minus the image after each step of 1,024 chains."""
    shape, image = (2, 2, 1), jnp.arange(4.0).reshape(2, 2, 1) / 4

    def denoise(y: Float[Array, "h w c"], gamma: Float[Array, ""]) -> Estimate:
        return Estimate(image, (y - image) / jnp.exp(gamma / 2))

    @jax.jit
    def step(y: Array, past: Past, key: Array, gamma_t: Array, gamma_s: Array) -> tuple[Array, Past]:
        def one(y: Array, past: Past, noise: Array) -> tuple[Array, Past]:
            y, estimate = sampler.step(denoise, y, gamma_t, gamma_s, past, noise)
            return y, past.then(estimate, gamma_t)

        return jax.vmap(one)(y, past, jax.random.normal(key, (len(y), sampler.noises, *shape)))

    key, *keys = jax.random.split(jax.random.key(0), len(gammas))
    y, left = image + jnp.exp(gammas[0] / 2) * jax.random.normal(key, (1024, *shape)), []
    past = jax.vmap(lambda _: no_past(shape, jnp.asarray(len(keys))))(y)
    for i in range(len(keys)):
        y, past = step(y, past, keys[i], gammas[i], gammas[i + 1])
        left.append(y - image)
    return left


def check_network(build: Callable[[int], AbstractNetwork], shape: tuple[int, int, int]) -> None:
    """`build(outputs)` gives a network whose output is finite, of shape (h, w, c, outputs), and the same again."""
    for outputs in (1, 3):
        network, z = build(outputs), jax.random.normal(jax.random.key(0), shape)
        first, again = (network(z, jnp.asarray(0.0), {}, key=None) for _ in range(2))
        _expect(first.shape == (*shape, outputs), f"output of shape {first.shape}: expected {(*shape, outputs)}")
        _expect(bool(jnp.isfinite(first).all()), "the output is not finite")
        _expect(bool((first == again).all()), "without a key the output is not the same again")


def check_observation(observation: AbstractObservation) -> None:
    """Probabilities of the levels of one pixel sum to at most 1, and the decoder gives an image back."""
    levels = observation.levels
    _expect(levels > 0, "continuous: nothing to check here")
    image, gamma = jnp.full((1, 1, 1), levels // 2, jnp.uint8), jnp.asarray(-9.0)
    z_0 = observation.encode(image)
    every = jnp.arange(levels).astype(jnp.uint8).reshape(-1, 1, 1, 1)
    total = float(jnp.exp(jax.vmap(lambda x: observation.log_prob(x, z_0, gamma, lambda: z_0))(every)).sum())
    _expect(total < 1 + 1e-4, f"the probabilities of {levels} levels sum to {total:g}")
    _expect(
        bool((observation.decode(z_0, gamma, lambda: z_0) == image).all()),
        "an image that is encoded is not decoded again",
    )


def _check_direction(
    prediction: AbstractDirection,
    x: Float[Array, "h w c"],
    eps: Float[Array, "h w c"],
    gamma: Array,
    path: AbstractPath,
) -> None:
    a, b = prediction.direction(gamma, path)
    estimate = prediction((a * x + b * eps)[..., None], diffuse(path, gamma, x, eps), gamma, path)
    # Digits are lost where one of x and eps is a small part of z.
    exact = _near(estimate.x_hat, x, 1e-7) and _near(estimate.eps_hat, eps, 1e-7)
    _expect(exact, f"of a x + b eps it does not give x and eps back at gamma = {float(gamma):g}")


def _check_probabilities(estimate: Estimate) -> None:
    if estimate.log_probs is not None:
        total = jnp.exp(estimate.log_probs).sum(-1)
        _expect(_near(total, 1.0, 1e-6), f"p(x given z) sums to {float(total.max()):g}")


def _limits(schedule: AbstractSchedule) -> tuple[float, float]:
    return schedule.gamma_min, schedule.gamma_max


def _near(found: Array, wanted: Array | float, tolerance: float) -> bool:
    return bool(jnp.max(jnp.abs(found - wanted)) < tolerance * (1 + jnp.max(jnp.abs(jnp.asarray(wanted)))))


def _expect(holds: bool | np.bool_, otherwise: str) -> None:
    if not holds:
        raise ConformanceError(f"{otherwise}.")
