# SPDX-License-Identifier: Apache-2.0
"""Exceptions for user errors. A message says where the error is, what was found, and what to do next."""

import errno
import traceback
from collections.abc import Callable


class VdmkitError(Exception):
    """Base class of the errors that vdmkit raises for invalid input, damaged files and failing plugins.

    The command line prints the message alone and exits with `exit_code`. A message says where
    (recipe key, file, parameter path), what was found against what was expected, and what to do.
    """

    exit_code = 1


class RecipeError(VdmkitError):
    """A recipe, an override or a command-line value that is not valid."""

    exit_code = 2


class RegistryError(VdmkitError):
    """A component that cannot be registered or found, or a plugin that does not load."""

    exit_code = 2


class PluginError(VdmkitError):
    """A plugin's code that fails when a component is built."""


class DataError(VdmkitError):
    """A data source that is missing, damaged, or not what the recipe needs."""


class CheckpointError(VdmkitError):
    """A checkpoint or run folder that cannot be written, read, or does not fit the recipe."""


class NonFiniteError(VdmkitError):
    """A number that is NaN or infinite where a likelihood, a gradient or an image was expected."""


class UntrustedError(VdmkitError):
    """A number that is not a likelihood, for example because the ODE solver did not reach its end."""

    exit_code = 4


class UnknownCodeError(VdmkitError):
    """Code in a run folder that this user neither trained with nor trusted, and that was therefore not executed."""


class CodecError(VdmkitError):
    """A compressed file that is damaged or truncated, or was written with a different model."""


class PluginWarning(UserWarning):
    """An installed plugin package that cannot be loaded, so none of its components are available."""


class DamageWarning(UserWarning):
    """A damaged part of a file that was skipped."""


class ConformanceError(VdmkitError):
    """A component that violates a requirement of its kind; see `vdmkit.conformance`."""


class DistributedError(VdmkitError):
    """Processes that cannot connect, whose number is not the expected one, or one of which has exited."""


class Interrupted(VdmkitError):
    """A run that the user stopped; it was saved and can be resumed."""

    exit_code = 3


_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_RIGHTS = {errno.EACCES, errno.EPERM, errno.EROFS}


def words_of(error: OSError) -> str:
    """Returns the message for a system error: the file or the failing line, the system's reason, and what to do.

    `vdmkit.io.writing` adds the name of the file to write errors.
    """
    advice = ""
    if error.errno in _ROOM:
        advice = " Free space there, and run the same command again."
    elif error.errno in _RIGHTS:
        advice = " Change its permissions, or choose another place."
    where = error.filename or f"standard output, or a file without a name{place_of(error)}"
    return f"{where}: {error.strerror or error}.{advice}"


def printable(text: str) -> str:
    """Returns the message with terminal control characters escaped, since file names may contain them."""
    return "".join(char if char.isprintable() or char in "\n\t" else ascii(char)[1:-1] for char in text)


def in_one_line(error: BaseException) -> str:
    """Returns the type and the first line of any error."""
    text = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def place_of(error: BaseException, is_place: Callable[[str], bool] = lambda file: True) -> str:
    """Returns ' (file:line)' of the innermost frame in a file that `is_place` accepts, or ''."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if is_place(frame.filename)]
    return f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""
