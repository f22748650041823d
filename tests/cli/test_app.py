# SPDX-License-Identifier: Apache-2.0
"""The frame of the program: help, version, exit codes, and no tracebacks."""

import vdmkit


def test_version(run):
    """The program and the package would disagree."""
    result = run("--version")
    assert (result.code, result.out) == (0, f"{vdmkit.__version__}\n")


def test_help_names_the_commands(run):
    """A command would be registered but not shown."""
    result = run("--help")
    assert result.code == 0
    assert {"check", "list"} <= set(result.out.split())


def test_an_unknown_command_is_suggested(run):
    """A typing mistake would have to be looked up."""
    result = run("chek")
    assert result.code == 2
    assert "Did you mean 'check'?" in result.err


def test_a_user_mistake_is_one_message(run_process):
    """The user would see a traceback, on the wrong stream, or exit code 0."""
    result = run_process("check", "no_such.toml")
    assert (result.code, result.out) == (2, "")
    assert result.err == "no_such.toml: cannot read the recipe: No such file or directory.\n"
