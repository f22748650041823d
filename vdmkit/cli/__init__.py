# SPDX-License-Identifier: Apache-2.0
"""The command line, one file per command, and what commands of packages share with them: options and Ctrl-C.

Importing it loads no JAX, so that `vdmkit --help` is fast.
"""

from vdmkit.cli._app import app, main
from vdmkit.cli._component import grid_option, of_estimator
from vdmkit.cli._options import AsJson, Checkpoint, Overrides, PluginFiles, Step, Trust
from vdmkit.cli._stoppable import end_after_a_stop, stoppable

__all__ = [
    "AsJson",
    "Checkpoint",
    "Overrides",
    "PluginFiles",
    "Step",
    "Trust",
    "app",
    "end_after_a_stop",
    "grid_option",
    "main",
    "of_estimator",
    "stoppable",
]
