# SPDX-License-Identifier: Apache-2.0
"""What the programs of networks are made of."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest


@pytest.fixture(scope="session")
def equations() -> Callable[[Any], Iterator[Any]]:
    """`equations(jaxpr)`: every operation of a program, those inside of others included."""
    return _equations


def _equations(jaxpr: Any) -> Iterator[Any]:
    for equation in jaxpr.eqns:
        yield equation
        for value in equation.params.values():
            for inner in value if isinstance(value, list | tuple) else [value]:
                inner = getattr(inner, "jaxpr", inner)
                yield from _equations(inner) if hasattr(inner, "eqns") else ()


@pytest.fixture(scope="session")
def wide() -> set[str]:
    """The operations of statistics, softmax and features, for which bfloat16 has too few digits."""
    return {"reduce_sum", "reduce_max", "rsqrt", "sqrt", "exp", "sin", "cos", "div"}
