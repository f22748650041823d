# SPDX-License-Identifier: Apache-2.0
"""The command line and the parts of it that plugin commands share. Importing this package does not load JAX."""

from vdmkit.cli.options import AsJson, Checkpoint, Overrides, PluginFiles, Step, Trust
from vdmkit.cli.processes import stoppable

__all__ = ["AsJson", "Checkpoint", "Overrides", "PluginFiles", "Step", "Trust", "stoppable"]
