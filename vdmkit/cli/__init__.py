# SPDX-License-Identifier: Apache-2.0
"""The command line, one file per command. Importing it loads no JAX, so that `vdmkit --help` is fast."""

from vdmkit.cli._app import app, main

__all__ = ["app", "main"]
