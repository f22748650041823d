# SPDX-License-Identifier: Apache-2.0
"""Consistency checks between likelihoods of the same images from different estimators (`vdmkit audit`).

`gather` runs all estimators and the training loss on the same few images, and `referee` checks the relations that must
hold between the results. Each check requires a difference to lie in a range. With s the Monte Carlo standard error of
the difference, a check fails beyond 4 s (a false alarm rate of 6e-5 per check), and passes if the difference cannot be
outside by more than 0.05 bits/dim within 2 s. If few images determine s, both multiples are replaced by the quantiles
of Student's t with the same probabilities.

Two quantities are computed by independent code and other formulas than those of the estimators.

Probability flow: in y = z / alpha the flow does not depend on the path. With the estimate x_hat(y; gamma) of the data

    dy/dgamma = (y - x_hat) / 2,        div = (d - tr dx_hat/dy) / 2

    log p(y_0) = log N(y_1; 0, (1 + exp gamma_1) I) + int_{gamma_0}^{gamma_1} div dgamma

which is solved by the classical Runge-Kutta method of order 4 in equal steps of gamma, from the z_0 that the `ode`
estimator draws. The distribution of these draws is checked separately.

Diffusion loss of T steps: a sum over all steps. With y = x + exp(gamma / 2) eps, and gamma_i at t = i / T (Kingma et
al. 2021, arXiv 2107.00630v6, eq. 13 and 14),

    loss = 1/2 E sum_{i=1}^T expm1(gamma_i - gamma_{i-1}) |eps_i - eps_hat(y_i; gamma_i)|^2
"""

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import scipy
from jaxtyping import Array, Float, Int, PRNGKeyArray, Real

from vdmkit.data.batches import equal_batches
from vdmkit.data.sources import Images
from vdmkit.devices import Arithmetic, precisely
from vdmkit.likelihood.bound import VariationalBound
from vdmkit.likelihood.estimator import AbstractEstimator, Estimates
from vdmkit.likelihood.exact import ends_of_images, has_known_ends, prior_of
from vdmkit.likelihood.importance import ImportanceWeighted
from vdmkit.likelihood.intervals import degrees_of
from vdmkit.likelihood.log_likelihood import pass_over
from vdmkit.likelihood.ode import ProbabilityFlow
from vdmkit.losses.bound import bits_per_dim
from vdmkit.losses.time_samplers import Uniform
from vdmkit.losses.training_loss import Objective
from vdmkit.losses.weightings import Elbo
from vdmkit.model import DiffusionModel
from vdmkit.progress import Progress, track
from vdmkit.randomness import fold_purpose
from vdmkit.schedules import AbstractSchedule, Scalar, ends_of, gammas_of

# Coprime, because a network that oscillates with gamma (Fourier features) can bias 64 and 32 steps equally.
_STEPS, _FEWER = 64, 45
_ODE_ROUNDING = 1e-6  # of z_0 and alpha_0 in float32, relative to levels between -1 and 1
_NODES, _WEIGHTS = (0.0, 0.5, 0.5, 1.0), (1 / 6, 1 / 3, 1 / 3, 1 / 6)


@dataclass(frozen=True)
class FlowAgain:
    """Independent solution of the flow from the z_0 drawn by an `ode` estimator.

    Attributes:
        estimates: Two estimates of -log P of each image.
        change: Change of the first estimate with fewer steps, nats.
        surprise: log q(z_0 | x) minus its expectation, nats. It is -infinity if z_0 lies outside of the bin, or if
            continuous data differ from z_0 / alpha_0.
        probe_excess: Mean square of the probes' entries, minus 1.
    """

    estimates: Estimates
    change: Float[np.ndarray, " n"]
    surprise: Float[np.ndarray, "2 n"]
    probe_excess: float


