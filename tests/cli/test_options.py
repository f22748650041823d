# SPDX-License-Identifier: Apache-2.0
"""How commands and options are named to the user."""

import shlex
from pathlib import Path

import pytest

from vdmkit.cli.options import command, of_estimator, with_steps
from vdmkit.errors import RecipeError
from vdmkit.recipes import load_recipe


def test_a_command_can_be_pasted_into_a_shell(monkeypatch):
    """Printed commands are quoted for the shell, and start with `uv run` under uv."""
    monkeypatch.delenv("UV_RUN_RECURSION_DEPTH", raising=False)
    folder = Path("my runs/it's")
    assert command("sample", "--ckpt", Path("runs/digits")) == "vdmkit sample --ckpt runs/digits"
    assert shlex.split(command("sample", "--ckpt", folder)) == ["vdmkit", "sample", "--ckpt", str(folder)]
    monkeypatch.setenv("UV_RUN_RECURSION_DEPTH", "1")
    assert command("list") == "uv run vdmkit list"


OPTIONS = [
    (of_estimator(-5, None, None), "--steps -5: likelihood.estimator.steps: expected greater than or equal to 0"),
    (of_estimator(None, "nope", None), "--kernel nope: likelihood.estimator.kernel.name: unknown kernel 'nope'."),
    (with_steps([], 100_000), "--steps 100000: sampling.steps: expected less than or equal to 10000"),
]


@pytest.mark.parametrize(("overrides", "message"), OPTIONS, ids=lambda value: str(value)[:20])
def test_a_refused_value_is_placed_at_its_option(overrides, message):
    """The error for a value names the option it was given by."""
    with pytest.raises(RecipeError) as refused:
        load_recipe("digits", overrides)
    assert str(refused.value).startswith(message)
