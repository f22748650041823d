# SPDX-License-Identifier: Apache-2.0
"""The command line, one file a command. Importing it loads no JAX, so that `vdmkit --help` is quick."""

from vdmkit.cli._app import app, main

__all__ = ["app", "main"]
