# SPDX-License-Identifier: Apache-2.0
"""Likelihoods by the probability-flow ODE of the model, with their discretisation error.

The flow of one image in gamma (Song et al. 2021, arXiv 2011.13456, section 4.3):

    dz/dgamma = (dlog alpha/dgamma) z + sigma/2 eps_hat(z; gamma)

    log p(z_0) = log p_1(z_1) + int_{gamma_0}^{gamma_1} div dgamma
           div = d dlog alpha/dgamma + sigma/2 div eps_hat

The first part of div is integrated in closed form, d (log alpha_1 - log alpha_0). As in the bound and in sampling,
p_1 = N(0, (alpha_1^2 + sigma_1^2) I), which depends on gamma_1 alone.

The divergence of a vector field f, tr J with J = df/dz, is a mean of v^T J v over probe vectors v. Any v with
E[v v^T] = I makes it unbiased (Hutchinson's estimator; Grathwohl et al. 2019, arXiv 1810.01367). With S the symmetric
part of J, one probe has variance 2 sum_{i != j} S_ij^2 (Rademacher) or 2 sum_ij S_ij^2 (Gaussian). The mean over the d
vectors sqrt(d) e_i is exactly tr J.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import scipy
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, Real

from vdmkit.arguments import Draws, SolverSteps, Steps, Tolerance
from vdmkit.data.sources import Pixels
from vdmkit.errors import RecipeError
from vdmkit.integrator import Integrator, SolverState, State
from vdmkit.likelihood.estimator import DEQUANTISATIONS, NOTHING, AbstractEstimator, Estimates
from vdmkit.model import DiffusionModel
from vdmkit.networks.network import Condition, Conditions
from vdmkit.process import Image
from vdmkit.randomness import fold_purpose
from vdmkit.registry import register
from vdmkit.schedules import Scalar


class Probes(eqx.Module):
    """The probes along one trajectory: `count` random vectors with entries +-1 or N(0, 1), or the d exact ones."""

    kind: Literal["exact", "rademacher", "gaussian"] = eqx.field(static=True)
    count: int = eqx.field(static=True)

    def __call__(self, shape: tuple[int, int, int], *, key: PRNGKeyArray) -> Float[Array, "p h w c"]:
        if self.kind == "exact":
            d = shape[0] * shape[1] * shape[2]
            return jnp.sqrt(float(d)) * jnp.eye(d).reshape(d, *shape)
        draw = jax.random.rademacher if self.kind == "rademacher" else jax.random.normal
        return draw(key, (self.count, *shape), dtype=float)

    def describe(self) -> str:
        """Describes the estimator of the divergence."""
        if self.kind == "exact":
            return "exact divergence"
        return f"hutchinson divergence with {self.count} {self.kind} probe{'s' * (self.count > 1)}"


def value_and_divergence(
    f: Callable[[Image], Image],
    z: Image,
    probes: Float[Array, "p h w c"],
) -> tuple[Image, Scalar]:
    """Returns f(z) and the mean of v^T J v over the probes, by one call of f and one JVP per probe."""

    def along(v: Image) -> tuple[Array, Array]:
        value, tangent = jax.jvp(f, (z,), (v,))
        return value, (v * tangent).sum()

    value, products = jax.vmap(along, out_axes=(None, 0))(probes)
    return value, products.mean()


class Transport(eqx.Module):
    """The end z_1 of the flow from z_0, and int div in nats. `calls` counts evaluations of the field."""

    z_1: Image
    volume: Scalar
    calls: Int[Array, ""]
    failed: Bool[Array, ""]


def transport(model: DiffusionModel, z_0: Image, probes: Float[Array, "p h w c"], integrator: Integrator) -> Transport:
    """Solves the flow from gamma_0 to gamma_1, with the same probes of the divergence throughout."""
    begun = init(model, z_0, probes, integrator)
    return finalize(model, step(model, begun, probes, integrator, integrator.most_steps), integrator)


def init(model: DiffusionModel, z_0: Image, probes: Float[Array, "p h w c"], integrator: Integrator) -> SolverState:
    """Returns the solver state at gamma_0."""
    return integrator.begin(_field, *_ends(model), (z_0, jnp.zeros((), z_0.dtype)), (model, probes))


def step(
    model: DiffusionModel, solve: SolverState, probes: Float[Array, "p h w c"], integrator: Integrator, steps: int
) -> SolverState:
    """Makes at most `steps` more steps of the solver."""
    return integrator.resume(_field, *_ends(model), solve, (model, probes), steps=steps)


def finalize(model: DiffusionModel, solve: SolverState, integrator: Integrator) -> Transport:
    """Returns the end of the flow; it has failed if the solver has not reached gamma_1, or a value is not finite."""
    z_1, mean_divergence = solve.state
    gamma_0, gamma_1 = _ends(model)
    linear = model.path.log_alpha(gamma_1) - model.path.log_alpha(gamma_0)
    finite = jnp.isfinite(z_1).all() & jnp.isfinite(mean_divergence)
    volume = z_1.size * (linear + mean_divergence)
    return Transport(z_1, volume, integrator.calls(solve.steps), ~(finite & solve.finished))


def _ends(model: DiffusionModel) -> tuple[Scalar, Scalar]:
    return model.schedule(jnp.zeros(())), model.schedule(jnp.ones(()))


def log_prior(model: DiffusionModel, z_1: Image) -> Scalar:
    """Returns log p_1(z_1) in nats, p_1 = N(0, (alpha_1^2 + sigma_1^2) I)."""
    gamma_1 = model.schedule(jnp.ones(()))
    scale = model.path.scale(gamma_1)
    return -((z_1 / scale) ** 2).sum() / 2 - z_1.size * (jnp.log(2 * jnp.pi) / 2 + jnp.log(scale))


def _field(gamma: Any, state: State, args: tuple[DiffusionModel, Float[Array, "p h w c"]]) -> State:
    (z, _), (model, probes) = state, args
    eps_hat, divergence = value_and_divergence(lambda z: model.denoise(z, gamma, {}).eps_hat, z, probes)
    half_sigma = model.path.sigma(gamma) / 2
    return jax.grad(model.path.log_alpha)(gamma) * z + half_sigma * eps_hat, half_sigma * divergence / z.size


_CONSTANT_STEPS = 100
_PARTS = 20  # updates of the progress bar between gamma_0 and gamma_1
_AT_ONCE = 8  # solver steps in a compiled call, between which the progress bar and Ctrl-C are handled


@register("estimator", "ode")
class ProbabilityFlow(AbstractEstimator[None]):
    """-log p(z_0) by the probability-flow ODE, for z_0 drawn in the image's bin (Zheng et al. 2023, arXiv 2305.03935).

    log P(x) >= E log 1/K sum_k p(z_0^k) / q(z_0^k | x), with K = `samples` (Burda et al. 2016, arXiv 1509.00519). An
    estimate is the mean of `draws` such values, each with its own z_0 and probes. It is a bound up to the error of the
    solver, see `discretisation_error`. P is the distribution of the flow, which differs from that of the variational
    bound. For continuous data the estimate is -log p(x) itself.

    By default `step_size` is constant if `solver_steps` is given, and adaptive otherwise; `dequantisation` is
    truncated normal, or none for continuous data.

    `evaluations` counts 1 + p calls of the network for an evaluation of the ODE with p probes, and 1 + d for the exact
    divergence, which computes d = h w c products in parallel and needs memory for all of them. It includes rejected
    steps, except for one evaluation if an image's first step is rejected.
    """

    integrator: Integrator
    probes: Probes
    dequantisation: str | None = eqx.field(static=True)
    samples: int = eqx.field(static=True)
    draws: int = eqx.field(static=True)

    def __init__(
        self,
        *,
        solver: str = "Tsit5",
        step_size: Literal["adaptive", "constant"] | None = None,
        rtol: Tolerance = 1e-5,
        atol: Tolerance = 1e-5,
        solver_steps: Steps | None = None,
        max_steps: SolverSteps = 4096,
        divergence: Literal["exact", "hutchinson"] = "hutchinson",
        probe: Literal["rademacher", "gaussian"] = "rademacher",
        probes: Draws = 1,
        dequantisation: Literal["uniform", "truncated_normal", "none"] | None = None,
        samples: Draws = 1,
        draws: Draws = 1,
    ):
        if solver_steps and step_size == "adaptive":
            raise RecipeError(
                f'likelihood.estimator.solver_steps = {solver_steps} with step_size = "adaptive": the tolerances '
                'choose the steps. Set step_size = "constant", or rtol and atol instead of solver_steps.'
            )
        fixed = (solver_steps or _CONSTANT_STEPS) if solver_steps or step_size == "constant" else 0
        self.integrator = Integrator(solver, jnp.asarray(rtol, float), jnp.asarray(atol, float), fixed, max_steps)
        self.probes = Probes("exact" if divergence == "exact" else probe, probes)
        self.dequantisation, self.samples, self.draws = dequantisation, samples, draws

    def __check_init__(self) -> None:
        if self.samples > 1 and self.probes.kind != "exact":
            raise RecipeError(
                f'likelihood.estimator.samples = {self.samples} with divergence = "hutchinson": the noise of the '
                "probes inside the logarithm would make the likelihood look higher than it is. "
                'Set divergence = "exact", or samples = 1 and draws.'
            )

    def check_levels(self, levels: int) -> None:
        if self.dequantisation and bool(levels) == (self.dequantisation == "none"):
            raise RecipeError(
                f'likelihood.estimator.dequantisation = "{self.dequantisation}" with {levels} levels: data with levels '
                'need "uniform" or "truncated_normal", and continuous data (0 levels) "none". Or omit it.'
            )
        if self.samples > 1 and not levels:
            raise RecipeError(f"likelihood.estimator.samples = {self.samples}: continuous data have nothing to sample.")

    def _dequantisation(self, levels: int) -> str:
        """Returns the kind of dequantization. Raises RecipeError as `check_levels` does."""
        self.check_levels(levels)
        return self.dequantisation or ("truncated_normal" if levels else "none")

    def describe(self, levels: int) -> str:
        solved = f"probability-flow ODE, {self.integrator.describe()}, {self.probes.describe()}"
        dequantisation = self._dequantisation(levels)
        if dequantisation == "none":
            return f"{solved}, at the data: -log p of the flow{self._draws()}"
        samples = f" with {self.samples} importance samples" if self.samples > 1 else ""
        how = f"{dequantisation.replace('_', ' ')} dequantisation{samples}"
        return f"{solved}, {how}{self._draws()}: a bound on -log P"

    def _draws(self) -> str:
        return f", mean of {self.draws} draws" if self.draws > 1 else ""

    def plan(
        self,
        model: DiffusionModel,
        images: Pixels,
        *,
        precision: float,
        key: PRNGKeyArray,
        condition: Conditions = NOTHING,
    ) -> None:
        if precision > 0:
            raise RecipeError(
                f"a precision of {precision:g} nats was asked for, but the ode estimator has no draws to allocate. "
                "Omit the precision and set likelihood.estimator.draws."
            )

    def rounds(self, plan: None) -> int:
        return self.draws * self.samples * _PARTS

    @property
    def images_solved_again(self) -> int:
        """Returns 64 with constant steps, which do not adapt to difficult images, and 4 with adaptive ones."""
        return 64 if self.integrator.steps else 4

    def discretisation_error(
        self,
        model: DiffusionModel,
        images: Real[Array, "b h w c"],
        index: Int[Array, " b"],
        *,
        key: PRNGKeyArray,
        condition: Conditions = NOTHING,
    ) -> tuple[Float[np.ndarray, " b"], int]:
        """Returns the estimate minus a finer one with the same draws: see `Integrator.refined`."""
        finer = eqx.tree_at(lambda e: e.integrator, self, self.integrator.refined())
        given = {"replicate": 0, "key": key, "condition": condition}
        coarse, fine = (e(model, images, index, None, **given) for e in (self, finer))
        failed = np.asarray(coarse.failed) | np.asarray(fine.failed)
        differences = np.where(failed, np.nan, np.asarray(coarse.nats) - np.asarray(fine.nats))
        return differences, int(np.sum(coarse.evaluations) + np.sum(fine.evaluations))

    def first_draw(
        self,
        model: DiffusionModel,
        images: Real[Array, "b h w c"],
        index: Int[Array, " b"],
        *,
        replicate: int,
        key: PRNGKeyArray,
    ) -> tuple[Float[Array, "b h w c"], Float[Array, "b p h w c"]]:
        """Returns z_0 and the probes of an estimate's first solve."""
        how = self.integrator, model, NOTHING, self.probes, self._dequantisation(model.observation.levels)
        solve, v, _ = _init(*how, images, index, jnp.asarray((replicate, 0, 0)), key)
        return solve.state[0], v

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
        # Not `self`, because other numbers of samples and draws would then recompile.
        how = (self.integrator, self.probes, self._dequantisation(model.observation.levels))

        def solve(*draw: int) -> Estimates:
            return _solve(*how, model, images, index, condition, jnp.asarray(draw), key, on_round)

        solves = [[solve(replicate, i, k) for k in range(self.samples)] for i in range(self.draws)]
        means = [row[0] if self.samples == 1 else _importance_weighted(row) for row in solves]
        return Estimates(
            jax.tree.map(lambda *values: sum(values) / self.draws, *(mean.terms for mean in means)),
            jnp.stack([one.evaluations for row in solves for one in row]).sum(0),
            jnp.stack([one.failed for row in solves for one in row]).any(0),
        )


