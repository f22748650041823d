# SPDX-License-Identifier: Apache-2.0
"""`python -m vdmkit` is the `vdmkit` program."""

from vdmkit.cli import main

main()
