# SPDX-License-Identifier: Apache-2.0
r"""The referee: relations that must hold between likelihoods of the same images from different estimators.

Each check requires a difference to lie in a range. With the difference's Monte Carlo standard error s, it fails beyond
4 s (a false alarm of 6e-5 per check), and passes if within 2 s it cannot be outside by more than 0.05 bits/dim. If few
images determine s, both multiples are those of Student's t with the same probabilities.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import scipy
from jaxtyping import Float, Int, Real

from vdmkit.likelihood._estimator import Estimates
from vdmkit.likelihood._flow_again import FlowAgain
from vdmkit.likelihood._interval import degrees_of
from vdmkit.likelihood._quadrature import ends_of_images, prior_of
from vdmkit.objective import bits_per_dim

Verdict = Literal["passes", "fails", "precision does not suffice"]
FEW_STEPS = 8
MANY_STEPS = 64
_SIGMAS, _RESOLUTION = 4.0, 0.05
_ROUNDING = 1e-3  # of alpha_1^2: what is left of the prior term where x is near 0 has lost digits of float32
_SOLVER = 5e-3  # bits/dim, above the error of an ODE solved with the default tolerances


@dataclass(frozen=True)
class Measured:
    """The result of one estimator: two estimates of each image, the images' indices, and the reported bits/dim."""

    estimates: Estimates
    index: Int[np.ndarray, " n"]
    bpd: float


@dataclass(frozen=True)
class Evidence:
    """Likelihoods of the same images, of indices `index`, for a schedule from gamma_0 to gamma_1.

    `x` is what the model's observation encodes `pixels` as. `bound` is the continuous bound, drawn over a length
    `covered` of the gamma axis. `in_time` is the continuous bound drawn along t by other code, and `other_schedule` the
    same with another schedule between the same ends. `few_steps` and `many_steps` are bounds of FEW_STEPS and
    MANY_STEPS steps, and `diffusion_again` is the diffusion loss of the latter by other code, nats. `weighted` holds
    importance-weighted bounds of FEW_STEPS steps by their number of samples, and `flow` the result of the ODE.
    `flow_again` is the same by other code. `known_decoder` is true if the reconstruction term has a closed form, and
    `decoder_excess` is the log of the largest sum of p(x | z_0).
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
    """One check: `difference` +/- `half_width` (95%) must be in [low, high]; bits/dim unless the claim has a unit.

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
    """Checks units and images, exactly but for rounding, and shows the measurement with the largest deviation."""
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
    """Checks the two terms with a closed form, per image or on average, and the range of noise levels."""
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
    """Checks the diffusion loss of T steps against a sum over all of them.

    More steps need not lower the bound. They do if the error of x_hat rises with the noise, as that of the exact
    denoiser does, but that of a network may fall (Kingma et al. 2021, section 4).
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
    """Checks the draws of the ODE, and its solution by other code from the same draws, if that is precise enough.

    The ODE is not checked against the bound: the flow and the diffusion of a model are two distributions, which are
    equal if the score is exact (Song et al. 2021, arXiv 2101.09258), and may otherwise be far apart.
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
    """Returns the sum of independent means, its 95% Monte Carlo half-width, bits/dim, and the degrees of freedom.

    Those of a sum of variances are Welch's and Satterthwaite's (1946, Biometrics Bulletin 2, 110).
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
    with np.errstate(invalid="ignore"):  # infinite estimates differ by NaN, which fails
        squares = (first - second) ** 2 / 4
    # one image has one degree of freedom too, because the mean of first - second is known to be 0
    return float((first + second).mean() / 2), float(squares.mean() / len(first)), max(degrees_of(squares), 1.0)


def _quantile(sigmas: float, degrees: float) -> float:
    """Returns the quantile of Student's t with the probability that `sigmas` have under a Gaussian."""
    return float(scipy.special.stdtrit(degrees, scipy.special.ndtr(sigmas)))
