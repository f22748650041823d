# SPDX-License-Identifier: Apache-2.0
"""The measurements of an audit: all estimators, and the training loss, on the same few images."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Real

from vdmkit.data import Images, equal_batches
from vdmkit.devices import precisely
from vdmkit.likelihood._estimator import AbstractEstimator, Estimates
from vdmkit.likelihood._flow_again import flow_again
from vdmkit.likelihood._importance import ImportanceWeighted
from vdmkit.likelihood._ode import ProbabilityFlow
from vdmkit.likelihood._pass import pass_over
from vdmkit.likelihood._quadrature import has_known_ends
from vdmkit.likelihood._referee import FEW_STEPS, MANY_STEPS, Evidence, Measured
from vdmkit.likelihood._steps_again import steps_again
from vdmkit.likelihood._variational import VariationalBound
from vdmkit.model import DiffusionModel
from vdmkit.noise import AbstractSchedule, ends_of, gammas_of
from vdmkit.objective import Elbo, Objective, Uniform, bits_per_dim
from vdmkit.progress import Progress, track
from vdmkit.randomness import fold_purpose
from vdmkit.typing import Scalar

_DRAWS, _DRAWS_IN_TIME = 64, 512
_DECODED = 8
_TIMES = 4096  # at which the schedule is read for the strata
_DRAWS_OF_SAMPLES = {1: 32, 8: 4}  # draws by number of importance samples K


class _Curved(AbstractSchedule):
    """A curved schedule from gamma_min to gamma_max, slower at first."""

    gamma_min: float
    gamma_max: float

    def __call__(self, t: Scalar) -> Scalar:
        return self.gamma_min + (self.gamma_max - self.gamma_min) * (t + t**2) / 2


@precisely
def gather(
    model: DiffusionModel,
    test: Images,
    index: Int[np.ndarray, " n"],
    *,
    batch_size: int,
    key: Array,
    progress: Progress = None,
) -> Evidence:
    """Makes all measurements of an audit on these images."""
    flow = ProbabilityFlow()
    estimators = _estimators(flow)
    gamma_0, gamma_1 = ends_of(model.schedule)
    curved = eqx.tree_at(lambda m: m.schedule, model, _Curved(gamma_0, gamma_1))
    with track(progress, "audit", len(estimators) + 4) as advance:
        found, covered = {}, 0.0
        keys = {name: jax.random.fold_in(key, number) for number, name in enumerate(estimators)}
        for name, estimator in estimators.items():
            of_estimator = keys[name]
            plan = estimator.plan(model, test.pixels[index], precision=0.0, key=fold_purpose(of_estimator, "plan"))
            estimates = pass_over(estimator, model, test.pixels, index, plan, batch_size=batch_size, key=of_estimator)
            found[name] = _measured(estimates, index, model)
            covered = _covered(plan) if name == "bound" else covered
            advance()
        in_time = [_in_time(m, test, index, batch_size, fold_purpose(key, "time")) for m in (model, curved)]
        advance(2)
        given = model, test.pixels[index]
        diffusion = steps_again(*given, MANY_STEPS, batch_size=batch_size, key=fold_purpose(key, "steps again"))
        advance()
        again = flow_again(flow, *given, index, batch_size=batch_size, key=keys["flow"])
        advance()
    return Evidence(
        pixels=test.pixels[index],
        x=np.asarray(jax.vmap(model.observation.encode)(jnp.asarray(test.pixels[index])), np.float64),
        index=index,
        levels=model.observation.levels,
        known_decoder=has_known_ends(model.observation),
        decoder_excess=_decoder_excess(model, test.pixels[index[:_DECODED]], fold_purpose(key, "decoder")),
        gamma_0=gamma_0,
        gamma_1=gamma_1,
        covered=covered,
        bound=found["bound"],
        in_time=in_time[0],
        other_schedule=in_time[1],
        few_steps=found[FEW_STEPS],
        many_steps=found[MANY_STEPS],
        diffusion_again=diffusion,
        weighted={k: found["weighted", k] for k in _DRAWS_OF_SAMPLES},
        flow=found["flow"],
        flow_again=again,
    )


def _estimators(flow: ProbabilityFlow) -> dict[Any, AbstractEstimator[Any]]:
    steps = {t: VariationalBound(t, draws=_DRAWS) for t in (FEW_STEPS, MANY_STEPS)}
    weighted = {
        ("weighted", k): ImportanceWeighted(samples=k, draws=draws, steps=FEW_STEPS)
        for k, draws in _DRAWS_OF_SAMPLES.items()
    }
    return {"bound": VariationalBound(draws=_DRAWS), "flow": flow, **steps, **weighted}


def _covered(plan: Any) -> float:
    """Returns the length of the gamma axis that the draws of a continuous bound represent, from their weights."""
    probability = np.diff(np.asarray(plan.allocation.ends, np.float64), prepend=0)
    return float(2 * (probability * np.asarray(plan.allocation.weight)).sum())


def _decoder_excess(model: DiffusionModel, images: Real[np.ndarray, "n h w c"], key: Array) -> float:
    """Returns the log of the largest sum of p(x | z_0) over the levels of one pixel, for z_0 ~ q(z_0 | x)."""
    levels = model.observation.levels
    if not levels:
        return 0.0
    gamma_0 = model.schedule(jnp.zeros(()))

    def log_sum(image: Array, key: Array) -> Scalar:
        eps = jax.random.normal(key, image.shape, dtype=float)
        z_0 = model.observation.encode(image) + jnp.exp(gamma_0 / 2) * eps

        def log_prob(level: Array) -> Scalar:
            return model.observation.log_prob(
                image.at[0, 0, 0].set(level), z_0, gamma_0, lambda: model.estimate(z_0, gamma_0)
            )

        return jax.nn.logsumexp(jax.lax.map(log_prob, jnp.arange(levels).astype(image.dtype)))

    return float(jax.vmap(log_sum)(jnp.asarray(images), jax.random.split(key, len(images))).max())


def _in_time(
    model: DiffusionModel, test: Images, index: Int[np.ndarray, " n"], batch_size: int, key: Array
) -> Measured:
    """Measures the training loss, with gamma' of the schedule; each estimate has one time in every stratum."""
    n, ends = len(index), _strata(model.schedule, _DRAWS_IN_TIME // 2)
    images, u = test.pixels[index], np.asarray(jax.random.uniform(fold_purpose(key, "u"), (2, n)))
    nats = np.zeros((3, 2, n))
    for replicate, k in np.ndindex(2, len(ends) - 1):
        width = ends[k + 1] - ends[k]
        t, of_draw = ends[k] + u[replicate] * width, jax.random.fold_in(jax.random.fold_in(key, replicate), k)
        for some in equal_batches(n, batch_size):
            batch = jnp.asarray(images[some]), jnp.asarray(t[some], float)
            found = _trained_loss(model, *batch, jax.random.fold_in(of_draw, int(some[0])))
            nats[:, replicate, some] += np.asarray(found) * width
    terms: dict[str, Array | np.ndarray] = dict(zip(("prior", "reconstruction", "diffusion"), nats, strict=True))
    return _measured(Estimates(terms, np.full((2, n), len(ends) - 1), np.zeros((2, n), bool)), index, model)


def _strata(schedule: AbstractSchedule, count: int) -> Float[np.ndarray, " count_plus_1"]:
    """Returns the ends of strata of t, in each of which t and gamma rise by about 2 / count of their range at most.

    Strata of equal length would hit the last of the cosine table's 999 intervals, which has a quarter of all gammas,
    with a quarter of the images.
    """
    t = np.linspace(0, 1, _TIMES + 1)
    gammas = np.asarray(gammas_of(schedule, _TIMES), np.float64)
    risen = (gammas - gammas[0]) / (gammas[-1] - gammas[0])
    return np.interp(np.linspace(0, 1, count + 1), (t + risen) / 2, t)


@eqx.filter_jit
def _trained_loss(model: DiffusionModel, images: Array, t: Float[Array, " b"], key: Array) -> Float[Array, "3 b"]:
    objective = Objective(Uniform(), Elbo(), 0)
    b, h, w, c = images.shape
    draws = eqx.tree_at(lambda d: d.t, objective.draw((b, h, w, c), key=key), t)
    bound = objective(model, images, {}, draws)
    return jnp.stack([jnp.asarray(term) for term in (bound.prior, bound.reconstruction, bound.diffusion)])


def _measured(estimates: Estimates, index: Int[np.ndarray, " n"], model: DiffusionModel) -> Measured:
    return Measured(estimates, index, bits_per_dim(float(np.mean(estimates.nats)), model.dimensions))
