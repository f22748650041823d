# SPDX-License-Identifier: Apache-2.0
"""The checks of an audit as JSON."""

import math
from dataclasses import asdict
from typing import Any

from vdmkit.devices import arithmetic
from vdmkit.likelihood._referee import Check


def audit_as_json(checks: list[Check]) -> dict[str, Any]:
    """Every check, and what this process computes in and on."""
    return {"checks": [as_json(check) for check in checks], **asdict(arithmetic())}


def as_json(check: Check) -> dict[str, Any]:
    """Infinite ends are None: JSON has no infinity. A difference that is none is None too."""
    numbers = {"difference": check.difference, "half_width": check.half_width, "low": check.low, "high": check.high}
    return {
        "claim": check.claim,
        "verdict": check.verdict,
        **{name: value if math.isfinite(value) else None for name, value in numbers.items()},
    }
