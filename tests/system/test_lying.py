# SPDX-License-Identifier: Apache-2.0
"""Commands that would report the numbers of components that lie end with exit code 4 and the reason."""

import re
from pathlib import Path

import pytest

LYING = ("--plugin", str(Path(__file__).with_name("lying.py")))


def test_a_run_of_a_component_that_lies_is_refused(program, tiny):
    """A refused run would leave a folder, or exit as if its number were good."""
    result = program("run", tiny, "--out", "run", *LYING, "--set", "model.observation.name=fat")
    assert (result.code, result.out) == (4, "")
    assert "no number of this model can be trusted: observation 'fat' of" in result.err
    assert not (program.cwd / "run").exists()


@pytest.mark.system
def test_likelihoods_by_what_lies_are_refused(program, tiny):
    """An estimator that leaves out a term, or an ODE of a network whose gradient is stopped, would be trusted."""
    chosen = ("--set", "model.network.name=stopped_network", "--set", "model.prediction.name=eps")
    trained = program("run", tiny, "--out", "run", *LYING, *chosen)
    assert trained.code == 0, trained.err  # its bound is right: nothing differentiates the network
    for options, reason in {
        ("--estimator", "ode"): "network 'stopped_network' of .*lying.py: the derivative of eps_hat by the network",
        ("--estimator", "without_prior"): "estimator 'without_prior' of .*: .* it does not bound -log P",
    }.items():
        result = program("likelihood", "--ckpt", "run", *options)
        assert (result.code, result.out) == (4, "")
        assert re.search(reason, result.err), result.err
