# SPDX-License-Identifier: Apache-2.0
"""The referee passes a sound model and fails every planted error."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vdmkit
from vdmkit.assembly import build_state, training_counts
from vdmkit.denoiser import AbstractPrediction
from vdmkit.likelihood import FEW_STEPS, Estimates, Evidence, Measured, VariationalBound, referee
from vdmkit.recipe import load_recipe
from vdmkit.run._audit import _Curved, _in_time, _measured, as_json, gather
from vdmkit.run._pass import pass_over

ORACLE = Path(vdmkit.__file__).parents[1] / "recipes" / "oracle_gaussian.toml"
SMALL = ["data.shape=[2, 3, 1]", "data.levels=5", "model.schedule.gamma_min=-4.0", "model.schedule.gamma_max=6.0"]


@pytest.fixture(scope="module")
def oracle():
    """An exact model, its test images, and the numbers of those that are measured."""
    recipe = load_recipe(ORACLE, SMALL)
    source = recipe.data.build()
    model = build_state(recipe, training_counts(recipe, source.load("train"))).model
    return model, source.load("test"), np.arange(100, 164)


@pytest.fixture(scope="module")
def evidence(oracle) -> Evidence:
    model, test, index = oracle
    return gather(model, test, index, batch_size=64, key=jax.random.key(0, impl="rbg"))


def with_terms(measured: Measured, **terms: Callable[[np.ndarray], np.ndarray]) -> Measured:
    """The same with some terms changed, and reported accordingly."""
    changed = {name: terms.get(name, lambda nats: nats)(nats) for name, nats in measured.estimates.terms.items()}
    estimates = Estimates(changed, measured.estimates.evaluations, measured.estimates.failed)
    return Measured(estimates, measured.index, float(np.mean(estimates.nats)) / 6 / np.log(2))


def of_images(measured: Measured, rows: np.ndarray) -> Measured:
    """As if these rows had been measured."""
    estimates = jax.tree.map(lambda values: values[:, rows], measured.estimates)
    return Measured(estimates, measured.index[rows], float(np.mean(estimates.nats)) / 6 / np.log(2))


def verdicts(evidence: Evidence) -> dict[str, str]:
    return {check.claim: check.verdict for check in referee(evidence)}


def failing(evidence: Evidence) -> set[str]:
    return {claim for claim, verdict in verdicts(evidence).items() if verdict == "fails"}


def test_a_sound_model_passes(evidence):
    """The referee would cry wolf, or be unable to tell anything."""
    found = verdicts(evidence)
    assert set(found.values()) == {"passes"}
    assert len(found) == 15


def gamma_rate_missing(e: Evidence) -> Evidence:
    return replace(e, bound=with_terms(e.bound, diffusion=lambda nats: nats / (e.gamma_1 - e.gamma_0)))


def t_off_by_one(e: Evidence, oracle) -> Evidence:
    model, test, index = oracle
    estimator, key = VariationalBound(FEW_STEPS - 1, draws=64), jax.random.key(1, impl="rbg")
    plan = estimator.plan(model, test.pixels[index], precision=0.0, key=key)
    wrong = _measured(pass_over(estimator, model, test.pixels, index, plan, batch_size=64, key=key), index, model)
    return replace(e, steps={**e.steps, FEW_STEPS: wrong})


PLANTED = {
    "reconstruction term missing": lambda e: replace(e, bound=with_terms(e.bound, reconstruction=np.zeros_like)),
    "prior term missing": lambda e: replace(e, bound=with_terms(e.bound, prior=np.zeros_like)),
    "gamma' missing": gamma_rate_missing,
    "gamma' missing everywhere in time": lambda e: replace(
        e, in_time=with_terms(e.in_time, diffusion=lambda nats: nats / (e.gamma_1 - e.gamma_0))
    ),
    "nats reported as bits": lambda e: replace(e, bound=replace(e.bound, bpd=e.bound.bpd * np.log(2))),
    "dequantisation entropy forgotten": lambda e: replace(e, flow=with_terms(e.flow, dequantisation=np.zeros_like)),
    "ODE integrated backwards": lambda e: replace(e, flow=with_terms(e.flow, volume=np.negative)),
    "noisy end off by 1": lambda e: replace(e, gamma_1=e.gamma_1 + 1),
    "clean end off by 1": lambda e: replace(e, gamma_0=e.gamma_0 + 1),
    "draws stop short of the ends": lambda e: replace(e, covered=e.covered - 1),
    "half of the test set": lambda e: replace(e, bound=of_images(e.bound, np.arange(32))),
    "shuffled repeats": lambda e: replace(e, bound=of_images(e.bound, np.random.default_rng(0).integers(64, size=64))),
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
    """The referee would pass a number that is no likelihood."""
    assert failing(PLANTED[error](evidence)), error


def test_t_off_by_one_fails(evidence, oracle):
    """A bound of T - 1 steps would pass for one of T."""
    assert failing(t_off_by_one(evidence, oracle)) >= {f"one importance sample - bound of {FEW_STEPS} steps"}


class _OnTime(AbstractPrediction):
    """Reads the time off the schedule, and then takes the gamma that a straight schedule had at that time."""

    inner: AbstractPrediction
    outputs: int = eqx.field(static=True)
    low: float
    rise: float

    def __call__(self, output, z, gamma, path):
        t = (jnp.sqrt(1 + 8 * (gamma - self.low) / self.rise) - 1) / 2  # of the curved schedule
        return self.inner(output, z, self.low + self.rise * t, path)


def test_a_network_that_is_conditioned_on_t_fails(evidence, oracle):
    """A model whose schedule moved away from the times that its network knows would pass."""
    model, test, index = oracle
    low, rise = evidence.gamma_0, evidence.gamma_1 - evidence.gamma_0
    moved = eqx.tree_at(lambda m: m.schedule, model, _Curved(low, low + rise))
    moved = eqx.tree_at(lambda m: m.prediction, moved, _OnTime(model.prediction, 1, low, rise))
    other = _in_time(moved, test, index, 64, jax.random.key(2, impl="rbg"))
    assert failing(replace(evidence, other_schedule=other)) == {"bound on another schedule - on its own"}


def test_checks_are_json(evidence):
    """A program that reads audit.json would meet an infinity, or a NaN."""
    wrong = PLANTED["not a number"](evidence)
    for check in [*referee(evidence), *referee(wrong)]:
        facts = as_json(check)
        assert facts["verdict"] == check.verdict
        assert all(value is None or np.isfinite(value) for value in facts.values() if not isinstance(value, str))
