# SPDX-License-Identifier: Apache-2.0
"""`vdmkit doctor`: examines the installation."""

import json
from dataclasses import asdict
from typing import Any

import typer

from vdmkit.cli._options import AsJson


def doctor(as_json: AsJson = False) -> None:
    """Examine software, devices, arithmetic, a short training, the cache folder and plugins; exit 1 if one is wrong."""
    from vdmkit.doctor import examine

    found = list[dict[str, Any]]()
    for finding in examine():
        found.append(asdict(finding))
        if not as_json:
            lines = finding.found.replace("\n", "\n" + 19 * " ")
            typer.echo(f"{'wrong' if finding.advice else 'ok':7}{finding.name:12}{lines}")
            if finding.advice:
                typer.echo(f"{'':19}{finding.advice}")
    if as_json:
        typer.echo(json.dumps(found, indent=2))
    if any(finding["advice"] for finding in found):
        raise typer.Exit(1)