def _solve(
    integrator: Integrator,
    probes: Probes,
    dequantisation: str,
    model: DiffusionModel,
    images: Array,
    index: Array,
    condition: Conditions,
    draw: Array,
    key: PRNGKeyArray,
    on_round: Callable[[], object],
) -> Estimates:
    of_flow = (integrator, model, condition)
    solve, v, log_q = _init(*of_flow, probes, dequantisation, images, index, draw, key)
    shown = 0
    while shown < _PARTS:
        way = float(_way_of(integrator, solve))
        if way < 1:
            solve = _step(*of_flow, solve, v)
        for _ in range(shown, int(_PARTS * way)):
            on_round()
        shown = int(_PARTS * way)
    return _finalize(*of_flow, solve, v, log_q)


# Under vmap each image has its own step sizes, so its result does not depend on the rest of the batch.


@eqx.filter_jit
def _init(
    integrator: Integrator,
    model: DiffusionModel,
    condition: Conditions,
    probes: Probes,
    dequantisation: str,
    images: Array,
    index: Array,
    draw: Array,
    key: PRNGKeyArray,
) -> tuple[SolverState, Array, Array]:
    def one(image: Array, index: Array, condition: Condition) -> tuple[SolverState, Array, Array]:
        conditioned = model.given(condition)
        of_draw = jax.random.fold_in(fold_purpose(key, "ode"), index)
        for number in draw:
            of_draw = jax.random.fold_in(of_draw, number)
        key_z, key_probes = jax.random.split(of_draw)
        z_0, log_q = DEQUANTISATIONS[dequantisation](conditioned, image, key_z)
        v = probes(model.shape, key=key_probes)
        return init(conditioned, z_0, v, integrator), v, log_q

    return jax.vmap(one)(images, index, condition)


