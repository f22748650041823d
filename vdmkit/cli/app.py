# SPDX-License-Identifier: Apache-2.0
"""The `vdmkit` program: its commands, the handling of errors, and the setup of JAX's compilation cache.

A command is a function in a module of its group; it imports JAX only when called. Installed packages add commands
(`Commands`), and are imported only when commands are listed or called. Refused command lines get advice: new names of
commands and options, `--set`, and a missing `--ckpt`.
"""

import gc
import os
import re
import shlex
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from importlib.metadata import EntryPoint
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from vdmkit import __version__
from vdmkit.cli.inspecting import bench, check, doctor, list_components
from vdmkit.cli.measuring import compare, evaluate, likelihood, quality, report, sample, study
from vdmkit.cli.new_plugin import new_plugin
from vdmkit.cli.processes import distributed, end, end_if_lost, hear_again, stoppable
from vdmkit.cli.training import convert, import_checkpoint, pack, run, verify
from vdmkit.errors import (
    DamageWarning,
    DataError,
    Interrupted,
    PluginError,
    PluginWarning,
    RegistryError,
    VdmkitError,
    in_one_line,
    place_of,
    words_of,
)
from vdmkit.io import cache_folder
from vdmkit.plugins import load_command, plugin_commands

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
_UsageError: Any = typer.BadParameter.__base__  # typer's own or click's, depending on the version of typer


@contextmanager
def advising() -> Iterator[None]:
    """Adds to a usage error the new name of an option or command, or a hint that `--set` or `--ckpt` is missing."""
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
    """Returns the recipe keys that the command uses and that have the name of an unknown option."""
    if not option.startswith("--") or ctx is None or ctx.info_name not in _SETS:
        return []
    from vdmkit.recipes.schema import keys_called

    found = keys_called(option.removeprefix("--").replace("-", "_"))
    return [key for section in _SETS[ctx.info_name] for key in found if key.startswith(section)]


def _value(option: str) -> str:
    """Returns the value of an option on the command line, or VALUE."""
    for word, following in zip(sys.argv, [*sys.argv[1:], "-"], strict=True):
        name, equals, value = word.partition("=")
        if name == option and (equals or not following.startswith("-")):
            return value if equals else following
    return "VALUE"


def _run_without_option(error: Any) -> str:
    """Returns the first word after a command that takes no argument but lacks its `--ckpt`, or ''."""
    parameters = error.ctx.command.params if error.ctx else []
    missing = getattr(getattr(error, "param", None), "opts", [])
    takes_words = any(parameter.param_type_name == "argument" for parameter in parameters)
    first = next(iter(sys.argv[2:]), "-")
    return first if "--ckpt" in missing and not takes_words and not first.startswith("-") else ""


def _names(command: Any) -> set[str]:
    """Returns the names of a command's options and subcommands."""
    return {name for parameter in command.params for name in parameter.opts} | {*getattr(command, "commands", ())}


_OF_PLUGINS: dict[str, str] = dict.fromkeys(("compress", "decompress", "inspect"), "vdmkit-codec")
_OF_PLUGINS["classify"] = "vdmkit-classification"


class Commands(TyperGroup):
    """The commands of vdmkit and of installed packages, by name."""

    @cached_property
    def _of_packages(self) -> dict[str, EntryPoint]:
        """Returns the commands of packages, cached so that a warning about a taken name is printed only once."""
        return plugin_commands(self.commands)

    def list_commands(self, ctx: Any) -> list[str]:
        return [*super().list_commands(ctx), *self._of_packages]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        entry = self._of_packages.get(cmd_name)
        if entry is None and (package := _OF_PLUGINS.get(cmd_name)):
            raise RegistryError(
                f"vdmkit {cmd_name}: is a command of the plugin {package}, which is not installed. "
                f"In a checkout of vdmkit: pip install -e plugins/{package}, or uv sync."
            )
        return _command(entry) if entry else super().get_command(ctx, cmd_name)

    def invoke(self, ctx: Any) -> Any:
        with advising():
            return super().invoke(ctx)