def flow_again(
    flow: ProbabilityFlow,
    model: DiffusionModel,
    images: Real[np.ndarray, "n h w c"],
    index: Int[np.ndarray, " n"],
    *,
    batch_size: int,
    key: PRNGKeyArray,
) -> FlowAgain:
    """Solves the flow by independent code, from the z_0 and the first probe that `flow` draws with this key.

    From the same draws, two correct implementations agree up to the errors of their solvers.
    """
    drawn = [_drawn(flow, model, images, index, replicate, batch_size, key) for replicate in range(2)]
    y_0, probes = (np.stack(both) for both in zip(*drawn, strict=True))
    log_q, expected = _dequantisation(model, images, y_0)
    solved = [_solved(model, y_0[r], probes[r], _STEPS, batch_size) for r in range(2)]
    prior, volume = (np.stack([one[name] for one in solved]) for name in ("prior", "volume"))
    coarse = _solved(model, y_0[0], probes[0], _FEWER, batch_size)
    change = coarse["prior"] + coarse["volume"] - prior[0] - volume[0]
    calls = np.full(prior.shape, 2 * len(_NODES) * _STEPS)
    failed = ~np.isfinite(prior + volume)
    estimates = Estimates({"prior": prior, "volume": volume, "dequantisation": log_q}, calls, failed)
    return FlowAgain(estimates, change, log_q - expected, float((probes**2).mean() - 1))


def _drawn(
    flow: ProbabilityFlow,
    model: DiffusionModel,
    images: Real[np.ndarray, "n h w c"],
    index: Int[np.ndarray, " n"],
    replicate: int,
    batch_size: int,
    key: PRNGKeyArray,
) -> tuple[Float[np.ndarray, "n h w c"], Float[np.ndarray, "n h w c"]]:
    """Returns y_0 = z_0 / alpha_0 and a probe for each image."""
    y_0, probes = np.zeros((2, len(images), *model.shape))
    alpha_0 = float(model.path.alpha(jnp.asarray(ends_of(model.schedule)[0])))
    for some in equal_batches(len(images), batch_size):
        given = jnp.asarray(images[some]), jnp.asarray(index[some].astype(np.int32))
        z_0, v = flow.first_draw(model, *given, replicate=replicate, key=key)
        y_0[some], probes[some] = np.asarray(z_0, np.float64) / alpha_0, np.asarray(v[:, 0])
    return y_0, probes


def _dequantisation(
    model: DiffusionModel, images: Real[np.ndarray, "n h w c"], y_0: Float[np.ndarray, "2 n h w c"]
) -> tuple[Float[np.ndarray, "2 n"], float]:
    """Returns log q(y_0 | x) and its expectation, for y_0 = x + exp(gamma_0 / 2) eps with eps truncated to the bin."""
    offset = y_0 - np.asarray(jax.vmap(model.observation.encode)(jnp.asarray(images)), np.float64)
    if not model.observation.levels:
        return np.where(abs(offset) > _ODE_ROUNDING * np.maximum(abs(y_0), 1), -np.inf, 0).sum((2, 3, 4)), 0.0
    scale = np.exp(ends_of(model.schedule)[0] / 2)
    edge = float(model.observation.spacing) / 2
    law = scipy.stats.truncnorm(-edge / scale, edge / scale, loc=0, scale=scale)
    inside = abs(offset) < edge + _ODE_ROUNDING
    log_q = np.where(inside, law.logpdf(np.clip(offset, -edge, edge)), -np.inf)
    return log_q.sum((2, 3, 4)), -y_0[0, 0].size * float(law.entropy())


def _solved(
    model: DiffusionModel,
    y: Float[np.ndarray, "n h w c"],
    probes: Float[np.ndarray, "n h w c"],
    steps: int,
    batch_size: int,
) -> dict[str, Float[np.ndarray, " n"]]:
    """Returns -log p_1(y_1) and -int div in nats, from a solution in `steps` steps."""
    n, d, (gamma_0, gamma_1) = len(y), y[0].size, ends_of(model.schedule)
    h = (gamma_1 - gamma_0) / steps
    y_1, mean_divergence = np.zeros_like(y), np.zeros(n)
    for some in equal_batches(n, batch_size):
        state = jnp.asarray(y[some], float), jnp.zeros(len(some))
        for k in range(steps):
            state = _step(model, *state, jnp.asarray(probes[some], float), jnp.asarray(gamma_0 + k * h), jnp.asarray(h))
        y_1[some], mean_divergence[some] = (np.asarray(part, np.float64) for part in state)
    variance = 1 + np.exp(gamma_1)
    prior = (y_1**2).sum((1, 2, 3)) / (2 * variance) + d * np.log(2 * np.pi * variance) / 2
    return {"prior": prior, "volume": -d * mean_divergence}


