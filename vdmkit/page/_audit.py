# SPDX-License-Identifier: Apache-2.0
"""The table of the last audit."""

import math

from vdmkit.page._blocks import Command, Section, Table, Words, section
from vdmkit.page._shown import Shown


def audit(shown: Shown) -> list[Section]:
    """Returns the section on the audit, or one that says how to make it."""
    found = shown.files.json("audit.json")
    if found is None:
        asked = Command(
            "Not audited yet. This runs all estimators on the same images, and checks their relations:",
            shown.command("likelihood", "--ckpt", "RUN", "--audit"),
        )
        return section("Audit", [asked])
    checks = found["checks"]
    failed = frozenset(number for number, check in enumerate(checks) if check["verdict"] == "fails")
    rows = [
        (check["verdict"], check["claim"], _text(check["difference"], "+"), _text(check["half_width"]), _range(check))
        for check in checks
    ]
    passed = sum(check["verdict"] == "passes" for check in checks)
    arithmetic = f"{found['precision']}, matrix products {found['matmul_precision']}, {found['device']}"
    summary = f"{passed} of {len(checks)} checks pass and {len(failed)} fail; of the others too little is known. "
    summary += f"Measured in {arithmetic}."
    columns = ("verdict", "claim", "difference", "95%", "allowed")
    return section(
        "Audit",
        [Words(summary, marked=bool(failed)), Table("Differences in bits/dim, unless stated", columns, rows, failed)],
    )


def _range(check: dict) -> str:
    low, high = (check[name] for name in ("low", "high"))
    return f"{_text(-math.inf if low is None else low)} to {_text(math.inf if high is None else high)}"


def _text(value: float | None, sign: str = "") -> str:
    if value is None:
        return "not finite"
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    return f"{value:{sign}.5f}"