@eqx.filter_jit
def _step(
    integrator: Integrator, model: DiffusionModel, condition: Conditions, solve: SolverState, v: Array
) -> SolverState:
    def one(solve: SolverState, v: Array, condition: Condition) -> SolverState:
        return step(model.given(condition), solve, v, integrator, min(integrator.most_steps, _AT_ONCE))

    return jax.vmap(one)(solve, v, condition)


@eqx.filter_jit
def _way_of(integrator: Integrator, solve: SolverState) -> Scalar:
    """Returns the smallest fraction of the interval done over all images still being solved; 1 if all have stopped."""
    return jnp.where(jax.vmap(integrator.is_going)(solve), solve.share, 1.0).min()


@eqx.filter_jit
def _finalize(
    integrator: Integrator, model: DiffusionModel, condition: Conditions, solve: SolverState, v: Array, log_q: Array
) -> Estimates:
    def one(solve: SolverState, v: Array, log_q: Array, condition: Condition) -> Estimates:
        conditioned = model.given(condition)
        end = finalize(conditioned, solve, integrator)
        return Estimates(
            {"prior": -log_prior(conditioned, end.z_1), "volume": -end.volume, "dequantisation": log_q},
            end.calls * (1 + len(v)),
            end.failed,
        )

    return jax.vmap(one)(solve, v, log_q, condition)


