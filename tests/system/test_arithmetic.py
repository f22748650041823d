# SPDX-License-Identifier: Apache-2.0
"""Every number says what it was computed in and on, as the environment had it."""

import json
import shutil

import jax
import pytest

from vdmkit.devices import Arithmetic, arithmetic, precisely
from vdmkit.likelihood.consistency import audit_as_json
from vdmkit.training.loop import session

KEYS = ("precision", "matmul_precision", "device")
DRAWS = ("--set", "likelihood.estimator.draws=2")
FEW = ("--set", "likelihood.images=4", *DRAWS)
LEFT = {
    "evaluation.json": ("evaluate",),
    "likelihood/*.json": ("likelihood", *FEW),
    "schedule/schedule.json": ("study", "--images", "2", "--nodes", "11", "--steps", "2"),
}
PRINTED = {
    "quality": ("quality", "-n", "6", "--steps", "1", "--json"),
}


@pytest.fixture(scope="module")
def highest(program_in, tmp_path_factory, whole):
    """The JSON of every command that measures, and the text of those that leave it in a file, at a chosen precision."""
    program = program_in(tmp_path_factory.mktemp("highest"))
    shutil.copytree(whole, program.cwd / "run")
    with jax.default_matmul_precision("high"):
        results = [program(*command, "--ckpt", "run") for command in (LEFT | PRINTED).values()]
    for result in results:
        assert result.code == 0, result.err
    said = dict(zip(LEFT | PRINTED, (result.out for result in results), strict=True))
    left = {name: next((program.cwd / "run").glob(name)).read_text() for name in LEFT}
    return {name: (left[name], said[name]) for name in LEFT} | {name: (said[name], None) for name in PRINTED}


@pytest.mark.parametrize("name", LEFT | PRINTED)
def test_what_a_number_was_computed_in(highest, name: str) -> None:
    """Two numbers of different precision would look alike, in a file or on the screen."""
    file, text = highest[name]
    found = tuple(json.loads(file)[key] for key in KEYS)
    assert found[:2] == ("float32", "high")
    assert found[2].startswith("1 x ")
    assert text is None or ", ".join([found[0], f"matmul precision {found[1]}", found[2]]) in text


def test_an_audit_says_it_too() -> None:
    """Checks would be read as if they had been made in another precision."""
    facts = audit_as_json([], Arithmetic("float32", "highest", "1 x gpu"))
    assert facts == {"checks": [], "precision": "float32", "matmul_precision": "highest", "device": "1 x gpu"}


def test_what_this_process_computes_in() -> None:
    """The default would have no name, or training not know another precision."""
    assert arithmetic().matmul_precision == session(0, 1)["matmul_precision"] == "default"
    assert precisely(arithmetic)().matmul_precision == "highest"
    with jax.enable_x64(True), jax.default_matmul_precision("tensorfloat32"):
        assert str(arithmetic()).startswith("float64, matmul precision tensorfloat32, ")


def test_a_likelihood_goes_on_in_the_same_precision_alone(processes, whole, monkeypatch) -> None:
    """Batches of two precisions would be averaged, under the name of one."""
    shutil.copytree(whole, processes.cwd / "run")
    arguments = ("likelihood", "--ckpt", "run", *DRAWS, "--set", "likelihood.batch_size=7")
    last = r"SIGKILL os.rename likelihood\.unfinished/.*/14\.npz "
    for count, precision in enumerate(("default", "highest"), start=1):
        monkeypatch.setenv("JAX_DEFAULT_MATMUL_PRECISION", precision)
        assert processes(*arguments, faults=last).code == -9
        assert len(list((processes.cwd / "run" / "likelihood.unfinished").iterdir())) == count
