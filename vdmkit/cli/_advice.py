# SPDX-License-Identifier: Apache-2.0
"""Advice on command lines that are refused: new names of commands and options, `--set`, and a forgotten `--ckpt`."""

import re
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer

RENAMED = {
    "score": "quality",
    "schedule": "study",
    "--step": "--checkpoint-step",
}
_ALL = ("training.", "model.", "objective.", "optimizer.", "evaluation.", "sampling.", "augmentations", "data", "seed")
_SETS = {
    "run": _ALL,
    "check": _ALL,
    "pack": ("data",),
    "evaluate": ("evaluation.", "data", "seed"),
    "likelihood": ("likelihood.", "data", "seed"),
    "classify": ("likelihood.", "data", "seed"),
    "study": ("likelihood.weights", "data", "seed"),
    "sample": ("sampling.", "evaluation.weights"),
    "quality": ("sampling.", "evaluation.weights", "data", "seed"),
    "compress": ("likelihood.weights",),
}
"""The recipe keys that a command uses, by how they begin, first those that are probably meant."""
_UNKNOWN = re.compile(r"No such (?:command|option:) ('?)([\w-]+)\1")
_OVERRIDE = re.compile(r"Got unexpected extra argument.*\((\w[\w.]*=[^\s)]+)")
_UsageError: Any = typer.BadParameter.__base__  # typer's own or click's, by the version of typer


@contextmanager
def advising() -> Iterator[None]:
    """Adds to an error what to write instead of an old name, a key without `--set`, or a run without `--ckpt`."""
    try:
        yield
    except _UsageError as error:
        names = _names(error.ctx.command) if error.ctx else set()
        if (found := _UNKNOWN.match(error.message)) and (new := RENAMED.get(found[2])) in names:
            error.message = f"{found[0]}. It is now called {found[1]}{new}{found[1]}."
            error.possibilities = None
        elif (found := _OVERRIDE.match(error.message)) and "--set" in names:
            error.message += f". To override a key of the recipe: --set {shlex.quote(found[1])}"
        elif (found := _UNKNOWN.match(error.message)) and (keys := _keys(error.ctx, found[2])):
            others = f" (or {', '.join(keys[1:])})" if keys[1:] else ""
            override = shlex.quote(f"{keys[0]}={_value(found[2])}")
            error.message = f"{found[0]}. It is a key of the recipe: --set {override}{others}"
            error.possibilities = None
        elif run := _run_without_option(error):
            raise _UsageError(
                f"Missing option '--ckpt'. Did you mean --ckpt {shlex.quote(run)}?", ctx=error.ctx
            ) from None
        raise


def _keys(ctx: Any, option: str) -> list[str]:
    """Returns the recipe keys by the name of an unknown option that the command uses."""
    if not option.startswith("--") or ctx is None or ctx.info_name not in _SETS:
        return []
    from vdmkit.recipe import keys_called

    found = keys_called(option.removeprefix("--").replace("-", "_"))
    return [key for section in _SETS[ctx.info_name] for key in found if key.startswith(section)]


def _value(option: str) -> str:
    """Returns the value that the command line gives to an option, or VALUE."""
    for word, following in zip(sys.argv, [*sys.argv[1:], "-"], strict=True):
        name, equals, value = word.partition("=")
        if name == option and (equals or not following.startswith("-")):
            return value if equals else following
    return "VALUE"


def _run_without_option(error: Any) -> str:
    """Returns the first word after a command that takes no argument and misses its `--ckpt`, or ''."""
    parameters = error.ctx.command.params if error.ctx else []
    missing = getattr(getattr(error, "param", None), "opts", [])
    takes_words = any(parameter.param_type_name == "argument" for parameter in parameters)
    first = next(iter(sys.argv[2:]), "-")
    return first if "--ckpt" in missing and not takes_words and not first.startswith("-") else ""


def _names(command: Any) -> set[str]:
    """Returns the names of a command's options and of the commands in it."""
    return {name for parameter in command.params for name in parameter.opts} | {*getattr(command, "commands", ())}
