# SPDX-License-Identifier: Apache-2.0
r"""The importance-weighted bound of the T-step model: -log P(x) <= E[-log 1/K sum_k w_k] (Burda et al. 2016).

    w = p(x | z_0) p(z_1) / q(z_1 | x) prod p(z_s | z_t) / q(z_s | z_t, x),   z_1, ..., z_0 drawn from q

Along such a chain z_t = alpha_t x + sigma_t eps_t, and with n ~ N(0, I) and Delta = gamma_t - gamma_s

    eps_s                                = exp(-Delta / 2) eps_t + sqrt(1 - exp(-Delta)) n
    log p(z_s | z_t) / q(z_s | z_t, x)   = -n . delta - |delta|^2 / 2,   delta = sqrt(expm1(Delta)) (eps_hat - eps_t)
"""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key, PRNGKeyArray, Real
from scipy.special import logsumexp

from vdmkit.errors import RecipeError
from vdmkit.likelihood._bound import check_rounding
from vdmkit.likelihood._estimator import AbstractEstimator, Estimates
from vdmkit.limits import Draws, Steps
from vdmkit.model import DiffusionModel
from vdmkit.noise import diffuse, gammas_of
from vdmkit.randomness import fold_purpose
from vdmkit.registry import register

_STEPS_OF_A_CONTINUOUS_MODEL = 100


@register("estimator", "importance")
class ImportanceWeighted(AbstractEstimator[None]):
    """The K-sample importance-weighted bound of the T-step model; K = 1 is its variational bound.

    Args:
        samples: K.
        draws: how many such bounds are averaged for an estimate.
        steps: T. Left out, what the model was trained on, or 100 if that is continuous time.
    """

    samples: int = eqx.field(static=True)
    draws: int = eqx.field(static=True)
    steps: int = eqx.field(static=True)

    def __init__(
        self,
        trained_steps: int,
        *,
        samples: Draws = 8,
        draws: Draws = 1,
        steps: Steps | None = None,
    ):
        self.samples, self.draws = samples, draws
        self.steps = steps or trained_steps or _STEPS_OF_A_CONTINUOUS_MODEL

    def describe(self) -> str:
        return f"importance-weighted bound, {self.samples} samples, T = {self.steps} steps"

    def plan(
        self, model: DiffusionModel, images: Real[np.ndarray, "n h w c"], *, precision: float, key: PRNGKeyArray
    ) -> None:
        check_rounding(np.asarray(gammas_of(model.schedule, self.steps), np.float64))
        if precision:
            raise RecipeError(
                "the importance estimator cannot plan for a precision. "
                "Leave --precision out and set likelihood.estimator.draws."
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
        on_round: Callable[[], object] = lambda: None,
    ) -> Estimates:
        keys = _chain_keys(index, jnp.asarray(replicate), self.draws * self.samples, key)
        gamma = gammas_of(model.schedule, self.steps)[::-1]
        eps, log_weight = _start(model, images, gamma[0], keys)
        total = np.asarray(log_weight, np.float64)
        for i in range(self.steps):
            eps, log_weight = _step(model, images, gamma[i], gamma[i + 1], eps, keys, jnp.asarray(i))
            total = total + np.asarray(log_weight, np.float64)
            on_round()
        total = total + np.asarray(_end(model, images, eps), np.float64)
        bounds = np.log(self.samples) - logsumexp(total.reshape(-1, self.draws, self.samples), axis=2)
        evaluations = np.full(len(images), self.draws * self.samples * self.steps)
        return Estimates({"importance": bounds.mean(1)}, evaluations, np.zeros(len(images), bool))


@eqx.filter_jit
def _chain_keys(index: Array, replicate: Array, samples: int, key: PRNGKeyArray) -> Key[Array, "b k"]:
    """One key for each image and sample, (b, k)."""

    def of_image(i: Array) -> Key[Array, " k"]:
        of_replicate = jax.random.fold_in(jax.random.fold_in(fold_purpose(key, "importance"), i), replicate)
        return jax.vmap(lambda k: jax.random.fold_in(of_replicate, k))(jnp.arange(samples))

    return jax.vmap(of_image)(index)


@eqx.filter_jit
def _start(
    model: DiffusionModel, images: Array, gamma_1: Array, keys: Key[Array, "b k"]
) -> tuple[Float[Array, "b k h w c"], Float[Array, "b k"]]:
    """eps of z_1 ~ q(z_1 | x), and log p(z_1) - log q(z_1 | x)."""

    def one(image: Array, key: PRNGKeyArray) -> tuple[Array, Array]:
        x = model.observation.encode(image)
        eps = jax.random.normal(fold_purpose(key, "start"), x.shape, x.dtype)
        z_1 = diffuse(model.path, gamma_1, x, eps) / model.path.scale(gamma_1)
        return eps, 0.5 * (eps**2 - z_1**2 - jax.nn.softplus(-gamma_1)).sum()

    return jax.vmap(lambda image, keys: jax.vmap(lambda key: one(image, key))(keys))(images, keys)


@eqx.filter_jit
def _step(
    model: DiffusionModel, images: Array, gamma_t: Array, gamma_s: Array, eps: Array, keys: Key[Array, "b k"], i: Array
) -> tuple[Float[Array, "b k h w c"], Float[Array, "b k"]]:
    """eps of z_s, and log p(z_s | z_t) - log q(z_s | z_t, x)."""

    def one(image: Array, eps_t: Array, key: PRNGKeyArray) -> tuple[Array, Array]:
        z_t = diffuse(model.path, gamma_t, model.observation.encode(image), eps_t)
        n = jax.random.normal(jax.random.fold_in(fold_purpose(key, "step"), i), eps_t.shape, eps_t.dtype)
        delta = jnp.sqrt(jnp.expm1(gamma_t - gamma_s)) * (model.denoise(z_t, gamma_t, {}).eps_hat - eps_t)
        eps_s = jnp.exp((gamma_s - gamma_t) / 2) * eps_t + jnp.sqrt(-jnp.expm1(gamma_s - gamma_t)) * n
        return eps_s, -(n * delta + delta**2 / 2).sum()

    return jax.vmap(lambda image, e, k: jax.vmap(lambda e, k: one(image, e, k))(e, k))(images, eps, keys)


@eqx.filter_jit
def _end(model: DiffusionModel, images: Array, eps: Array) -> Float[Array, "b k"]:
    """log p(x | z_0), where z_0 / alpha_0 = x + exp(gamma_0 / 2) eps."""
    gamma_0 = model.schedule(jnp.zeros(()))

    def one(image: Array, eps_0: Array) -> Array:
        x = model.observation.encode(image)
        z_0 = x + jnp.exp(gamma_0 / 2) * eps_0
        return model.observation.log_prob(image, z_0, gamma_0, lambda: model.x_hat(z_0, gamma_0))

    return jax.vmap(lambda image, e: jax.vmap(lambda e: one(image, e))(e))(images, eps)
