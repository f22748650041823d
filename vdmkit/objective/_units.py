# SPDX-License-Identifier: Apache-2.0
"""The conversion between nats and bits per dimension."""

import math
from typing import TypeVar

Nats = TypeVar("Nats")


def bits_per_dim(nats: Nats, dimensions: int) -> Nats:
    """Converts nats per image (a number, an array or a Bound's leaf) to bits per dimension: nats / (d ln 2)."""
    return nats / (dimensions * math.log(2))  # type: ignore[operator]