@eqx.filter_jit
def _step(
    model: DiffusionModel,
    y: Float[Array, "b h w c"],
    volume: Float[Array, " b"],
    probes: Float[Array, "b h w c"],
    gamma: Scalar,
    h: Scalar,
) -> tuple[Float[Array, "b h w c"], Float[Array, " b"]]:
    """Makes one Runge-Kutta step. The loop over steps is in Python: convolutions in a JAX loop are slow on CPU."""

    def field(y: Array, v: Array, gamma: Scalar) -> tuple[Array, Scalar]:
        x_hat, pull = jax.vjp(lambda y: model.x_hat(y, gamma), y)
        return (y - x_hat) / 2, (1 - (v * pull(v)[0]).mean()) / 2

    slopes, slope = [], (jnp.zeros_like(y), jnp.zeros_like(volume))
    for node in _NODES:
        slope = jax.vmap(field, in_axes=(0, 0, None))(y + node * h * slope[0], probes, gamma + node * h)
        slopes.append(slope)
    move = jax.tree.map(lambda *parts: sum(w * part for w, part in zip(_WEIGHTS, parts, strict=True)), *slopes)
    return y + h * move[0], volume + h * move[1]


Verdict = Literal["passes", "fails", "precision does not suffice"]
FEW_STEPS = 8
MANY_STEPS = 64
_SIGMAS, _RESOLUTION = 4.0, 0.05
_ROUNDING = 1e-3  # of alpha_1^2: where x is near 0, the prior term suffers cancellation in float32
_SOLVER = 5e-3  # bits/dim, above the error of an ODE solved with the default tolerances


@dataclass(frozen=True)
class Measured:
    """Two estimates of each image by one estimator, the images' indices, and the reported mean in bits/dim."""

    estimates: Estimates
    index: Int[np.ndarray, " n"]
    bpd: float


@dataclass(frozen=True)
class Evidence:
    """The measurements of an audit: likelihoods of the same images by all estimators.

    Attributes:
        pixels: The images.
        x: The images as encoded by the model's observation.
        index: Indices of the images.
        levels: Number of levels, 0 for continuous data.
        known_decoder: Whether the reconstruction term has a closed form.
        decoder_excess: Log of the largest sum of p(x | z_0) over the levels of a pixel.
        gamma_0: Start of the schedule.
        gamma_1: End of the schedule.
        covered: Length of the gamma axis that the draws of `bound` represent.
        bound: Bound in continuous time.
        in_time: Bound in continuous time, drawn uniformly in t by the code of the training loss.
        other_schedule: The same with a different schedule between the same ends.
        few_steps: Bound of FEW_STEPS steps.
        many_steps: Bound of MANY_STEPS steps.
        diffusion_again: Diffusion loss of MANY_STEPS steps by independent code, nats.
        weighted: Importance-weighted bounds of FEW_STEPS steps, by number of samples.
        flow: Likelihood by the ODE.
        flow_again: Likelihood by the ODE, by independent code.
    """

    pixels: Real[np.ndarray, "n h w c"]
    x: Float[np.ndarray, "n h w c"]
    index: Int[np.ndarray, " n"]
    levels: int
    known_decoder: bool
    decoder_excess: float
    gamma_0: float
    gamma_1: float
    covered: float
    bound: Measured
    in_time: Measured
    other_schedule: Measured
    few_steps: Measured
    many_steps: Measured
    diffusion_again: Float[np.ndarray, "2 n"]
    weighted: dict[int, Measured]
    flow: Measured
    flow_again: FlowAgain

    def named(self) -> dict[str, Measured]:
        """Returns all measurements by name."""
        return {
            "bound": self.bound,
            "bound in time": self.in_time,
            "bound on another schedule": self.other_schedule,
            f"bound of {FEW_STEPS} steps": self.few_steps,
            f"bound of {MANY_STEPS} steps": self.many_steps,
            **{f"{k} importance samples": measured for k, measured in self.weighted.items()},
            "ODE": self.flow,
        }


