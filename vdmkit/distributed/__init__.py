# SPDX-License-Identifier: Apache-2.0
"""Many processes that train or measure one run, by JAX's own runtime: their start, their talk, and their common stop.

Importing it loads no JAX, which must not be used before the start.
"""

from vdmkit.distributed._copy import delete_copies, in_words, own_folder
from vdmkit.distributed._lost import lost
from vdmkit.distributed._start import Place, start, started_as
from vdmkit.distributed._stop import CommonStop
from vdmkit.distributed._talk import as_first, gathered, is_alone, is_first, meet, share_of

__all__ = [
    "CommonStop",
    "Place",
    "as_first",
    "delete_copies",
    "gathered",
    "in_words",
    "is_alone",
    "is_first",
    "lost",
    "meet",
    "own_folder",
    "share_of",
    "start",
    "started_as",
]
