# SPDX-License-Identifier: Apache-2.0
"""Checks of all components other than networks, predictions, decoders, estimators and reverse kernels.

- Schedules, noise embeddings, paths and grids.
- Weightings and time samplers of the training loss.
- Optimisers, on a quadratic bowl.
- Samplers, with a denoiser that returns the true image.
- Data sources and augmentations.
- Importers, on the arrays of a checkpoint.
"""

from itertools import pairwise
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PRNGKeyArray, Real

from vdmkit.conformance.checking import compiled_fast, expect, in_float64, near
from vdmkit.data.batches import AbstractAugmentation
from vdmkit.data.sources import AbstractSource, Images, Split, blocks, hash_and_range, pixel_sha256
from vdmkit.errors import CheckpointError
from vdmkit.importers.formats import Arrays, Weights
from vdmkit.importers.loader import AbstractImporter, Config, described, state_of
from vdmkit.losses.time_samplers import AbstractTimeSampler
from vdmkit.losses.weightings import AbstractWeighting
from vdmkit.networks.noise_embedding import AbstractNoiseEmbedding
from vdmkit.predictions import Estimate
from vdmkit.process import AbstractGrid, AbstractPath, Image
from vdmkit.sampling.sampler import AbstractSampler, History, no_history
from vdmkit.schedules import AbstractSchedule, Scalar, check_increasing, ends_of, gamma_and_derivative

Scales = tuple[Float[Any, "*n"], Float[Any, "*n"], Float[Any, "*n"], Float[Any, "*n"]]
"""alpha, sigma, scale and log_alpha of a path."""
GAMMAS = (-13.0, -5.0, 0.0, 5.0)
_END = 1e-3  # tolerance of gamma at an end, larger than float32 rounding
_ROUNDING = 1e-8  # rounding of gamma in float64


def check_schedule(schedule: AbstractSchedule) -> None:
    """Checks that gamma increases from gamma_min to gamma_max and is the integral of its derivative.

    The tolerance of the ends is float32 rounding, or 1e-3 if the schedule has parameters, which training changes
    anyway.

    Raises:
        ConformanceError: an end differs, or gamma' is not positive.
        RecipeError: gamma does not increase, or jumps.
    """
    check_increasing(schedule)
    learns = any(map(eqx.is_inexact_array, jax.tree.leaves(schedule)))
    with jax.enable_x64(True):
        wanted = schedule.gamma_min, schedule.gamma_max
        for name, found, end in zip(("gamma_min", "gamma_max"), ends_of(schedule), wanted, strict=True):
            off = abs(found - end)
            expect(off < (_END if learns else 1e-6 * (1 + abs(end))), f"{name} = {end:g}, but gamma is {found:g} there")
        slope = jax.jit(jax.vmap(lambda t: gamma_and_derivative(schedule, t)[1]))(jnp.linspace(0.01, 0.99, 99))
        expect(bool((np.asarray(slope) > 0).all()), "gamma' is not above 0 everywhere")


def check_noise_embedding(embedding: AbstractNoiseEmbedding) -> None:
    """Checks that a noise embedding is finite and increases with gamma, in float32 and float64.

    Raises:
        ConformanceError: one of these does not hold, or its type differs from that of gamma.
    """
    _check_values(embedding)
    with jax.enable_x64(True):
        _check_values(embedding)


def _check_values(embedding: AbstractNoiseEmbedding) -> None:
    gammas = jnp.asarray(GAMMAS, float)
    labels = jax.jit(jax.vmap(embedding))(gammas)
    expect(labels.shape == gammas.shape, f"a label of shape {labels.shape[1:]}: expected a number")
    expect(labels.dtype == gammas.dtype, f"a label of type {labels.dtype} for gamma of type {gammas.dtype}")
    found = ", ".join(f"{label:g}" for label in np.asarray(labels))
    expect(bool(np.isfinite(labels).all()), f"labels {found} are not finite")
    expect(bool((np.diff(labels) > 0).all()), f"labels {found} at gamma = {GAMMAS} do not rise")


def check_path(path: AbstractPath) -> None:
    """Checks alpha > 0, sigma / alpha = exp(gamma / 2), scale^2 = alpha^2 + sigma^2 and log_alpha = log alpha.

    Raises:
        ConformanceError: one of these does not hold.
    """
    check_scales(path, GAMMAS)


