# SPDX-License-Identifier: Apache-2.0
"""The `vdmkit` program. A command is a function in its own file, added below; it imports JAX only when called.

Installed packages bring more commands: see `Commands`.
"""

import gc
import os
import sys
import warnings
from typing import Annotated

import typer

from vdmkit import __version__
from vdmkit.cli._bench import bench
from vdmkit.cli._check import check
from vdmkit.cli._classify import classify
from vdmkit.cli._commands import Commands
from vdmkit.cli._compare import compare
from vdmkit.cli._compiled import keep_compiled
from vdmkit.cli._convert import convert
from vdmkit.cli._data import pack, verify
from vdmkit.cli._distributed import distributed, end, end_if_lost
from vdmkit.cli._doctor import doctor
from vdmkit.cli._evaluate import evaluate
from vdmkit.cli._import import import_checkpoint
from vdmkit.cli._likelihood import likelihood
from vdmkit.cli._list import list_components
from vdmkit.cli._new_plugin import new_plugin
from vdmkit.cli._quality import quality
from vdmkit.cli._report import report
from vdmkit.cli._run import run
from vdmkit.cli._sample import sample
from vdmkit.cli._stoppable import hear_again, stoppable
from vdmkit.cli._study import study
from vdmkit.errors import (
    DamageWarning,
    Interrupted,
    PluginError,
    PluginWarning,
    VdmkitError,
    in_one_line,
    place_of,
    words_of,
)

_NO_FOLDER = "No folder was made. Run the same command again to begin anew."

app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # rich would cost --help a tenth of a second
)
data = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Pack images that do not fit in memory.")
data.command()(stoppable(pack, "Files that were finished are kept: to go on, run the same command again."))
data.command()(stoppable(verify))
app.command()(stoppable(distributed(run), "What was saved is kept: to go on, run the same command again."))
app.command()(stoppable(distributed(evaluate), "No result was written. Run the same command again to begin anew."))
app.command()(
    stoppable(distributed(likelihood), "Batches that were done are kept: to go on, run the same command again.")
)
app.command()(stoppable(classify, "Nothing was written. Run the same command again to begin anew."))
app.command()(stoppable(distributed(sample), "No samples were written. Run the same command again to begin anew."))
app.command()(stoppable(compare, "Batches that were done are kept: to go on, run the same command again."))
app.command()(stoppable(study, "Run the same command again to begin anew."))
app.command()(stoppable(quality, "No score was computed. Run the same command again to begin anew."))
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
    """Runs the program. A user's mistake ends with one message and an exit code, without a traceback."""
    gc.set_threshold(50_000, 20, 20)  # a command makes many objects at once that stay: modules, traces of functions
    hear_again()
    warnings.showwarning = _show_warning
    keep_compiled()
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


def _show_warning(message: Warning | str, category: type[Warning], *place: object) -> None:
    """Prints a warning in one line, with its place in the code unless it is about a plugin package or a file."""
    where = "" if issubclass(category, PluginWarning | DamageWarning) else f" ({':'.join(map(str, place[:2]))})"
    print(f"warning: {message}{where}", file=sys.stderr)


def _missing_device() -> str:
    """Returns why JAX has no device, if the command has loaded JAX."""
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
