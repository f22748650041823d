# SPDX-License-Identifier: Apache-2.0
"""The importance-weighted bound of the T-step model: -log P(x) <= E[-log 1/K sum_k w_k] (Burda et al. 2016).

    w = p(x | z_0) p(z_1) / q(z_1 | x) prod p(z_s | z_t) / q(z_s | z_t, x),   z_1, ..., z_0 drawn from q

p(z_s | z_t) is the kernel. Along such a chain z_t = alpha_t x + sigma_t eps_t, and with n ~ N(0, I)

    eps_s = exp((gamma_s - gamma_t) / 2) eps_t + sqrt(c) n,   c = 1 - exp(gamma_s - gamma_t)
"""

from collections.abc import Callable, Iterator

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import scipy
from jaxtyping import Array, Float, Int, Key, PRNGKeyArray, Real

from vdmkit.arguments import Draws, Steps
from vdmkit.data.sources import Pixels
from vdmkit.devices import in_flight
from vdmkit.errors import RecipeError
from vdmkit.likelihood.estimator import (
    EVEN_IN_TIME,
    NOTHING,
    PAPERS_KERNEL,
    AbstractEstimator,
    Estimates,
    Grid,
    Kernel,
    check_rounding,
    describe_steps,
    kernel_and_grid,
)
from vdmkit.model import DiffusionModel
from vdmkit.networks.network import Condition, Conditions
from vdmkit.process import AbstractGrid, diffuse, steps_of_bound
from vdmkit.randomness import fold_purpose, fold_replicate
from vdmkit.registry import built, register
from vdmkit.reverse import AbstractKernel, part_of_noise
from vdmkit.schedules import AbstractSchedule

_STEPS_OF_A_CONTINUOUS_MODEL = 100


@register("estimator", "importance")
class ImportanceWeighted(AbstractEstimator[None]):
    """The K-sample importance-weighted bound of the T-step model; K = 1 is its variational bound.

    Args:
        samples: Number K of importance samples.
        draws: Number of independent K-sample bounds averaged in an estimate.
        steps: Number T of steps; by default that of training, or 100 if the model was trained in continuous time.
        kernel: Reverse kernel p(z_s | z_t); by default that of training if it has this T or learned variances, else the
            paper's.
        grid: Gammas of the steps; by default those of training if it has this T, else the paper's.
    """

    samples: int = eqx.field(static=True)
    draws: int = eqx.field(static=True)
    steps: int = eqx.field(static=True)
    kernel: AbstractKernel
    grid: AbstractGrid
    words: str = eqx.field(static=True)

    def __init__(
        self,
        trained_steps: int = 0,
        trained_kernel: Kernel = PAPERS_KERNEL,
        trained_grid: Grid = EVEN_IN_TIME,
        *,
        samples: Draws = 8,
        draws: Draws = 1,
        steps: Steps | None = None,
        kernel: Kernel | None = None,
        grid: Grid | None = None,
    ):
        self.samples, self.draws = samples, draws
        self.steps = steps or trained_steps or _STEPS_OF_A_CONTINUOUS_MODEL
        kernel, grid = kernel_and_grid(self.steps, (kernel, grid), trained_steps, (trained_kernel, trained_grid))
        self.kernel, self.grid = built(kernel), built(grid)
        self.words = f"importance-weighted bound, {samples} samples, {describe_steps(self.steps, kernel, grid)}"

    def describe(self, levels: int) -> str:
        return self.words

    def gammas(self, schedule: AbstractSchedule) -> Float[np.ndarray, " steps_plus_1"]:
        """Returns the increasing gammas of the steps.

        Raises:
            RecipeError: as `steps_of_bound` does.
        """
        return steps_of_bound(self.grid, schedule, self.steps)

    def plan(
        self,
        model: DiffusionModel,
        images: Pixels,
        *,
        precision: float,
        key: PRNGKeyArray,
        condition: Conditions = NOTHING,
    ) -> None:
        check_rounding(self.gammas(model.schedule))
        if precision:
            raise RecipeError(
                "the importance estimator cannot plan for a precision. "
                "Omit --precision and set likelihood.estimator.draws."
            )

    def rounds(self, plan: None) -> int:
        return self.steps

    def __call__(
        self,
        model: DiffusionModel,
        images: Real[Array, "b h w c"],
        index: Int[Array, " b"],
        plan: None,
        *,
        replicate: int,
        key: PRNGKeyArray,
        condition: Conditions = NOTHING,
        on_round: Callable[[], object] = lambda: None,
    ) -> Estimates:
        keys = _chain_keys(index, jnp.asarray(replicate), self.draws * self.samples, key)
        total = np.zeros(keys.shape)
        for number, log_weight in enumerate(in_flight(self._log_weights(model, images, condition, keys))):
            total = total + np.asarray(log_weight, np.float64)
            if 1 <= number <= self.steps:
                on_round()
        bounds = np.log(self.samples) - scipy.special.logsumexp(total.reshape(-1, self.draws, self.samples), axis=2)
        evaluations = np.full(len(images), self.draws * self.samples * self.steps)
        return Estimates({"importance": bounds.mean(1)}, evaluations, np.zeros(len(images), bool))

    def _log_weights(
        self, model: DiffusionModel, images: Array, condition: Conditions, keys: Key[Array, "b k"]
    ) -> Iterator[Float[Array, "b k"]]:
        """Yields the log weights of the start, of every step, and of the image given z_0."""
        gamma = jnp.asarray(self.gammas(model.schedule)[::-1], float)
        eps, log_weight = _start(model, images, gamma[0], keys)
        yield log_weight
        for i in range(self.steps):
            ends = gamma[i], gamma[i + 1]
            eps, log_weight = _step(model, self.kernel, images, condition, *ends, eps, keys, jnp.asarray(i))
            yield log_weight
        yield _end(model, images, condition, gamma[-1], eps)