def check_scales(path: AbstractPath, gammas: tuple[float, ...]) -> None:
    """Runs `check_path` at these gammas, in float32 and float64, and checks the derivative of log_alpha.

    Raises:
        ConformanceError: a check fails at one of the gammas.
    """
    _check_scales(_scales_and_slopes(path, jnp.asarray(gammas, float))[0], gammas, tolerance=1e-4)
    with jax.enable_x64(True):
        scales, slope, quotient = jax.tree.map(np.asarray, _scales_and_slopes(path, jnp.asarray(gammas, float)))
    _check_scales(scales, gammas, tolerance=1e-8)
    worst = int(abs(slope - quotient).argmax())
    expect(
        near(slope, quotient, 1e-6),
        f"the derivative of log alpha by JAX is {slope[worst]:.4g} at gamma = {gammas[worst]:.4g}, and its difference "
        f"quotient {quotient[worst]:.4g}",
    )


def _check_scales(scales: Scales, gammas: tuple[float, ...], *, tolerance: float) -> None:
    wide = (np.asarray(values, np.float64) for values in scales)
    for gamma, a, s, both, log_a in zip(gammas, *wide, strict=True):
        expect(0 < a < np.inf, f"alpha = {a:g} at gamma = {gamma:g}")
        found = 2 * np.log(s / a) if s > 0 else np.nan
        expect(near(found, gamma, tolerance), f"log sigma^2 / alpha^2 = {found:g} at gamma = {gamma:g}")
        expect(near(both / np.hypot(a, s), 1.0, tolerance), "scale is not sqrt(alpha^2 + sigma^2)")
        expect(near(log_a, np.log(a), tolerance), f"log alpha is {log_a:g}, and alpha {a:g}, at gamma = {gamma:g}")


def scales_at(path: AbstractPath, gamma: Scalar) -> Scales:
    """Returns the scales at one gamma."""
    return path.alpha(gamma), path.sigma(gamma), path.scale(gamma), path.log_alpha(gamma)


@compiled_fast
def _scales_and_slopes(path: AbstractPath, gammas: Float[Array, " n"]) -> tuple[Scales, Array, Array]:
    """Returns, at each gamma, the scales and d log_alpha / dgamma by JAX and by central differences."""
    h = 1e-4
    quotient = lambda g: (path.log_alpha(g + h) - path.log_alpha(g - h)) / (2 * h)  # noqa: E731
    return jax.vmap(lambda g: (scales_at(path, g), jax.grad(path.log_alpha)(g), quotient(g)))(gammas)


def check_grid(grid: AbstractGrid, schedule: AbstractSchedule, steps: int) -> None:
    """Checks that steps + 1 gammas decrease from gamma_1 to gamma_0, and that `ends_of_step` agrees with them.

    This uses float64, where one of ten thousand steps is much larger than rounding; rounding errors would add up in a
    bound.

    Raises:
        ConformanceError: one of these does not hold.
    """
    with jax.enable_x64(True):
        wide, of_time = in_float64((grid, schedule))
        gammas, ends = np.asarray(compiled_fast(wide)(of_time, steps), np.float64), ends_of(of_time)
        expect(gammas.shape == (steps + 1,), f"{steps} steps give {gammas.shape} gammas: expected {steps + 1}")
        found = np.asarray(_ends_of_steps(wide, of_time, steps), np.float64)
    widths = -np.diff(gammas)
    expect(bool((widths > -_ROUNDING).all()), "the gammas do not fall")
    off = abs(gammas[[-1, 0]] - ends).max()
    reach = f"they go from {gammas[0]:g} to {gammas[-1]:g}, and the schedule from {ends[1]:g} to {ends[0]:g}"
    expect(off < 1e-4, f"the ends are not the schedule's: {reach}")
    off = abs(found - np.stack([gammas[-2::-1], gammas[:0:-1]])).max(0)
    worst = int((off / (widths[::-1] + _ROUNDING)).argmax())
    width = widths[::-1][worst]
    expect(
        off[worst] <= 1e-3 * width + _ROUNDING,
        f"a step asked for by its time has gammas {off[worst]:.3g} off the grid's, where the step is of {width:.3g}",
    )


@compiled_fast
def _ends_of_steps(grid: AbstractGrid, schedule: AbstractSchedule, steps: int) -> Float[Array, "2 steps"]:
    """Returns gamma_t and gamma_s of every step, from the cleanest to the noisiest."""
    of_time = jax.vmap(lambda t: jnp.stack(grid.ends_of_step(schedule, t, steps)), out_axes=1)
    return of_time(jnp.arange(1, steps + 1) / steps)


