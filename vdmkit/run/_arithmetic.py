# SPDX-License-Identifier: Apache-2.0
"""What numbers are computed in, and on: it belongs to every number that is reported."""

from dataclasses import asdict, dataclass
from typing import Any

import jax
import jax.numpy as jnp


@dataclass(frozen=True)
class Arithmetic:
    """The type of numbers, JAX's precision of matrix products, and the kind and number of devices, such as '1 x cpu'.

    `matmul_precision` is `jax_default_matmul_precision`. "default" leaves it to the device: a GPU or TPU may then
    multiply float32 in less.
    """

    precision: str
    matmul_precision: str
    device: str

    def __str__(self) -> str:
        return f"{self.precision}, matmul precision {self.matmul_precision}, {self.device}"


def arithmetic() -> Arithmetic:
    """That of this process."""
    matmul = jax.config.jax_default_matmul_precision or "default"  # pyright: ignore[reportAttributeAccessIssue]
    return Arithmetic(str(jnp.zeros(()).dtype), matmul, f"{jax.device_count()} x {jax.devices()[0].device_kind}")


def facts_of(report: Any) -> dict[str, Any]:
    """The fields of a report, a dataclass, by name, those of its `arithmetic` among them, as JSON has them."""
    facts = asdict(report)
    of_arithmetic = facts.pop("arithmetic")
    return facts | of_arithmetic