def _command(entry: EntryPoint) -> Any:
    """Loads a package's command; returns None if the package does not load."""

    def make(function: Callable[..., Any]) -> Any:
        alone = typer.Typer(add_completion=False, rich_markup_mode=None)
        alone.command(entry.name)(stoppable(function))
        return typer.main.get_command(alone)

    return load_command(entry, make)


_NO_FOLDER = "No folder was made. Run the same command again."

app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # rich would add 0.1 s to --help
)
data = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Pack images that do not fit in memory.")
data.command()(stoppable(pack))
data.command()(stoppable(verify))
app.command()(stoppable(distributed(run), "What was saved is kept: to go on, run the same command again."))
app.command()(stoppable(distributed(evaluate), "No result was written. Run the same command again."))
app.command()(
    stoppable(distributed(likelihood), "Batches that were done are kept: to go on, run the same command again.")
)
app.command()(stoppable(distributed(sample), "No samples were written. Run the same command again."))
app.command()(stoppable(compare, "Batches that were done are kept: to go on, run the same command again."))
app.command()(stoppable(study, "Run the same command again."))
app.command()(stoppable(quality, "No score was computed. Run the same command again."))
app.command()(stoppable(report, "No page was written. Run the same command again."))
app.command()(stoppable(convert, _NO_FOLDER))
app.command()(stoppable(check))
app.command()(stoppable(bench))
app.command()(stoppable(doctor))
app.add_typer(data, name="data")
app.command("import")(stoppable(import_checkpoint, _NO_FOLDER))
app.command("list")(stoppable(list_components))
app.command()(stoppable(new_plugin))


def main() -> None:
    """Runs the program. A user error ends it with one message and an exit code, without a traceback."""
    gc.set_threshold(50_000, 20, 20)  # a command creates many long-lived objects at once: modules, traces
    hear_again()
    warnings.showwarning = _show_warning
    use_compilation_cache()
    try:
        app(prog_name="vdmkit")
    except VdmkitError as error:
        if isinstance(error, PluginError) and os.environ.get("VDMKIT_TRACEBACK"):
            raise
        end(error, error.exit_code, common=isinstance(error, Interrupted))
    except OSError as error:  # a full disk, a folder that may not be written
        end(words_of(error))
    except Exception as error:
        end_if_lost(error)
        if os.environ.get("VDMKIT_TRACEBACK"):
            raise
        end(_missing_device() or _defect(error))


def use_compilation_cache() -> None:
    """Makes JAX, which must not be imported yet, store compiled functions in the subfolder xla of the cache folder.

    JAX's own environment variables take precedence. Without a folder that only this user can write to, the cache is
    disabled: an entry is a program, and JAX runs whatever it finds there.
    """
    try:
        folder = cache_folder() / "xla"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.stat()
    except (DataError, OSError):
        return
    if found.st_uid != os.geteuid() or found.st_mode & 0o022 or not os.access(folder, os.W_OK):
        return
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(folder))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")  # the checks compile many small functions
    # If an entry cannot be read or written, for example on a full disk, the function is compiled again.
    warnings.filterwarnings("ignore", "Error (reading|writing) persistent compilation cache")


def _show_warning(message: Warning | str, category: type[Warning], *place: object) -> None:
    """Prints a warning on one line, with its location in the code unless it is about a plugin package or a file."""
    where = "" if issubclass(category, PluginWarning | DamageWarning) else f" ({':'.join(map(str, place[:2]))})"
    print(f"warning: {message}{where}", file=sys.stderr)


def _missing_device() -> str:
    """Returns why JAX has no device, or "" if the command has not imported JAX."""
    if "jax" not in sys.modules:
        return ""
    from vdmkit.devices import missing_device

    return missing_device()


def _defect(error: Exception) -> str:
    return (
        f"{in_one_line(error)}{place_of(error)}\n"
        "This is a defect of vdmkit or of a plugin. VDMKIT_TRACEBACK=1 before the command shows how it came to this."
    )


def _print_version(wanted: bool) -> bool:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit
    return wanted


@app.callback()
def vdmkit(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Variational diffusion models: train, evaluate and sample from one recipe."""