def gammas_between(schedule: AbstractSchedule) -> tuple[float, ...]:
    """Returns gammas from end to end, with irregular inner values that a component cannot special-case by accident."""
    gamma_0, gamma_1 = ends_of(schedule)
    inner = gamma_0 + (gamma_1 - gamma_0) * (np.arange(64) + np.random.default_rng(2).random(64)) / 64
    return (gamma_0, *map(float, inner), gamma_1)


_DRAWS, _BATCH, _PARTS = 400, 64, 10
_WEIGHT_ROUNDING = 1e-6


def check_weighting(weighting: AbstractWeighting, gammas: tuple[float, ...] = GAMMAS) -> None:
    """Checks that w is finite and w >= 0.

    Raises:
        ConformanceError: the check fails at one of `gammas`.
    """
    for gamma, weight in zip(gammas, np.asarray(_weights(weighting, jnp.asarray(gammas, float))), strict=True):
        expect(0 <= weight < np.inf, f"w = {weight:g} at gamma = {gamma:g}")


@compiled_fast
def _weights(weighting: AbstractWeighting, gammas: Float[Array, " n"]) -> Float[Array, " n"]:
    return jax.vmap(lambda gamma: weighting(gamma, jnp.asarray(10.0, gamma.dtype)))(gammas)


def check_time_sampler(sampler: AbstractTimeSampler) -> None:
    """Checks that times lie in [0, 1) and that weighted means of 1, t and t^2 are unbiased.

    The tolerance is 5 standard errors of 400 draws. The check is repeated after uneven losses, because a sampler that
    learns must stay unbiased.

    Raises:
        ConformanceError: a time is outside [0, 1), or a mean is biased.
    """
    _check_unbiased(sampler)
    t = _draws(sampler, jax.random.key(1))[0][0]
    for _ in range(3):
        sampler = sampler.after(t, 1 + 100 * t**4)
    _check_unbiased(sampler)


def _check_unbiased(sampler: AbstractTimeSampler) -> None:
    t, weight = (np.asarray(part, np.float64) for part in _draws(sampler, jax.random.key(0)))
    expect(bool((t >= 0).all() and (t < 1).all()), f"times from {t.min():g} to {t.max():g}: expected [0, 1)")
    expect(bool((weight >= 0).all()), f"a weight is {weight.min():g}: expected 0 or more")
    _check_spread(t, weight)
    midpoints = 1 / (12 * len(np.unique(t)) ** 2)  # error of the midpoint rule for the mean of t^2
    for power in range(3):
        means = (weight * t**power).mean(1)
        off = abs(means.mean() - 1 / (power + 1))
        limit = 5 * means.std() / np.sqrt(len(means)) + midpoints + _WEIGHT_ROUNDING
        expect(off < limit, f"the weighted mean of t^{power} is {means.mean():g}: expected {1 / (power + 1):g}")


def _check_spread(t: Float[np.ndarray, "draws n"], weight: Float[np.ndarray, "draws n"]) -> None:
    """Checks that the weighted fraction of times in each part of [0, 1] is right.

    If only few distinct times are drawn, they must be the midpoints of equal parts.
    """
    distinct = np.unique(t)
    if len(distinct) < _PARTS**2:
        midpoints = (np.arange(len(distinct)) + 0.5) / len(distinct)
        off = abs(distinct - midpoints).max()
        expect(off < 1e-5, f"only {len(distinct)} times are drawn, {off:.3g} off the midpoints of equal parts")
        return
    shares = np.stack([(weight * ((t * _PARTS).astype(int) == part)).mean(1) for part in range(_PARTS)])
    off = abs(shares.mean(1) - 1 / _PARTS)
    limit = 5 * shares.std(1) / np.sqrt(shares.shape[1]) + 1e-2 / _PARTS
    worst = int((off / limit).argmax())
    expect(
        off[worst] < limit[worst],
        f"the weighted share of times from {worst / _PARTS:g} to {(worst + 1) / _PARTS:g} is "
        f"{shares[worst].mean():.4g}: expected {1 / _PARTS:g}",
    )


@compiled_fast
def _draws(sampler: AbstractTimeSampler, key: PRNGKeyArray) -> tuple[Float[Array, "draws n"], Float[Array, "draws n"]]:
    return jax.vmap(lambda key: sampler(_BATCH, key=key))(jax.random.split(key, _DRAWS))


_STEPS = 20


