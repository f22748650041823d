# SPDX-License-Identifier: Apache-2.0
"""A schedule whose ends and shape are learned separately."""

from typing import Annotated, Literal

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from vdmkit.errors import RecipeError
from vdmkit.limits import Gamma
from vdmkit.noise._schedule import AbstractSchedule
from vdmkit.registry import Choice, built, register
from vdmkit.typing import Scalar

_NETWORK = Choice("schedule", "learned_monotone")


@register("schedule", "pinned")
class Pinned(AbstractSchedule):
    """The shape of any other schedule between ends of its own (Kingma et al. 2021, arXiv 2107.00630v6, eq. 59).

        gamma(t) = gamma_0 + (gamma_1 - gamma_0) (raw(t) - raw(0)) / (raw(1) - raw(0))

    The ends do not depend on the shape, so `objective.schedule_loss = "variance"` can train the ends on the bound and
    the shape on the variance of the loss.

    Args:
        interior: The other schedule, raw(t). Its own ends have no effect.
        gamma_min: Initial value of gamma_0.
        gamma_max: Initial value of gamma_1.
        ends: Whether the ends are learned, on the bound.
    """

    interior: AbstractSchedule
    learned_ends: Float[Array, "2"] | None
    gamma_min: float = eqx.field(static=True)
    gamma_max: float = eqx.field(static=True)

    def __init__(
        self,
        key: PRNGKeyArray | None = None,
        *,
        interior: Annotated[Choice | AbstractSchedule, "schedule"] = _NETWORK,
        gamma_min: Gamma = -13.3,
        gamma_max: Gamma = 5.0,
        ends: Literal["learned", "fixed"] = "learned",
    ):
        if key is None and isinstance(interior, Choice) and "key" in interior.component.injected:
            raise RecipeError(
                f"interior {interior.name} starts from random parameters: give a key, or another interior."
            )
        self.interior = built(interior, key=key)
        self.learned_ends = jnp.array([gamma_min, gamma_max], dtype=float) if ends == "learned" else None
        self.gamma_min, self.gamma_max = gamma_min, gamma_max

    def __call__(self, t: Scalar) -> Scalar:
        first, last = self.interior(jnp.zeros_like(t)), self.interior(jnp.ones_like(t))
        share = (self.interior(t) - first) / (last - first)
        gamma_0, gamma_1 = self._ends()
        return gamma_0 * (1 - share) + gamma_1 * share  # exact at both ends

    def _ends(self) -> tuple[Scalar | float, Scalar | float]:
        """Returns the ends in order, even if training has made them cross."""
        if self.learned_ends is None:
            return self.gamma_min, self.gamma_max
        return self.learned_ends.min(), self.learned_ends.max()