@eqx.filter_jit
def _chain_keys(index: Array, replicate: Array, samples: int, key: PRNGKeyArray) -> Key[Array, "b k"]:
    """Returns a key for each image and sample, (b, k)."""

    def of_image(i: Array) -> Key[Array, " k"]:
        of_replicate = fold_replicate(key, "importance", i, replicate)
        return jax.vmap(lambda k: jax.random.fold_in(of_replicate, k))(jnp.arange(samples))

    return jax.vmap(of_image)(index)


@eqx.filter_jit
def _start(
    model: DiffusionModel, images: Array, gamma_1: Array, keys: Key[Array, "b k"]
) -> tuple[Float[Array, "b k h w c"], Float[Array, "b k"]]:
    """Draws z_1 ~ q(z_1 | x); returns its eps, and log p(z_1) - log q(z_1 | x)."""

    def one(image: Array, key: PRNGKeyArray) -> tuple[Array, Array]:
        x = model.observation.encode(image)
        eps = jax.random.normal(fold_purpose(key, "start"), x.shape, x.dtype)
        z_1 = diffuse(model.path, gamma_1, x, eps) / model.path.scale(gamma_1)
        return eps, 0.5 * (eps**2 - z_1**2 - jax.nn.softplus(-gamma_1)).sum()

    return jax.vmap(lambda image, keys: jax.vmap(lambda key: one(image, key))(keys))(images, keys)


@eqx.filter_jit
def _step(
    model: DiffusionModel,
    kernel: AbstractKernel,
    images: Array,
    condition: Conditions,
    gamma_t: Array,
    gamma_s: Array,
    eps: Array,
    keys: Key[Array, "b k"],
    i: Array,
) -> tuple[Float[Array, "b k h w c"], Float[Array, "b k"]]:
    """Draws z_s; returns its eps, and log p(z_s | z_t) - log q(z_s | z_t, x)."""

    def one(image: Array, conditioned: DiffusionModel, eps_t: Array, key: PRNGKeyArray) -> tuple[Array, Array]:
        x = model.observation.encode(image)
        estimate = conditioned.denoise(diffuse(model.path, gamma_t, x, eps_t), gamma_t, {})
        n = jax.random.normal(jax.random.fold_in(fold_purpose(key, "step"), i), eps_t.shape, eps_t.dtype)
        eps_s = jnp.exp((gamma_s - gamma_t) / 2) * eps_t + jnp.sqrt(part_of_noise(gamma_t, gamma_s)) * n
        return eps_s, kernel.log_ratio(estimate, x, eps_t, n, gamma_t, gamma_s).sum()

    def of_image(image: Array, condition: Condition, eps: Array, keys: Array) -> tuple[Array, Array]:
        conditioned = model.given(condition)
        return jax.vmap(lambda e, k: one(image, conditioned, e, k))(eps, keys)

    return jax.vmap(of_image)(images, condition, eps, keys)


@eqx.filter_jit
def _end(
    model: DiffusionModel, images: Array, condition: Conditions, gamma_0: Array, eps: Array
) -> Float[Array, "b k"]:
    """Returns log p(x | z_0), where z_0 / alpha_0 = x + exp(gamma_0 / 2) eps."""

    def one(image: Array, conditioned: DiffusionModel, eps_0: Array) -> Array:
        x = model.observation.encode(image)
        z_0 = x + jnp.exp(gamma_0 / 2) * eps_0
        return model.observation.log_prob(image, z_0, gamma_0, lambda: conditioned.estimate(z_0, gamma_0))

    def of_image(image: Array, condition: Condition, eps: Array) -> Array:
        conditioned = model.given(condition)
        return jax.vmap(lambda e: one(image, conditioned, e))(eps)

    return jax.vmap(of_image)(images, condition, eps)