def check_optimizer(optimizer: optax.GradientTransformation) -> None:
    """Checks that the optimiser descends a quadratic bowl from an outer point, and that its state keeps its shapes.

    Updates that are not finite are not checked here, because training refuses them and reports the step.

    Raises:
        ConformanceError: the parameters move uphill, or an update or the state changes its structure.
    """
    params = {"kernel": jnp.linspace(1.0, 2.0, 4), "bias": jnp.ones(2)}
    state, before = optimizer.init(params), jax.tree.map(np.asarray, params)
    shapes, update = jax.tree.map(jnp.shape, state), jax.jit(optimizer.update)
    for _ in range(_STEPS):
        grads = jax.tree.map(lambda p: p, params)  # gradients of |p|^2 / 2
        updates, state = update(grads, state, params)
        expect(
            jax.tree.structure(updates) == jax.tree.structure(params),
            "its updates do not have the structure of the parameters",
        )
        params = optax.apply_updates(params, updates)
    expect(jax.tree.map(jnp.shape, state) == shapes, "its state changes its shapes from step to step")
    moves = zip(*map(jax.tree.leaves, (before, params)), strict=True)
    rise = sum(float((start * (np.asarray(end) - start)).sum()) for start, end in moves)
    expect(not rise > 0, f"it climbs: in {_STEPS} steps parameters move by {rise:.3g} along the gradient of a bowl")


_SHAPE, _CHAINS = (2, 2, 1), 1024
_IMAGE = np.arange(4.0).reshape(_SHAPE) / 4


def check_sampler(sampler: AbstractSampler) -> None:
    """Checks a sampler with a denoiser that returns the true image: chains that end at gamma = -inf must return it.

    After steps of 0.1 in gamma the remaining noise must agree with gamma within a quarter, because a first-order
    method has an error in each step.

    Raises:
        ConformanceError: a chain does not end at the image, or its noise does not agree with gamma on the way.
    """
    gammas = np.append(np.linspace(3.0, -12.0, 151), -np.inf)
    left = _noise_left(sampler, gammas)
    off = float(abs(left[-1]).max())
    expect(near(left[-1], 0.0, 1e-2), f"the chain ends {off:g} away from the only image")
    for noise, gamma in zip(left[:-1], gammas[1:-1], strict=True):
        times = float(np.sqrt((noise**2).mean()) / np.exp(gamma / 2))
        expect(0.8 < times < 1.25, f"the noise is {times:.3g} times as large as it should be at gamma = {gamma:.1f}")


def _noise_left(sampler: AbstractSampler, gammas: Float[np.ndarray, " n"]) -> list[Float[np.ndarray, "chains 2 2 1"]]:
    """Returns y minus the image after each step of 1,024 chains."""
    dtype, rng = jnp.zeros(()).dtype, np.random.default_rng(0)
    draw = lambda *shape: rng.standard_normal((_CHAINS, *shape, *_SHAPE)).astype(dtype)  # noqa: E731
    gammas, left = gammas.astype(dtype, copy=False), []
    y = _IMAGE.astype(dtype) + np.exp(gammas[0] / 2) * draw()
    history = _start(np.full(_CHAINS, len(gammas) - 1, np.int32))
    for gamma_t, gamma_s in pairwise(gammas):
        y, history = _step(sampler, y, history, gamma_t, gamma_s, draw(sampler.noise_draws))
        left.append(np.asarray(y, np.float64) - _IMAGE)
    return left


@compiled_fast
def _start(steps: Any) -> History:
    return jax.vmap(lambda steps: no_history(_SHAPE, steps))(steps)


@compiled_fast
def _step(
    sampler: AbstractSampler, y: Any, history: History, gamma_t: Any, gamma_s: Any, noise: Any
) -> tuple[Array, History]:
    image = jnp.asarray(_IMAGE, float)

    def denoise(y: Image, gamma: Scalar) -> Estimate:
        # with the image known, the variance of a step is the smallest
        return Estimate(image, (y - image) / jnp.exp(gamma / 2), variance_share=jnp.zeros_like(y))

    def one(y: Array, history: History, noise: Array) -> tuple[Array, History]:
        y, estimate = sampler.step(denoise, y, gamma_t, gamma_s, history, noise)
        return y, history.then(estimate, gamma_t)

    return jax.vmap(one)(y, history, noise)


def check_data(source: AbstractSource) -> None:
    """Checks that both splits have the source's shape and levels and their own identities, and load identically twice.

    Raises:
        ConformanceError: one of these does not hold.
        DataError: the data are missing or damaged.
    """
    for split in ("train", "test"):
        check_images(source, source.load(split))
    check_loads_again(source, source.load("test"))


