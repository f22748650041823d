# SPDX-License-Identifier: Apache-2.0
"""The authors' monotone network as a schedule."""

from typing import Annotated

import equinox as eqx
import jax
import jax.numpy as jnp
from annotated_types import Ge, Le
from jaxtyping import Array, Float, PRNGKeyArray

from vdmkit.limits import Gamma
from vdmkit.noise._schedule import AbstractSchedule
from vdmkit.registry import register
from vdmkit.typing import Scalar


class _Positive(eqx.Module):
    """A dense layer that uses the absolute values of its weights, so that it is monotone."""

    kernel: Float[Array, "i o"]
    bias: Float[Array, " o"] | None

    def __call__(self, x: Float[Array, " i"]) -> Float[Array, " o"]:
        # TF32 or bfloat16 products would make gamma noisy, even non-monotone (PAPER: 1e-3 to 1e-2 off).
        y = jnp.matmul(x, jnp.abs(self.kernel), precision=jax.lax.Precision.HIGHEST)
        return y if self.bias is None else y + self.bias


@register("schedule", "learned_monotone")
class LearnedMonotone(AbstractSchedule):
    """gamma = l1(t) + l3(tanh(l2(2t - 1) / 2)) / 1024 with positive weights, as in the authors' code.

    Its ends are not pinned: they start within 1e-3 of gamma_min and gamma_max and are trained on the bound.
    The paper's version (App. H of arXiv 2107.00630v6) differs; this one reads the released checkpoint.
    """

    l1: _Positive
    l2: _Positive
    l3: _Positive
    gamma_min: float = eqx.field(static=True)
    gamma_max: float = eqx.field(static=True)

    def __init__(
        self,
        key: PRNGKeyArray,
        *,
        gamma_min: Gamma = -13.3,
        gamma_max: Gamma = 5.0,
        width: Annotated[int, Ge(1), Le(65_536)] = 1024,
    ):
        key_2, key_3 = jax.random.split(key)
        self.l1 = _Positive(jnp.array([[gamma_max - gamma_min]], dtype=float), jnp.array([gamma_min], dtype=float))
        self.l2 = _Positive(0.01 * jax.random.normal(key_2, (1, width)), jnp.zeros(width))
        self.l3 = _Positive(0.01 * jax.random.normal(key_3, (width, 1)), None)
        self.gamma_min = gamma_min
        self.gamma_max = gamma_max

    def __call__(self, t: Scalar) -> Scalar:
        t = t[None]
        hidden = 2 * (jax.nn.sigmoid(self.l2(2 * (t - 0.5))) - 0.5)
        return (self.l1(t) + self.l3(hidden) / hidden.size)[0]
