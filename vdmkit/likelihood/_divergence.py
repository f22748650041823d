# SPDX-License-Identifier: Apache-2.0
r"""The divergence of a vector field, tr J with J = df/dz, as a mean of v^T J v over probe vectors v.

Any v with E[v v^T] = I makes it unbiased (Hutchinson's estimator; Grathwohl et al. 2019, arXiv 1810.01367). With S the
symmetric part of J, one probe has variance 2 sum_{i != j} S_ij^2 (Rademacher) or 2 sum_ij S_ij^2 (Gaussian). The d
vectors sqrt(d) e_i have the mean tr J exactly.
"""

from collections.abc import Callable
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from vdmkit.typing import Image, Scalar


class Probes(eqx.Module):
    """The probes along one trajectory: `count` random vectors with entries +-1 or N(0, 1), or the d exact ones."""

    kind: Literal["exact", "rademacher", "gaussian"] = eqx.field(static=True)
    count: int = eqx.field(static=True)

    def __call__(self, shape: tuple[int, int, int], *, key: PRNGKeyArray) -> Float[Array, "p h w c"]:
        if self.kind == "exact":
            d = shape[0] * shape[1] * shape[2]
            return jnp.sqrt(float(d)) * jnp.eye(d).reshape(d, *shape)
        draw = jax.random.rademacher if self.kind == "rademacher" else jax.random.normal
        return draw(key, (self.count, *shape), dtype=float)

    def describe(self) -> str:
        """Returns the estimator of the divergence in words."""
        if self.kind == "exact":
            return "exact divergence"
        return f"hutchinson divergence with {self.count} {self.kind} probe{'s' * (self.count > 1)}"


def value_and_divergence(
    f: Callable[[Image], Image],
    z: Image,
    probes: Float[Array, "p h w c"],
) -> tuple[Image, Scalar]:
    """Returns f(z) and the mean of v^T J v over the probes, by one call of f and one JVP per probe."""

    def along(v: Image) -> tuple[Array, Array]:
        value, tangent = jax.jvp(f, (z,), (v,))
        return value, (v * tangent).sum()

    value, products = jax.vmap(along, out_axes=(None, 0))(probes)
    return value, products.mean()
