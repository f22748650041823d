# SPDX-License-Identifier: Apache-2.0
"""The consistency checks pass a correct model and fail every planted error."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vdmkit
from vdmkit.decoders import CategoricalObservation
from vdmkit.integrator import Integrator
from vdmkit.likelihood import Estimates, ProbabilityFlow, VariationalBound
from vdmkit.likelihood import estimator as _dequantisation
from vdmkit.likelihood.consistency import (
    FEW_STEPS,
    MANY_STEPS,
    Evidence,
    Measured,
    _Curved,
    _decoder_excess,
    _in_time,
    as_json,
    flow_again,
    gather,
    referee,
    steps_again,
)
from vdmkit.likelihood.log_likelihood import pass_over
from vdmkit.likelihood.ode import Probes
from vdmkit.model import DiffusionModel
from vdmkit.predictions import AbstractPrediction, X
from vdmkit.recipes import load_recipe
from vdmkit.recipes.build import build_state, training_counts
from vdmkit.schedules import AbstractSchedule, FixedLinear

pytestmark = pytest.mark.statistical
ORACLE = Path(vdmkit.__file__).parents[1] / "recipes" / "oracle_gaussian.toml"
SMALL = ["data.shape=[2, 3, 1]", "data.levels=5", "model.schedule.gamma_min=-4.0", "model.schedule.gamma_max=6.0"]


@pytest.fixture(scope="module")
def oracle():
    """Returns an exact model, its test images, and the indices of those that are measured."""
    recipe = load_recipe(ORACLE, SMALL)
    source = recipe.data.build()
    model = build_state(recipe, training_counts(recipe, source.load("train"))).model
    return model, source.load("test"), np.arange(100, 164)


@pytest.fixture(scope="module")
def evidence(oracle) -> Evidence:
    model, test, index = oracle
    return gather(model, test, index, batch_size=64, key=jax.random.key(0, impl="rbg"))


def with_terms(measured: Measured, **terms: Callable[[np.ndarray], np.ndarray]) -> Measured:
    """Returns the measurement with some terms changed, and its bits/dim recomputed."""
    changed = {name: terms.get(name, lambda nats: nats)(nats) for name, nats in measured.estimates.terms.items()}
    estimates = Estimates(changed, measured.estimates.evaluations, measured.estimates.failed)
    return Measured(estimates, measured.index, float(np.mean(estimates.nats)) / 6 / np.log(2))


def of_images(measured: Measured, rows: np.ndarray) -> Measured:
    """Returns the measurement restricted to these rows."""
    estimates = jax.tree.map(lambda values: values[:, rows], measured.estimates)
    return Measured(estimates, measured.index[rows], float(np.mean(estimates.nats)) / 6 / np.log(2))


def verdicts(evidence: Evidence) -> dict[str, str]:
    return {check.claim: check.verdict for check in referee(evidence)}


def failing(evidence: Evidence) -> set[str]:
    return {claim for claim, verdict in verdicts(evidence).items() if verdict == "fails"}


def test_a_sound_model_passes(evidence):
    """All 15 checks pass for a correct model."""
    found = verdicts(evidence)
    assert set(found.values()) == {"passes"}
    assert len(found) == 15


def report(estimates: Estimates, index: np.ndarray) -> Measured:
    return Measured(estimates, index, float(np.mean(estimates.nats)) / 6 / np.log(2))


PLANTED = {
    "prior term missing": lambda e: replace(e, bound=with_terms(e.bound, prior=np.zeros_like)),
    "nats reported as bits": lambda e: replace(e, bound=replace(e.bound, bpd=e.bound.bpd * np.log(2))),
    "noisy end is not where it should be": lambda e: replace(e, gamma_1=e.gamma_1 + 1),
    "clean end is not where it should be": lambda e: replace(e, gamma_0=e.gamma_0 + 1),
    "draws stop short of the ends": lambda e: replace(e, covered=e.covered - 1),
    "repeats that are not told": lambda e: replace(
        e, bound=replace(of_images(e.bound, np.random.default_rng(0).integers(64, size=64)), index=e.index)
    ),
    "log K forgotten": lambda e: replace(
        e, weighted={**e.weighted, 8: with_terms(e.weighted[8], importance=lambda nats: nats + 60)}
    ),
    "not a number": lambda e: replace(e, flow=with_terms(e.flow, volume=lambda nats: nats * np.nan)),
}


@pytest.mark.parametrize("error", PLANTED)
def test_a_planted_error_fails(evidence, error):
    """Every planted error fails at least one check."""
    assert failing(PLANTED[error](evidence)), error


@pytest.fixture
def measure(oracle):
    """`measure(estimator)` measures the test images, or those of `index`, by default with the correct model."""
    sound, test, whole = oracle

    def measure(estimator, model=sound, index=whole) -> Measured:
        key = jax.random.key(1, impl="rbg")
        plan = estimator.plan(model, test.pixels[index], precision=0.0, key=key)
        return report(pass_over(estimator, model, test.pixels, index, plan, batch_size=64, key=key), index)

    return measure


BOUND = VariationalBound(draws=64)


class _NoReconstruction(CategoricalObservation):
    """Gives every image probability 1."""

    def log_prob(self, image, z_0, gamma_0, estimate):
        return jnp.zeros_like(gamma_0)


def test_a_bound_without_its_reconstruction_term_fails(evidence, oracle, measure):
    """A decoder that costs nothing fails."""
    wrong = eqx.tree_at(lambda m: m.observation, oracle[0], _NoReconstruction(5))
    assert failing(replace(evidence, bound=measure(BOUND, wrong))) >= {
        "reconstruction term is its closed form (bound)",
        "bound drawn in time - in gamma",
    }


def test_the_prior_term_is_that_of_the_values_which_the_model_encodes(evidence):
    """The prior term is checked only for known decoders, against the values that the model encodes."""
    claim, other = "prior term of each image is its closed form (relative)", replace(evidence, known_decoder=False)
    assert claim not in {one.partition(" (bound")[0] for one in failing(other)}
    assert claim in {one.partition(" (bound")[0] for one in failing(replace(other, x=1.5 * other.x))}


def test_a_decoder_whose_probabilities_sum_to_more_than_1_fails(oracle):
    """A decoder without a closed form is checked by summing its probabilities."""
    model, test, index = oracle
    # summed over the levels of one pixel, with all others fixed
    assert -3 < _decoder_excess(model, test.pixels[index[:4]], jax.random.key(0)) < 1e-5
    wrong = eqx.tree_at(lambda m: m.observation, model, _NoReconstruction(5))
    assert _decoder_excess(wrong, test.pixels[index[:4]], jax.random.key(0)) == pytest.approx(np.log(5))


def test_what_is_not_known_of_a_plugins_decoder_is_not_claimed(evidence):
    """An unknown decoder is checked for normalization, not for a closed-form reconstruction term."""
    found = verdicts(replace(evidence, known_decoder=False))
    assert set(found.values()) == {"passes"}
    assert len(found) == 14
    assert failing(replace(evidence, decoder_excess=1.0)) == {"p(x given z_0) sums to at most 1 (log of the sum)"}


@jax.custom_jvp
def _unit_rate(gamma, t):
    return gamma


_unit_rate.defjvp(lambda primals, tangents: (primals[0], jnp.ones_like(primals[0]) * tangents[1]))


class _NoRate(AbstractSchedule):
    """Has derivative 1 whatever the schedule."""

    inner: AbstractSchedule
    gamma_min: float = eqx.field(static=True)
    gamma_max: float = eqx.field(static=True)

    def __call__(self, t):
        return _unit_rate(self.inner(jax.lax.stop_gradient(t)), t)


def test_a_bound_without_gammas_derivative_fails(evidence, oracle):
    """A loss that is a mean over t without the factor gamma' fails."""
    model, test, index = oracle
    wrong = eqx.tree_at(lambda m: m.schedule, model, _NoRate(model.schedule, evidence.gamma_0, evidence.gamma_1))
    in_time = _in_time(wrong, test, index, 64, jax.random.key(2, impl="rbg"))
    assert np.mean(in_time.estimates.terms["diffusion"]) < np.mean(evidence.in_time.estimates.terms["diffusion"]) / 5
    assert failing(replace(evidence, in_time=in_time)) == {"bound drawn in time - in gamma"}


