# SPDX-License-Identifier: Apache-2.0
"""Conformance of estimators: registered ones pass, and wrong ones are refused with a reason."""

from abc import abstractmethod

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vdmkit.conformance import check_estimator
from vdmkit.conformance.estimators import check_estimator_of_model
from vdmkit.errors import ConformanceError
from vdmkit.likelihood import AbstractEstimator, Estimates, ProbabilityFlow, VariationalBound
from vdmkit.losses import eps_error, prior_loss, reconstruction_loss
from vdmkit.model import DiffusionModel
from vdmkit.process import StraightLine
from vdmkit.registry import registry
from vdmkit.schedules import Cosine


@pytest.mark.costly
@pytest.mark.parametrize("levels", [0, pytest.param(17, marks=pytest.mark.system)])
@pytest.mark.parametrize("name", sorted(registry("estimator").components))
def test_estimators(build, name, levels):
    """Every registered estimator passes its conformance checks."""
    params = {"importance": {"steps": 8}}
    check_estimator(build("estimator", name, **params.get(name, {})), levels)


@pytest.mark.system
def test_a_solver_that_is_coarse_for_the_ends():
    """A correct estimator whose solver error is not negligible passes."""
    check_estimator(ProbabilityFlow(rtol=1e-4, atol=1e-4), 0, ends=(-20.0, 24.0))


class _Changed(VariationalBound):
    """The bound with every term changed."""

    @abstractmethod
    def changed(self, name, nats, values): ...

    def __call__(self, model, images, *args, **options):
        found, values = super().__call__(model, images, *args, **options), images[0].size
        terms = {name: self.changed(name, nats, values) for name, nats in found.terms.items()}
        return Estimates(terms, found.evaluations, found.failed)


class _Cheap(_Changed):
    def changed(self, name, nats, values):
        return 0.9 * nats


class _NotFinite(_Changed):
    def changed(self, name, nats, values):
        return nats * np.nan if name == "diffusion" else nats


class _Corner(_Changed):
    """For larger images, counts the reconstruction of eight values only."""

    def changed(self, name, nats, values):
        return nats * min(1.0, 8 / values) if name == "reconstruction" else nats


class _LinearInTime(AbstractEstimator[None]):
    """The bound, with gamma' as if gamma were linear in time."""

    def describe(self, levels):
        return "a bound"

    def plan(self, model, images, *, precision, key):
        return None

    def rounds(self, plan):
        return 1

    @eqx.filter_jit
    def __call__(self, model, images, index, plan, *, replicate, key, on_round=lambda: None):
        rise = model.schedule(jnp.ones(())) - model.schedule(jnp.zeros(()))

        def one(image, index):
            of_image = jax.random.fold_in(jax.random.fold_in(key, replicate), index)
            key_t, *keys = jax.random.split(of_image, 3)
            gamma = model.schedule(jax.random.uniform(key_t))
            eps, eps_0 = (jax.random.normal(key, image.shape) for key in keys)
            x = model.observation.encode(image)
            diffusion = rise / 2 * eps_error(model, x, gamma, eps, {})
            return {
                "prior": prior_loss(model, x),
                "reconstruction": reconstruction_loss(model, image, eps_0),
                "diffusion": diffusion,
            }

        terms = jax.vmap(one)(images, index)
        return Estimates(terms, jnp.ones(len(images), int), jnp.zeros(len(images), bool))


class _Same(VariationalBound):
    """Uses the same draws for both replicates."""

    def __call__(self, *args, replicate, **options):
        return super().__call__(*args, replicate=0, **options)


class _SharedDraws(VariationalBound):
    """Uses the same draws for every second image."""

    def __call__(self, model, images, index, *args, **options):
        return super().__call__(model, images, index % 2, *args, **options)


class _Middle(eqx.Module):
    loss: eqx.Module

    def __call__(self, model, x, gamma, eps, *, key):
        return jnp.where((gamma > 0.1) | (gamma < -4.6), 0.0, self.loss(model, x, gamma, eps, key=key))


class _OnlyMiddle(VariationalBound):
    """Counts the loss only for gammas in the range of a short schedule."""

    def __call__(self, model, images, index, plan, **options):
        plan = eqx.tree_at(lambda plan: plan.loss, plan, _Middle(plan.loss))
        return super().__call__(model, images, index, plan, **options)


WRONG = {
    _Cheap: "it does not bound -log P",
    _NotFinite: "its term diffusion is not finite",
    _Corner: "it does not bound -log P",
    _Same: "replicates are not independent, with correlation 1.000",
    _SharedDraws: "images share their draws: the error of their mean is",
    _OnlyMiddle: "it does not bound -log P",
    _LinearInTime: "it does not bound -log P",
}


@pytest.mark.costly
@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_estimators(wrong):
    """Estimators that overstate the likelihood or understate its error are refused."""
    with pytest.raises(ConformanceError, match=WRONG[wrong]):
        check_estimator(wrong(), 17)


class _Crop(_Changed):
    """Counts at most 4x4 pixels."""

    def changed(self, name, nats, values):
        return nats * min(1.0, 16 / values)


class _OnStraightLines(VariationalBound):
    """Is too low on the straight-line path only."""

    def __call__(self, model, *args, **options):
        found = super().__call__(model, *args, **options)
        lower = {name: 0.75 * nats for name, nats in found.terms.items()}
        return Estimates(lower, found.evaluations, found.failed) if isinstance(model.path, StraightLine) else found


@pytest.mark.costly
@pytest.mark.parametrize("estimator", [VariationalBound(), _Crop(), _OnStraightLines()], ids=lambda e: type(e).__name__)
def test_an_estimator_is_checked_on_the_models_shape_schedule_and_path(tiny_model, estimator):
    """An estimator is checked with the shape, schedule and path of the model."""
    parts = {"network": tiny_model.network, "prediction": tiny_model.prediction, "shape": (6, 5, 1), "levels": 17}
    model = DiffusionModel(schedule=Cosine(), path=StraightLine(), **parts)
    if isinstance(estimator, _Changed | _OnStraightLines):
        with pytest.raises(ConformanceError, match="it does not bound -log P"):
            check_estimator_of_model(estimator, model)
    else:
        check_estimator_of_model(estimator, model)


@pytest.mark.costly
def test_a_solver_that_fails_on_one_image_is_not_asked_for_the_rest(tiny_model, monkeypatch):
    """If the solver fails on the first image, the other images are not solved."""
    solved = []
    sound = ProbabilityFlow.__call__

    def counted(self, model, images, *rest, **how):
        solved.append(len(images))
        return sound(self, model, images, *rest, **how)

    monkeypatch.setattr(ProbabilityFlow, "__call__", counted)
    check_estimator_of_model(ProbabilityFlow(max_steps=1), tiny_model)
    assert solved == [1]
    check_estimator_of_model(ProbabilityFlow(rtol=1e-2, atol=1e-2), tiny_model)
    assert sum(solved) > 16