def _importance_weighted(samples: list[Estimates]) -> Estimates:
    """Returns -log of the mean weight p / q of the samples."""
    log_weights = jnp.stack([-sample.nats for sample in samples])
    total = jnp.log(len(samples)) - jax.nn.logsumexp(log_weights, axis=0)
    return Estimates({"total": total}, samples[0].evaluations, samples[0].failed)


_LARGEST = 0.01  # bits/dim, the last digit of published figures


@dataclass(frozen=True)
class SolverError:
    """The values of a few images minus those of a finer solve, in bits/dim, and the evaluations spent on it.

    A difference is NaN if a solve failed.
    """

    differences: Float[np.ndarray, " n"]
    evaluations: int

    @property
    def value(self) -> float:
        """Returns the mean error."""
        return float(self.differences.mean())

    @property
    def half_width(self) -> float:
        """Returns the 95% half-width of the mean error over all images; infinite if a solve failed."""
        n = len(self.differences)
        spread = float(self.differences.std(ddof=1)) / math.sqrt(n) if n > 1 else 0.0
        width = abs(self.value) + float(scipy.special.stdtrit(max(n - 1, 1), 0.975)) * spread
        return width if math.isfinite(width) else math.inf

    def reasons(self) -> list[str]:
        """Returns the reasons why the value is not a likelihood."""
        if not math.isfinite(self.value):
            return [
                "the error of the solver is not known: it, or a finer solve, did not reach its end on a few images."
            ]
        if self.half_width <= _LARGEST:
            return []
        return [
            f"the solver has not converged: a finer solve differs by {self.value:+.4f}, on all images perhaps by "
            f"{self.half_width:.4f} bits/dim, and {_LARGEST:g} is allowed. Give it more --solver-steps, or, without "
            "them, lower likelihood.estimator.rtol and atol; below 1e-6, with JAX_ENABLE_X64=1."
        ]