SOLVED = "ODE - ODE solved by other code"


@pytest.fixture
def measure_flow(evidence, oracle):
    """`measure_flow(estimator)` returns the evidence with this estimator as the ODE likelihood."""
    model, test, index = oracle

    def measure_flow(estimator: ProbabilityFlow) -> Evidence:
        key = jax.random.key(1)
        found = pass_over(estimator, model, test.pixels, index, None, batch_size=48, key=key)
        again = flow_again(estimator, model, test.pixels[index], index, batch_size=48, key=key)
        return replace(evidence, flow=report(found, index), flow_again=again)

    return measure_flow


def drawn_by(draw: Callable, monkeypatch) -> ProbabilityFlow:
    """Returns the estimator with a different dequantization from the one it declares."""
    monkeypatch.setitem(_dequantisation.DEQUANTISATIONS, draw.__name__, draw)
    estimator = ProbabilityFlow()
    object.__setattr__(estimator, "dequantisation", draw.__name__)
    return estimator


def _sound(model, image, key):
    return _dequantisation.truncated_normal(model, image, key)


def _without_entropy(model, image, key):
    return _sound(model, image, key)[0], jnp.zeros(())


def _with_less_noise(model, image, key):
    z_0, log_q = _sound(model, image, key)
    gamma_0 = model.schedule(jnp.zeros(()))
    x, sigma = model.path.alpha(gamma_0) * model.observation.encode(image), model.path.sigma(gamma_0)
    nearer = x + 0.8 * (z_0 - x)
    return nearer, log_q + ((z_0 - x) ** 2 - (nearer - x) ** 2).sum() / (2 * sigma**2)  # the density there


