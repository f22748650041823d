# SPDX-License-Identifier: Apache-2.0
"""The checks of an audit as JSON."""

import math
from dataclasses import asdict
from typing import Any

from vdmkit.devices import Arithmetic
from vdmkit.likelihood._referee import Check


def audit_as_json(checks: list[Check], measured_in: Arithmetic) -> dict[str, Any]:
    """Returns every check, and the arithmetic of the audit, as JSON values."""
    return {"checks": [as_json(check) for check in checks], **asdict(measured_in)}


def as_json(check: Check) -> dict[str, Any]:
    """Returns a check as JSON values; numbers that are not finite are None, because JSON does not have them."""
    numbers = {"difference": check.difference, "half_width": check.half_width, "low": check.low, "high": check.high}
    return {
        "claim": check.claim,
        "verdict": check.verdict,
        **{name: value if math.isfinite(value) else None for name, value in numbers.items()},
    }
