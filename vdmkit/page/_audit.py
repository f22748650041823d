# SPDX-License-Identifier: Apache-2.0
"""The table of the last audit."""

from typing import Any

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
        (
            check["claim"],
            check["verdict"],
            _text(check["difference"], "+"),
            _text(check["half_width"]) if check["half_width"] != 0 else "exact",
            _range(check),
        )
        for check in checks
    ]
    passed = sum(check["verdict"] == "passes" for check in checks)
    arithmetic = f"{found['precision']}, matrix products {found['matmul_precision']}, {found['device']}"
    rest = "; of the others too little is known" if passed + len(failed) < len(checks) else ""
    summary = f"{passed} of {len(checks)} checks pass and {len(failed)} fail{rest}. "
    summary += f"Measured in {arithmetic}."
    columns = ("claim", "verdict", "difference", "95%", "allowed")
    return section(
        "Audit",
        [Words(summary, marked=bool(failed)), Table("Differences in bits/dim, unless stated", columns, rows, failed)],
    )


def _range(check: dict[str, Any]) -> str:
    """Returns the allowed range; null stands for an end that is infinite."""
    low, high = (check[name] for name in ("low", "high"))
    if low is None or high is None:
        return f"above {low:g}" if high is None else f"below {high:g}"
    return f"{low + 0:g} to {high:g}"


def _text(value: float | None, sign: str = "") -> str:
    return "not finite" if value is None else f"{value + 0:{sign}.5f}"
