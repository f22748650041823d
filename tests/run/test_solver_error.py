# SPDX-License-Identifier: Apache-2.0
"""What a finer solve of a few images says of the mean of all, and when nothing is to be believed."""

import numpy as np
import pytest

from vdmkit.likelihood._solver_error import SolverError


def test_the_error_allows_for_the_images_that_were_not_solved_again():
    """A mean over four images would pass for that over all."""
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
    """A value of a few wild steps would be a likelihood, with an interval of whatever width."""
    (found,) = SolverError(np.array(differences), 10).reasons()
    assert reason in found


def test_an_unknown_error_is_no_small_one():
    """A failed solve would count as one without error."""
    assert SolverError(np.array([np.nan, 0.0]), 1).half_width == np.inf
