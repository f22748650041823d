# SPDX-License-Identifier: Apache-2.0
"""The solver error of a mean, estimated from a finer solve of a few images."""

import jax
import numpy as np
import pytest

from vdmkit.errors import UntrustedError
from vdmkit.likelihood import AbstractEstimator, Estimates
from vdmkit.likelihood.log_likelihood import log_likelihood
from vdmkit.likelihood.ode import SolverError


def test_the_error_allows_for_the_images_that_were_not_solved_again():
    """The half-width of the solver error accounts for images that were not solved again."""
    error = SolverError(np.array([1e-3, 3e-3, 2e-3, 2e-3]), 10)
    assert error.value == pytest.approx(2e-3)
    assert error.half_width == pytest.approx(
        2e-3 + 3.182446 * np.sqrt(2 / 3) * 1e-3 / 2, rel=1e-6
    )  # Student's t, n = 4
    assert error.reasons() == []


@pytest.mark.parametrize(
    ("differences", "reason"),
    [
        ([0.1, 0.1, 0.1, 0.1], "has not converged: a finer solve differs by +0.1000"),
        ([-0.02, 0.02, -0.02, 0.02], "on all images perhaps by 0.0367"),
        ([0.0, 0.0, np.nan, 0.0], "the error of the solver is not known"),
    ],
)
def test_a_solver_that_did_not_converge_is_a_reason(differences, reason):
    """A solver that did not converge is a reason not to trust the value."""
    (found,) = SolverError(np.array(differences), 10).reasons()
    assert reason in found


def test_an_unknown_error_is_no_small_one():
    """A failed solve has an infinite error."""
    assert SolverError(np.array([np.nan, 0.0]), 1).half_width == np.inf


class _Solved(AbstractEstimator):
    """An estimator of a plugin: 10 nats for every image, with a solver error of `off` nats."""

    off: float

    def describe(self, levels):
        return "solved"

    def plan(self, model, images, *, precision, key):
        return "a plan"

    def rounds(self, plan):
        return 1

    def evaluations_of(self, plan):
        assert plan == "a plan"
        return 1_000_000

    def discretisation_error(self, model, images, index, *, key):
        return np.full(len(images), self.off), 1_000

    def __call__(self, model, images, index, plan, *, replicate, key, on_round=lambda: None):
        n = len(images)
        return Estimates({"solved": np.full(n, 10.0)}, np.full(n, 2), np.zeros(n, bool))


@pytest.mark.parametrize(("off", "trusted"), [(0.01, True), (1.0, False)])
def test_any_estimator_reports_a_solver_error(tiny_model, tiny_images, off, trusted):
    """A plugin's estimator can report a solver error, which is included in the result and its cost."""
    pixels = tiny_images.pixels
    found = log_likelihood(tiny_model, pixels, key=jax.random.key(0), estimator=_Solved(off))
    nats_per_bit_per_dim = tiny_model.dimensions * np.log(2)
    assert found.solver is not None
    assert found.solver.value == pytest.approx(off / nats_per_bit_per_dim)
    assert found.mean().half_width_solver == pytest.approx(off / nats_per_bit_per_dim)  # the same for all images
    assert found.total_evaluations == 4 * len(pixels) + 1_001_000
    if trusted:
        assert found.bits_per_dim.value == pytest.approx(10 / nats_per_bit_per_dim)
    else:
        with pytest.raises(UntrustedError, match="the solver has not converged"):
            _ = found.bits_per_dim