def check_images(source: AbstractSource, images: Images) -> None:
    """Checks that loaded images agree with their source and their identity.

    Raises:
        ConformanceError: they do not agree.
    """
    check_identity(source, images)
    identity, where = images.identity, images.identity.split
    named, (found, *ends) = identity.sha256, hash_and_range(blocks(images.pixels))
    expect(found == named, f"identity of {where} names pixels {named[:12]}, and these are {found[:12]}")
    low, high = ends
    expect((low, high) == (identity.low, identity.high), f"identity of {where} does not go from {low:g} to {high:g}")


def check_identity(source: AbstractSource, images: Images) -> None:
    """Checks what does not need the pixels: shape, levels, number of images, and labels.

    Raises:
        ConformanceError: they do not agree with the source or the identity.
    """
    pixels, identity, where = images.pixels, images.identity, images.identity.split
    shape, levels = pixels.shape[1:], images.levels
    expect(shape == tuple(source.shape), f"images of {where} have shape {shape}, and the source says {source.shape}")
    expect(levels == source.levels, f"images of {where} have {levels} levels, and the source says {source.levels}")
    expect(identity.count == len(pixels), f"identity of {where} counts {identity.count} images of {len(pixels)}")
    if levels:
        expect(identity.high < levels, f"a value of {where} is {identity.high:g}, and there are {levels} levels")
    if images.labels is not None:
        low, high = int(np.min(images.labels)), int(np.max(images.labels))
        expect(low >= 0 and high < source.classes, f"labels of {where} go from {low} to {high} of {source.classes}")


def check_loads_again(source: AbstractSource, images: Images) -> None:
    """Checks that the split loads again with the same pixels and labels in the same order.

    Raises:
        ConformanceError: the pixels or labels differ.
    """
    split: Split = "train" if images.identity.split == "train" else "test"
    again = source.load(split)
    found = pixel_sha256(again.pixels)
    expect(found == images.identity.sha256, f"{split} loads with other pixels, or another order, a second time")
    same = again.labels is images.labels or np.array_equal(np.asarray(again.labels), np.asarray(images.labels))
    expect(bool(same), f"{split} loads with other labels a second time")


def check_augmentation(augmentation: AbstractAugmentation, pixels: Real[np.ndarray, "n h w c"], levels: int) -> None:
    """Checks that every transformation keeps shape, dtype and levels, acts on each image alone, and is deterministic.

    Raises:
        ConformanceError: one of these does not hold.
        DataError: no transformation applies to images of this shape.
    """
    for number, move in enumerate(augmentation.moves(pixels.shape[1:])):
        before, moved = pixels.copy(), np.asarray(move(pixels))
        name = f"move {number}"
        expect(bool((pixels == before).all()), f"{name} changes the images that it is given")
        expect(moved.shape == pixels.shape, f"{name} makes images of shape {moved.shape[1:]} of {pixels.shape[1:]}")
        expect(moved.dtype == pixels.dtype, f"{name} makes {moved.dtype} of {pixels.dtype}")
        highest = float(moved.max())
        expect(not levels or highest < levels, f"{name} makes a value {highest:g} of images of {levels} levels")
        expect(bool((np.asarray(move(pixels)) == moved).all()), f"{name} moves the same images otherwise a second time")
        alone = np.concatenate([np.asarray(move(one[None])) for one in pixels])
        expect(bool((alone == moved).all()), f"{name} moves an image otherwise by itself than among others")


def check_importer(importer: AbstractImporter, arrays: Arrays, config: Config) -> None:
    """Checks that the configuration is a recipe whose model takes exactly the arrays of the checkpoint.

    Raises:
        ConformanceError: an estimate of the model is not finite, or `filled` ignores an array that the model lacks.
        VdmkitError: the recipe is not valid, or its model does not take the arrays.
    """
    made = described(importer, config, "arrays")
    model = state_of(Path("arrays"), importer, made, Weights("", dict(arrays)), config).ema_model
    estimate = model.denoise(jnp.zeros(model.shape), 0.0)
    expect(bool(jnp.isfinite(estimate.x_hat).all()), "the imported model's estimate of an image is not finite")
    try:
        importer.filled(model, {**arrays, "an array of another model": jnp.zeros(1)}, config)  # pyright: ignore
    except CheckpointError:
        return
    expect(False, "it ignores an array that is not of its model, where a CheckpointError should name it")