@dataclass(frozen=True)
class Check:
    """A check that `difference` +/- `half_width` (95%) lies in [low, high]; bits/dim unless the claim gives a unit.

    `degrees` are the degrees of freedom of the standard error.
    """

    claim: str
    difference: float
    half_width: float
    low: float
    high: float
    degrees: float = math.inf

    @property
    def verdict(self) -> Verdict:
        fatal = _quantile(_SIGMAS, self.degrees) / _quantile(2.0, self.degrees) * self.half_width
        likely = self.half_width - _RESOLUTION
        if not self.low - fatal <= self.difference <= self.high + fatal:  # written so that a NaN fails
            return "fails"
        sure = self.low + likely <= self.difference <= self.high - likely
        return "passes" if sure or self.half_width == 0 else "precision does not suffice"


def referee(evidence: Evidence) -> list[Check]:
    """Returns all checks, in reading order."""
    return [*_bookkeeping(evidence), *_ends(evidence), _of_steps(evidence), *_between(evidence)]


def _bookkeeping(e: Evidence) -> Iterator[Check]:
    """Checks units, indices and failures, exact up to rounding; reports the measurement with the largest deviation."""
    dimensions = math.prod(e.pixels.shape[1:])

    def bits(m: Measured) -> float:
        return m.bpd - bits_per_dim(float(np.mean(m.estimates.nats)), dimensions)

    def strays(m: Measured) -> float:
        times = np.array([(m.index == i).sum() for i in e.index])
        return float((times != 1).sum() + np.isin(m.index, e.index, invert=True).sum())

    yield _worst(e.named(), bits, "bits/dim are nats / (d ln 2)", 1e-6)

    def unsolved(m: Measured) -> float:
        return float(np.asarray(m.estimates.failed).any(0).sum())

    yield _worst(e.named(), strays, "every image counts once (images that do not)", 0.0)
    yield _worst(e.named(), unsolved, "every solve reached its end (images whose did not)", 0.0)


def _ends(e: Evidence) -> Iterator[Check]:
    """Checks the prior term of every image, the mean reconstruction term, the decoder, and the range of gamma."""
    prior, reconstruction = ends_of_images(e.pixels, e.levels, e.gamma_0, e.gamma_1)
    if not e.known_decoder:  # its levels may be encoded as other values
        prior = prior_of(e.x, e.gamma_1).sum((1, 2, 3))
    dimensions = math.prod(e.pixels.shape[1:])
    lost = _ROUNDING * dimensions / (1 + math.exp(e.gamma_1))
    bounds = {name: m for name, m in e.named().items() if "diffusion" in m.estimates.terms}

    def prior_off(m: Measured) -> float:
        found = np.asarray(m.estimates.terms["prior"])
        return float((abs(found - prior) / (prior + lost)).max()) if found.shape[1:] == prior.shape else np.inf

    yield _worst(bounds, prior_off, "prior term of each image is its closed form (relative)", 1e-3)
    terms = {
        name: _mean(np.asarray(m.estimates.terms["reconstruction"]) - reconstruction.mean(), dimensions)
        for name, m in bounds.items()
    }
    name = max(terms, key=lambda name: abs(terms[name][0]) / (terms[name][1] + 1e-4))
    if e.known_decoder:
        yield _check(f"reconstruction term is its closed form ({name})", terms[name], -1e-3, 1e-3)
    yield Check("p(x given z_0) sums to at most 1 (log of the sum)", e.decoder_excess, 0.0, -np.inf, 1e-3)
    rise = e.gamma_1 - e.gamma_0
    yield Check("all noise levels are covered (missing share)", (e.covered - rise) / rise, 0.0, -1e-3, 1e-3)