def _of_the_next_bin(model, image, key):
    return _sound(model, jnp.minimum(image + 1, 4), key)


@pytest.mark.parametrize(
    ("draw", "claims"),
    [
        (_without_entropy, {SOLVED}),
        (_with_less_noise, {"log q(z_0 given x) - its expectation (ODE)"}),
        (_of_the_next_bin, {"log q(z_0 given x) - its expectation (ODE)", SOLVED}),
    ],
)
def test_a_flow_from_wrong_draws_fails(measure_flow, monkeypatch, draw, claims):
    """Dequantization draws from the wrong bin or from a different image fail."""
    assert failing(measure_flow(drawn_by(draw, monkeypatch))) >= claims


class _Short(Probes):
    """Has entries +-0.99, so that the variance is below 1."""

    def __call__(self, shape, *, key):
        return 0.99 * super().__call__(shape, key=key)


def test_probes_that_are_too_short_fail(measure_flow):
    """Probes of too small a variance fail, although both solvers share them."""
    short = eqx.tree_at(lambda e: e.probes, ProbabilityFlow(), _Short("rademacher", 1))
    assert "probes of the ODE have unit variance (excess)" in failing(measure_flow(short))


def test_an_error_of_a_hundredth_of_a_bit_fails(evidence):
    """An error of 0.01 bits/dim in the ODE fails, although it is smaller than the Monte Carlo noise."""
    wrong = with_terms(evidence.flow, prior=lambda nats: nats + 0.01 * 6 * np.log(2))
    assert failing(replace(evidence, flow=wrong)) == {SOLVED}


