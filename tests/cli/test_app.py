# SPDX-License-Identifier: Apache-2.0
"""The program itself: help, version, exit codes, and errors without tracebacks."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import vdmkit

ROOT = Path(__file__).parents[2]


def test_version(run):
    """`vdmkit --version` prints the version of the package."""
    result = run("--version")
    assert (result.code, result.out) == (0, f"{vdmkit.__version__}\n")


def test_help_names_the_commands(run):
    """`vdmkit --help` lists the commands."""
    result = run("--help")
    assert result.code == 0
    assert {"check", "list"} <= set(result.out.split())


def test_an_unknown_command_is_suggested(run):
    """For a misspelt command the nearest one is suggested."""
    result = run("chek")
    assert result.code == 2
    assert "Did you mean 'check'?" in result.err


def test_a_user_mistake_is_one_message(run_process):
    """A user's mistake gives one message on stderr and exit code 2."""
    result = run_process("check", "no_such.toml")
    assert (result.code, result.out) == (2, "")
    assert result.err == "no_such.toml: cannot read the recipe: no such file.\n"


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError(28, "No space left on device", "run/a.json"), "run/a.json: No space left on device"),
        (ZeroDivisionError("division by zero"), "division by zero"),
    ],
)
def test_what_a_machine_refuses_is_not_called_a_defect(run, recipe, monkeypatch, error, line):
    """Errors of the system are not reported as defects of vdmkit, and defects are."""
    monkeypatch.setattr("vdmkit.recipes.loading.load_recipe", lambda *arguments: (_ for _ in ()).throw(error))
    result = run("check", str(recipe))
    assert (result.code, result.out) == (1, "")
    assert line in result.err.splitlines()[0]
    assert ("defect" in result.err) == isinstance(error, ZeroDivisionError)


@pytest.mark.system
def test_a_device_that_is_not_there_is_no_defect(run_process, monkeypatch):
    """An unavailable device in JAX_PLATFORMS is not reported as a defect of vdmkit."""
    monkeypatch.setenv("JAX_PLATFORMS", "nonsense")
    result = run_process("bench", str(ROOT / "recipes" / "digits.toml"))
    assert result.code == 1
    assert result.err.startswith("JAX_PLATFORMS=nonsense: JAX finds no such device (")
    assert "defect" not in result.err


@pytest.mark.system
def test_a_defect_is_one_message_unless_the_traceback_is_asked_for(tmp_path):
    """An unexpected exception gives one message, and a traceback on request."""
    plugin = tmp_path / "broken.py"
    plugin.write_text(
        "import vdmkit\n"
        '@vdmkit.register("data", "broken")\n'
        "def broken(*, n: int = 1):\n"
        '    """A source that cannot be built."""\n'
        "    return n / 0\n"
    )
    recipe = str(ROOT / "recipes" / "digits.toml")
    command = [sys.executable, "-m", "vdmkit", "check", recipe, "--plugin", str(plugin), "--set", "data.name=broken"]
    for wanted in ("", "1"):
        environment = os.environ | {"VDMKIT_TRACEBACK": wanted}
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 1
        assert ("Traceback" in done.stderr) == bool(wanted)
        assert "division by zero" in done.stderr
        assert f"{plugin}" in done.stderr