def _of_steps(e: Evidence) -> Check:
    """Checks the diffusion loss of T steps against the sum over all steps.

    The bound is not checked to fall with T. It does if the error of x_hat rises with the noise, which holds for the
    exact denoiser but not for every network (Kingma et al. 2021, section 4).
    """
    parts = [np.asarray(e.many_steps.estimates.terms["diffusion"]), -e.diffusion_again]
    found = _mean_of(parts, math.prod(e.pixels.shape[1:]))
    return _check(f"diffusion loss of {MANY_STEPS} steps - summed by other code", found, -1e-3, 1e-3)


def _between(e: Evidence) -> Iterator[Check]:
    """Checks estimators of the same quantity, or of ordered quantities, against each other."""
    yield _difference(e, "bound drawn in time - in gamma", e.in_time, e.bound, -1e-3, 1e-3)
    yield _difference(e, "bound on another schedule - on its own", e.other_schedule, e.bound, -1e-3, 1e-3)
    few = e.few_steps
    yield _difference(e, f"one importance sample - bound of {FEW_STEPS} steps", e.weighted[1], few, -1e-3, 1e-3)
    for k in sorted(set(e.weighted) - {1}):
        yield _difference(e, f"bound of {FEW_STEPS} steps - {k} importance samples", few, e.weighted[k], 0.0, np.inf)
    yield from _flows(e)


def _flows(e: Evidence) -> Iterator[Check]:
    """Checks the draws of the ODE estimator, and its solution against that of independent code from the same draws.

    The solver error of the independent code widens the interval. The ODE is not checked against the bound: the flow and
    the diffusion of a model define two distributions, which are equal if the score is exact (Song et al. 2021, arXiv
    2101.09258) and may otherwise be far apart.
    """
    again, dimensions = e.flow_again, math.prod(e.pixels.shape[1:])
    yield _check("log q(z_0 given x) - its expectation (ODE)", _mean(again.surprise, dimensions), -_SOLVER, _SOLVER)
    yield Check("probes of the ODE have unit variance (excess)", again.probe_excess, 0.0, -1e-3, 1e-3)
    solved = np.asarray(e.flow.estimates.nats) - np.asarray(again.estimates.nats)
    check = _check("ODE - ODE solved by other code", _mean(solved, dimensions), -_SOLVER, _SOLVER)
    change = float(abs(bits_per_dim(again.change, dimensions)).mean())
    known = not again.estimates.failed.any() and math.isfinite(change)
    if known:
        yield replace(check, half_width=check.half_width + change)
    else:
        yield replace(check, difference=0.0, half_width=math.inf)


def _worst(measured: dict[str, Measured], off: Callable[[Measured], float], claim: str, allowed: float) -> Check:
    errors = {name: off(m) for name, m in measured.items()}
    name = max(errors, key=lambda name: abs(errors[name]))
    return Check(f"{claim} ({name})" if errors[name] else claim, errors[name], 0.0, -allowed, allowed)


def _difference(e: Evidence, claim: str, a: Measured, b: Measured, low: float, high: float) -> Check:
    dimensions = math.prod(e.pixels.shape[1:])
    parts = [np.asarray(a.estimates.nats), -np.asarray(b.estimates.nats)]
    return _check(claim, _mean_of(parts, dimensions), low, high)


def _check(claim: str, found: tuple[float, float, float], low: float, high: float) -> Check:
    difference, half_width, degrees = found
    return Check(claim, difference, half_width, low, high, degrees)


def _mean_of(parts: list[Float[np.ndarray, "2 _"]], dimensions: int) -> tuple[float, float, float]:
    """Returns the sum of independent means, its 95% Monte Carlo half-width in bits/dim, and the degrees of freedom.

    The degrees of freedom of the summed variances are those of Welch and Satterthwaite (1946, Biometrics Bulletin 2,
    110).
    """
    means, variances, degrees = zip(*(_moments(part, dimensions) for part in parts), strict=True)
    variance, fourth = sum(variances), sum(v**2 / n for v, n in zip(variances, degrees, strict=True))
    effective = variance**2 / fourth if fourth > 0 else math.inf
    return sum(means), _quantile(2.0, effective) * math.sqrt(variance), effective


