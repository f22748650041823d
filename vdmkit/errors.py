# SPDX-License-Identifier: Apache-2.0
"""What can go wrong, in the user's words: where, what was found, what to do next."""

import errno
import traceback
from collections.abc import Callable


class VdmkitError(Exception):
    """Base of every error that vdmkit raises for a mistake that is not its own.

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
    """A number that is not a likelihood, such as that of a solver that did not reach its end."""

    exit_code = 4


class CodecError(VdmkitError):
    """A compressed file that is damaged, cut short, or of another model."""


class PluginWarning(UserWarning):
    """An installed plugin package that does not load, and so brings nothing."""


class ConformanceError(VdmkitError):
    """A component that does not do what every component of its kind must: see `vdmkit.testing`."""


class Interrupted(VdmkitError):
    """The user stopped a run; it was saved and can be continued."""

    exit_code = 3


_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_RIGHTS = {errno.EACCES, errno.EPERM, errno.EROFS}


def words_of(error: OSError) -> str:
    """The file, what the system says of it, and what to do. Writes name their file: see `vdmkit.files.writing`."""
    advice = ""
    if error.errno in _ROOM:
        advice = " Free space there, and run the same command again."
    elif error.errno in _RIGHTS:
        advice = " Change its permissions, or choose another place."
    return f"{error.filename or 'standard output, or a file without a name'}: {error.strerror or error}.{advice}"


def in_one_line(error: BaseException) -> str:
    """The type and the first line of an error that is none of the above."""
    text = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def place_of(error: BaseException, is_place: Callable[[str], bool] = lambda file: True) -> str:
    """' (file:line)', the innermost in a file that `is_place` accepts, or nothing."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if is_place(frame.filename)]
    return f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""
