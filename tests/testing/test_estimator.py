# SPDX-License-Identifier: Apache-2.0
"""Likelihood estimators: registered ones pass, and others are told why they do not."""

from abc import abstractmethod

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest

from vdmkit.errors import ConformanceError
from vdmkit.likelihood import Estimates, ProbabilityFlow, VariationalBound
from vdmkit.registry import registry
from vdmkit.testing import check_estimator


@pytest.mark.costly
@pytest.mark.parametrize("levels", [0, pytest.param(17, marks=pytest.mark.system)])
@pytest.mark.parametrize("name", sorted(registry("estimator").components))
def test_estimators(build, name, levels):
    """A registered estimator would not bound -log P, or its replicates share their draws."""
    params = {"importance": {"steps": 8}}
    check_estimator(build("estimator", name, **params.get(name, {})), levels)


@pytest.mark.system
def test_a_solver_that_is_coarse_for_the_ends():
    """A correct estimator would be called a liar for what it says of its solver beside the number."""
    check_estimator(ProbabilityFlow(rtol=1e-4, atol=1e-4), 0, ends=(-20.0, 24.0))


class _Changed(VariationalBound):
    """The bound, of which each term is changed."""

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
    """Of a larger image, the reconstruction of eight values only."""

    def changed(self, name, nats, values):
        return nats * min(1.0, 8 / values) if name == "reconstruction" else nats


class _Same(VariationalBound):
    """Two replicates that are one."""

    def __call__(self, *args, replicate, **options):
        return super().__call__(*args, replicate=0, **options)


class _SharedDraws(VariationalBound):
    """The same draws for every second image."""

    def __call__(self, model, images, index, *args, **options):
        return super().__call__(model, images, index % 2, *args, **options)


class _Middle(eqx.Module):
    loss: eqx.Module

    def __call__(self, model, x, gamma, eps, *, key):
        return jnp.where((gamma > 0.1) | (gamma < -4.6), 0.0, self.loss(model, x, gamma, eps, key=key))


class _OnlyMiddle(VariationalBound):
    """The loss counts where a check on a short schedule would look."""

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
}


@pytest.mark.costly
@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_estimators(wrong):
    """A likelihood would be too high, or its error bar too small."""
    with pytest.raises(ConformanceError, match=WRONG[wrong]):
        check_estimator(wrong(), 17)