def _mean(nats: Float[np.ndarray, "2 n"], dimensions: int) -> tuple[float, float, float]:
    """Returns mean, half-width and degrees of freedom from two independent estimates of each image, bits/dim."""
    return _mean_of([nats], dimensions)


def _moments(nats: Float[np.ndarray, "2 n"], dimensions: int) -> tuple[float, float, float]:
    """Returns the mean, the variance of its error, and the degrees of freedom of this variance."""
    first, second = bits_per_dim(nats, dimensions)
    with np.errstate(invalid="ignore"):  # infinite estimates differ by NaN, and a NaN fails the check
        squares = (first - second) ** 2 / 4
    # one image also has one degree of freedom, because the mean of first - second is known to be 0
    return float((first + second).mean() / 2), float(squares.mean() / len(first)), max(degrees_of(squares), 1.0)


def _quantile(sigmas: float, degrees: float) -> float:
    """Returns the quantile of Student's t at the probability that `sigmas` has under a standard Gaussian."""
    return float(scipy.special.stdtrit(degrees, scipy.special.ndtr(sigmas)))


def steps_again(
    model: DiffusionModel, images: Real[np.ndarray, "n h w c"], steps: int, *, batch_size: int, key: PRNGKeyArray
) -> Float[np.ndarray, "2 n"]:
    """Returns two estimates of each image's diffusion loss, nats, each with one draw of eps for every step."""
    draws = np.random.default_rng(np.asarray(jax.random.bits(key, (4,))))
    x = np.asarray(jax.vmap(model.observation.encode)(jnp.asarray(images)), np.float64)
    gammas = np.asarray(jax.vmap(model.schedule)(jnp.linspace(0, 1, steps + 1)), np.float64)
    nats = np.zeros((2, len(x)))
    for gamma, rate in zip(gammas[1:], np.expm1(np.diff(gammas)), strict=True):
        eps = draws.normal(size=(2, *x.shape))
        y, at = x + np.exp(gamma / 2) * eps, jnp.asarray(gamma, float)
        for replicate, some in itertools.product(range(2), equal_batches(len(x), batch_size)):
            found = _eps_hat(model, jnp.asarray(y[replicate, some], float), at)
            error = eps[replicate, some] - np.asarray(found, np.float64)
            # Indices repeated to fill the last batch are added once, because NumPy's += buffers fancy indexing.
            nats[replicate, some] += rate / 2 * (error**2).sum((1, 2, 3))
    return nats


@eqx.filter_jit
def _eps_hat(model: DiffusionModel, y: Float[Array, "b h w c"], gamma: Scalar) -> Float[Array, "b h w c"]:
    return jax.vmap(lambda y: model.estimate(y, gamma).eps_hat)(y)


_DRAWS, _DRAWS_IN_TIME = 64, 512
_DECODED = 8
_TIMES = 4096  # at which the schedule is evaluated to choose the strata
_DRAWS_OF_SAMPLES = {1: 32, 8: 4}  # draws by number of importance samples K


class _Curved(AbstractSchedule):
    """A curved schedule from gamma_min to gamma_max that rises slowly at first."""

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
    """Measures the bound with the code of the training loss; each estimate has one time in every stratum."""
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
    """Returns edges of strata of t such that both t and gamma rise by at most about 2 / count of their range in each.

    With strata of equal length, only a quarter of the images would have a draw in the last of the cosine table's 999
    intervals, which spans a quarter of the range of gamma.
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


def audit_as_json(checks: list[Check], measured_in: Arithmetic) -> dict[str, Any]:
    """Returns all checks, and the arithmetic of the audit, as JSON values."""
    return {"checks": [as_json(check) for check in checks], **asdict(measured_in)}


def as_json(check: Check) -> dict[str, Any]:
    """Returns a check as JSON values; numbers that are not finite become None, because JSON cannot represent them."""
    numbers = {"difference": check.difference, "half_width": check.half_width, "low": check.low, "high": check.high}
    return {
        "claim": check.claim,
        "verdict": check.verdict,
        **{name: value if math.isfinite(value) else None for name, value in numbers.items()},
    }
