# SPDX-License-Identifier: Apache-2.0
"""The start of many processes: what is refused before any of them waits for another."""

import pytest

from vdmkit.errors import DistributedError, RecipeError
from vdmkit.multihost import start


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch):
    """Variables of the machine that runs the tests say nothing here, and nothing is connected."""
    for name in ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("jax.distributed.initialize", lambda **how: pytest.fail(f"connected by {how}"))


def test_a_cluster_that_was_not_asked_for(monkeypatch):
    """A command inside an allocation would hang, or crash on variables that are only partly set."""
    for name in ("SLURM_JOB_ID", "SLURM_NTASKS", "JAX_NUM_PROCESSES"):
        monkeypatch.setenv(name, "2")
    assert start("off") is None
    assert start("off", processes=1) is None


@pytest.mark.parametrize(
    ("error", "words", "arguments"),
    [
        (DistributedError, "--processes 4: found 1", {"mode": "off", "processes": 4}),
        (RecipeError, "--coordinator: only --distributed explicit", {"mode": "off", "coordinator": "a:1"}),
        (RecipeError, "--process: only --distributed explicit", {"mode": "slurm", "process": 0}),
        (DistributedError, "this is not a pod", {"mode": "k8s"}),
        (RecipeError, "--processes or JAX_NUM_PROCESSES", {"mode": "explicit", "coordinator": "a:1", "process": 0}),
        (
            RecipeError,
            "--process 2: expected 0 to 1",
            {"mode": "explicit", "coordinator": "a:1", "processes": 2, "process": 2},
        ),
        (
            RecipeError,
            "--coordinator a: expected HOST:PORT",
            {"mode": "explicit", "coordinator": "a", "processes": 2, "process": 0},
        ),
    ],
)
def test_refusals(error, words, arguments):
    """A wrong option would be ignored, so that each process trains alone, or end in JAX's traceback."""
    with pytest.raises(error, match=words):
        start(**arguments)


def test_variables_that_are_not_numbers(monkeypatch):
    """A mistake in a launch file would end in Python's traceback."""
    monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", "a:1")
    monkeypatch.setenv("JAX_NUM_PROCESSES", "two")
    monkeypatch.setenv("JAX_PROCESS_ID", "0")
    with pytest.raises(RecipeError, match="JAX_NUM_PROCESSES: expected a number, found 'two'"):
        start("explicit")