def test_an_ode_that_cannot_be_checked_is_said_to_be_unknown(evidence):
    """A flow too rough for the fixed-step solver is reported as not precise enough, not as failed."""
    again = evidence.flow_again
    shifted = eqx.tree_at(lambda e: e.terms["volume"], again.estimates, again.estimates.terms["volume"] - 2)
    lost = eqx.tree_at(lambda e: e.failed, shifted, ~shifted.failed)
    for other in (replace(again, estimates=lost), replace(again, estimates=shifted, change=again.change + 4)):
        found = verdicts(replace(evidence, flow_again=other)).items()
        assert {claim for claim, verdict in found if verdict == "precision does not suffice"} == {SOLVED}
    assert failing(replace(evidence, flow_again=replace(again, estimates=shifted))) == {SOLVED}


class _Backwards(Integrator):
    """Integrates the field in the opposite direction."""

    def resume(self, field, start, end, solve, args, *, steps):
        reverse = lambda gamma, state, args: jax.tree.map(jnp.negative, field(gamma, state, args))  # noqa: E731
        return super().resume(reverse, start, end, solve, args, steps=steps)


def test_a_flow_that_is_integrated_backwards_fails(measure_flow):
    """An ODE integrated in the wrong direction fails."""
    i = ProbabilityFlow().integrator
    backwards = _Backwards(i.solver, i.rtol, i.atol, i.steps, i.max_steps)
    estimator = eqx.tree_at(lambda e: e.integrator, ProbabilityFlow(), backwards)
    assert failing(measure_flow(estimator)) >= {SOLVED}


def test_a_flow_that_stops_halfway_fails(measure_flow):
    """A solver that ran out of steps fails."""
    found = failing(measure_flow(ProbabilityFlow(max_steps=2)))
    assert found >= {"every solve reached its end (images whose did not) (ODE)"}


@pytest.mark.parametrize("ends", [(1.0, 0.0), (0.0, -1.0), (-1.0, 0.0), (0.0, 1.0)], ids=str)
def test_a_schedule_whose_end_is_off_by_one_fails(evidence, oracle, measure, ends):
    """A bound between endpoints that are not the model's fails."""
    schedule = FixedLinear(gamma_min=evidence.gamma_0 + ends[0], gamma_max=evidence.gamma_1 + ends[1])
    wrong = eqx.tree_at(lambda m: m.schedule, oracle[0], schedule)
    assert failing(replace(evidence, bound=measure(BOUND, wrong)))


def test_half_of_the_test_set_fails(evidence, oracle, measure):
    """A mean over half of the images fails."""
    claims = {"every image counts once (images that do not) (bound)"}
    assert failing(replace(evidence, bound=measure(BOUND, index=oracle[2][:32]))) >= claims


def test_shuffled_repeats_fail(evidence, oracle, measure):
    """Images drawn with replacement fail."""
    repeats = np.random.default_rng(0).choice(oracle[2], 64)
    claims = {"every image counts once (images that do not) (bound)"}
    assert failing(replace(evidence, bound=measure(BOUND, index=repeats))) >= claims


def test_t_off_by_one_fails(evidence, measure):
    """A bound of T - 1 steps fails as a bound of T steps."""
    wrong = measure(VariationalBound(FEW_STEPS - 1, draws=64))
    claim = f"one importance sample - bound of {FEW_STEPS} steps"
    assert failing(replace(evidence, few_steps=wrong)) >= {claim}


def test_a_quarter_of_the_steps_fails(evidence, measure):
    """A bound of 16 steps fails as a bound of 64."""
    claim, wrong = "diffusion loss of 64 steps - summed by other code", measure(VariationalBound(16, draws=64))
    assert failing(replace(evidence, many_steps=wrong)) == {claim}


def _bad_at_little_noise(z, gamma, condition, *, key=None):
    return jnp.exp(-8 * (gamma + 3.4) ** 2) * jnp.ones((*z.shape, 1))


