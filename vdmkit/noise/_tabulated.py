# SPDX-License-Identifier: Apache-2.0
r"""Schedules of discrete time: betas, with beta_i = 1 - alpha_i^2 / alpha_{i-1}^2 on the variance preserving path.

alpha_i^2 = prod_{j <= i} (1 - beta_j),   gamma_i = log((1 - alpha_i^2) / alpha_i^2),   i = 1, ..., T
"""

from typing import Annotated, Literal

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from annotated_types import Ge, Gt, Le, Lt
from jaxtyping import Float

from vdmkit.errors import RecipeError
from vdmkit.limits import MAX_STEPS
from vdmkit.noise._schedule import AbstractSchedule
from vdmkit.registry import register
from vdmkit.typing import Scalar


def linear_betas(steps: int) -> Float[np.ndarray, " steps"]:
    """Returns DDPM's betas, 1e-4 to 0.02 for 1,000 steps (Ho et al. 2020, arXiv 2006.11239), times 1,000 / steps."""
    return np.linspace(1e-4, 0.02, steps) * 1000 / steps


def cosine_betas(steps: int) -> Float[np.ndarray, " steps"]:
    """Returns the betas of alpha^2 = cos^2 with offset 0.008, at most 0.999 (arXiv 2102.09672, eq. 17)."""
    u = (np.arange(steps + 1) / steps + 0.008) / 1.008 * np.pi / 2
    return np.minimum(1 - np.cos(u[1:]) ** 2 / np.cos(u[:-1]) ** 2, 0.999)


_TABLES = {"linear": linear_betas, "cosine": cosine_betas}


@register("schedule", "tabulated")
class Tabulated(AbstractSchedule):
    """gamma of a table of T betas at t = 0, 1 / (T - 1), ..., 1, interpolated linearly.

    A model with T steps in discrete time has objective.steps = T - 1, because its last step, from alpha_1 to the data,
    is the observation.

    Args:
        table: DDPM's betas, "linear", or iDDPM's, "cosine"; ignored if `betas` are given.
        steps: Number T of betas.
        betas: Another table of betas.
    """

    betas: tuple[float, ...] = eqx.field(static=True)
    gamma_min: float = eqx.field(static=True)
    gamma_max: float = eqx.field(static=True)

    def __init__(
        self,
        *,
        table: Literal["linear", "cosine"] = "linear",
        steps: Annotated[int, Ge(2), Le(MAX_STEPS)] = 1000,
        betas: tuple[Annotated[float, Gt(0), Lt(1)], ...] | None = None,
    ):
        self.betas = betas or tuple(_TABLES[table](steps).tolist())
        if len(self.betas) < 2 or not all(0 < beta < 1 for beta in self.betas):
            raise RecipeError(f"{len(self.betas)} betas: expected at least 2, all between 0 and 1.")
        self.gamma_min, self.gamma_max = self.gammas()[[0, -1]].tolist()

    def gammas(self) -> Float[np.ndarray, " steps"]:
        """Returns gamma_1, ..., gamma_T in float64."""
        log_alpha2 = np.cumsum(np.log1p(-np.asarray(self.betas)))
        return np.log(-np.expm1(log_alpha2)) - log_alpha2

    def __call__(self, t: Scalar) -> Scalar:
        gammas = jnp.asarray(self.gammas(), float)
        place = t * (len(self.betas) - 1)
        i = jnp.clip(jnp.floor(place).astype(int), 0, len(self.betas) - 2)
        return gammas[i] + (place - i) * (gammas[i + 1] - gammas[i])
