# SPDX-License-Identifier: Apache-2.0
"""The variational bound of a test set: every image once, each with the same number of stratified draws."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray, Real

from vdmkit.errors import DataError, NonFiniteError, RecipeError
from vdmkit.kernel import AbstractKernel, GaussianKernel
from vdmkit.model import DiffusionModel
from vdmkit.noise import AbstractGrid, UniformInTime, steps_of_bound
from vdmkit.objective import Bound, Steps, eps_error, prior_loss, reconstruction_loss, step_end
from vdmkit.randomness import fold_purpose

PAPERS, EVEN = GaussianKernel(), UniformInTime()
_ROUNDING = 1e-3  # nats of a dimension


def bound_of_images(
    model: DiffusionModel,
    pixels: Real[np.ndarray, "n h w c"],
    *,
    draws: int,
    steps: int,
    kernel: AbstractKernel = PAPERS,
    grid: AbstractGrid = EVEN,
    batch_size: int,
    key: PRNGKeyArray,
    on_draw: Callable[[], object] = lambda: None,
    stop: Callable[[], bool] = lambda: False,
) -> Bound:
    """Two independent unbiased estimates of each image's bound, nats: each term has shape (2, n).

    Each estimate averages draws / 2 evenly spaced gammas, or steps, behind one uniform draw, with fresh noise at each.
    The draws belong to the image's index, so the result does not depend on the batch size.

    Args:
        draws: per image, an even number.
        steps: 0 for the continuous-time bound, else T, of this `kernel` and `grid`.
        on_draw: called after every batch and draw, for a progress bar.
        stop: asked after every batch; when it says so, n is the number of images done by then, at least 2:
            a random sample of the test set, in its order.

    Raises:
        RecipeError: `draws` is odd, the steps are too long for float32, or they are not of all the bound.
        DataError: fewer than two images.
        NonFiniteError: names the image and the term.
    """
    if draws < 2 or draws % 2:
        raise RecipeError(f"evaluation.draws = {draws}: expected an even number, for two estimates of each image.")
    check_count(pixels)
    cut = Steps(steps, kernel, grid) if steps else None
    if cut:
        check_rounding(steps_of_bound(grid, model.schedule, steps))
    # In an order of chance, so that a pass that is stopped is a random sample even of a sorted test set.
    order = np.random.default_rng(0).permutation(len(pixels))
    parts, done = [], 0
    for start in range(0, len(pixels), batch_size):
        index = np.resize(order[start : start + batch_size], min(batch_size, len(pixels)))  # one shape, one compilation
        sums = [
            _sum_of_draws(model, pixels[index], index, replicate, draws // 2, cut, key, on_draw) for replicate in (0, 1)
        ]
        parts.append(jax.tree.map(lambda *values: np.stack(values) / (draws // 2), *sums))
        done = min(start + batch_size, len(pixels))
        if stop() and done > 1:
            break
    places = np.argsort(order[:done])
    bound = jax.tree.map(lambda *values: np.concatenate(values, axis=1)[:, places], *parts)
    _check_finite(bound)
    return bound


def check_rounding(gamma: Float[np.ndarray, " steps_plus_1"]) -> None:
    """Raises RecipeError if in T steps the rounding of eps - eps_hat, times expm1(gamma_t - gamma_s), would be seen."""
    nats = np.expm1(np.diff(gamma)).sum() / 2 * float(jnp.finfo(jnp.zeros(()).dtype).eps) ** 2  # of each dimension
    if not nats < _ROUNDING:
        raise RecipeError(
            f"T = {len(gamma) - 1} steps from gamma = {gamma[0]:g} to {gamma[-1]:g} cannot be told from rounding in "
            f"{jnp.zeros(()).dtype}. Take more steps, or JAX_ENABLE_X64=1."
        )


def check_count(pixels: Real[np.ndarray, "n h w c"]) -> None:
    """Raises DataError if there are too few test images for an interval."""
    if len(pixels) < 2:
        raise DataError(f"{len(pixels)} image(s) to test on: an interval needs at least 2. Give more.")


def _sum_of_draws(
    model: DiffusionModel,
    images: Real[np.ndarray, "b h w c"],
    index: Int[np.ndarray, " b"],
    replicate: int,
    strata: int,
    cut: Steps | None,
    key: PRNGKeyArray,
    on_draw: Callable[[], object],
) -> Bound:
    total = Bound(*(np.zeros(len(images)) for _ in range(3)))
    for k in range(strata):
        place = jnp.asarray([replicate, k]), jnp.asarray(strata, float)  # an array: one compilation for all numbers
        draw = _one_draw(model, jnp.asarray(images), jnp.asarray(index), *place, key, cut)
        total = jax.tree.map(lambda a, b: a + np.asarray(b, np.float64), total, draw)
        on_draw()
    return total


@eqx.filter_jit
def _one_draw(
    model: DiffusionModel,
    images: Array,
    index: Array,
    draw: Array,
    strata: Float[Array, ""],
    key: PRNGKeyArray,
    cut: Steps | None,
) -> Bound:
    replicate, k = draw

    def one(image: Array, index: Array) -> Bound:
        of_replicate = jax.random.fold_in(jax.random.fold_in(fold_purpose(key, "bound"), index), replicate)
        u = jax.random.uniform(fold_purpose(of_replicate, "time"), dtype=float)
        key_0, key_eps = jax.random.split(jax.random.fold_in(of_replicate, k))
        x = model.observation.encode(image)
        eps_0, eps = (jax.random.normal(k, x.shape, x.dtype) for k in (key_0, key_eps))
        of_kernel = fold_purpose(jax.random.fold_in(of_replicate, k), "kernel")
        diffusion = _diffusion(model, x, (u + k) / strata, eps, cut, of_kernel)
        return Bound(prior_loss(model, x), reconstruction_loss(model, image, eps_0), diffusion)

    return jax.vmap(one)(images, index)


def _diffusion(
    model: DiffusionModel, x: Array, u: Array, eps: Array, cut: Steps | None, key: PRNGKeyArray
) -> Float[Array, ""]:
    """At the step, or the gamma, of u, uniform on [0, 1).

    In continuous time evenly over gamma: between its ends a schedule changes the variance only, and draws even in t
    would all but never meet the tails of one that passes them fast.
    """
    if cut:
        noise = cut.noise_level(model.schedule, step_end(u, cut.count))
        return cut.loss(model, x, noise, eps, {}, key=key)
    gamma_0, gamma_1 = model.schedule(jnp.zeros_like(u)), model.schedule(jnp.ones_like(u))
    return 0.5 * (gamma_1 - gamma_0) * eps_error(model, x, gamma_0 + (gamma_1 - gamma_0) * u, eps, {})


def _check_finite(bound: Bound) -> None:
    for term in ("prior", "reconstruction", "diffusion"):
        values: Float[np.ndarray, "2 n"] = getattr(bound, term)
        if not np.isfinite(values).all():
            image = int(np.argwhere(~np.isfinite(values))[0, 1])
            raise NonFiniteError(f"the {term} term of test image {image} is not finite: no bound is reported.")