def test_a_network_whose_bounds_rise_with_more_steps_passes(evidence, oracle, measure):
    """A network that is worse at less noise passes: its bounds rise with T, but they are bounds."""
    model, test, index = oracle
    given = {"schedule": model.schedule, "shape": model.shape, "observation": model.observation}
    bad = DiffusionModel(prediction=X(), network=_bad_at_little_noise, **given)

    def loss(steps: int) -> float:
        gammas = np.linspace(evidence.gamma_0, evidence.gamma_1, steps + 1)
        errors = (evidence.x[..., None] - np.exp(-8 * (gammas[1:] + 3.4) ** 2)) ** 2
        return float((errors * -np.diff(np.exp(-gammas))).sum() / 2 / len(index))

    again = steps_again(bad, test.pixels[index], MANY_STEPS, batch_size=48, key=jax.random.key(2, impl="rbg"))
    assert again.mean() == pytest.approx(loss(MANY_STEPS), rel=1e-5)  # rounding: x_hat does not depend on the draws
    assert loss(FEW_STEPS) < loss(MANY_STEPS) - 1
    many = measure(VariationalBound(MANY_STEPS, draws=64), bad)
    assert not failing(replace(evidence, many_steps=many, diffusion_again=again))


class _OnTime(AbstractPrediction):
    """Recovers the time from the schedule and uses the gamma of a linear schedule at that time."""

    inner: AbstractPrediction
    outputs: int = eqx.field(static=True)
    low: float
    rise: float

    def __call__(self, output, z, gamma, path):
        t = (jnp.sqrt(1 + 8 * (gamma - self.low) / self.rise) - 1) / 2  # of the curved schedule
        return self.inner(output, z, self.low + self.rise * t, path)


def test_a_network_that_is_conditioned_on_t_fails(evidence, oracle):
    """A network conditioned on t fails when its schedule is replaced."""
    model, test, index = oracle
    low, rise = evidence.gamma_0, evidence.gamma_1 - evidence.gamma_0
    moved = eqx.tree_at(lambda m: m.schedule, model, _Curved(low, low + rise))
    moved = eqx.tree_at(lambda m: m.prediction, moved, _OnTime(model.prediction, 1, low, rise))
    other = _in_time(moved, test, index, 64, jax.random.key(2, impl="rbg"))
    assert failing(replace(evidence, other_schedule=other)) == {"bound on another schedule - on its own"}


def test_checks_are_json(evidence):
    """Checks are written as JSON without infinities or NaN."""
    wrong = PLANTED["not a number"](evidence)
    for check in [*referee(evidence), *referee(wrong)]:
        facts = as_json(check)
        assert facts["verdict"] == check.verdict
        assert all(value is None or np.isfinite(value) for value in facts.values() if not isinstance(value, str))


def test_a_flow_that_oscillates_with_gamma_is_not_called_wrong(evidence, oracle):
    """A flow that oscillates in phase with both fixed-step solves does not fail."""
    model, test, index = oracle
    rate = 2 * np.pi * 64 / (evidence.gamma_1 - evidence.gamma_0)

    def network(z, gamma, condition, *, key=None):
        return 0.5 * jnp.cos(2 * rate * (gamma - evidence.gamma_0)) * jnp.ones((*z.shape, 1))

    given = {"schedule": model.schedule, "shape": model.shape, "observation": model.observation}
    rough, key, flow = DiffusionModel(prediction=X(), network=network, **given), jax.random.key(1), ProbabilityFlow()
    found = pass_over(flow, rough, test.pixels, index, None, batch_size=64, key=key)
    again = flow_again(flow, rough, test.pixels[index], index, batch_size=64, key=key)
    off = np.mean(np.asarray(found.nats) - np.asarray(again.estimates.nats))
    assert abs(off) > 0.1
    assert verdicts(replace(evidence, flow=report(found, index), flow_again=again))[SOLVED] != "fails"
