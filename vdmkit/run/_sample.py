# SPDX-License-Identifier: Apache-2.0
"""Drawing samples of a model within a time limit."""

import time
from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Real

from vdmkit.assembly import build_guidance
from vdmkit.model import DiffusionModel
from vdmkit.noise import AbstractGrid, AbstractSchedule, UniformInTime, gammas_of
from vdmkit.randomness import fold_purpose
from vdmkit.recipe import Recipe
from vdmkit.report import progress
from vdmkit.sampling import AbstractSampler, Guidance, sample

_BATCH = 64
_TIMED = 8


@dataclass(frozen=True)
class Plan:
    """How many samples of how many steps."""

    count: int
    steps: int


@dataclass(frozen=True)
class Procedure:
    """How samples are drawn."""

    sampler: AbstractSampler
    grid: AbstractGrid = UniformInTime()
    guidance: Guidance | None = None
    end: Literal["latent", "image"] = "latent"

    def gammas(self, schedule: AbstractSchedule, steps: int) -> Float[Array, " steps_plus_1"]:
        """Of the steps, from the noisiest; to -inf where the last one leads to an image."""
        if self.end == "latent":
            return self.grid(schedule, steps)
        latents = self.grid(schedule, steps - 1) if steps > 1 else gammas_of(schedule, 1)[-1:]
        return jnp.append(latents, -jnp.inf)


def procedure_of(recipe: Recipe) -> Procedure:
    """That of the recipe. Raises RecipeError if it gives labels to a network that is not told any."""
    settings = recipe.sampling
    return Procedure(settings.sampler.build(), settings.grid.build(), build_guidance(recipe), settings.end)


def draw_samples(model: DiffusionModel, procedure: Procedure, plan: Plan, *, seed: int) -> Real[np.ndarray, "n h w c"]:
    """The first `plan.count` images of the sequence that `seed` defines.

    More of them change these by no more than the rounding of another batch, which a chaotic network can make visible.
    """
    key = fold_purpose(jax.random.key(seed), "sample")
    gammas = procedure.gammas(model.schedule, plan.steps)
    starts = range(0, plan.count, _BATCH)
    drawn = []
    with progress("sampling", plan.steps * len(starts)) as advance:
        for first in starts:
            count = min(_BATCH, plan.count - first)
            images = sample(
                model,
                procedure.sampler,
                gammas,
                count,
                key=key,
                first=first,
                guidance=procedure.guidance,
                on_step=advance,
            )
            drawn.append(np.asarray(images))
    return np.concatenate(drawn)


def fit_into(model: DiffusionModel, procedure: Procedure, wanted: Plan, *, seconds: float) -> Plan:
    """The largest plan up to `wanted` that fits: fewer images first, then, of a single one, fewer steps.

    Timed on one step of a few images.
    """
    grid = UniformInTime()(model.schedule, 2)
    images = min(wanted.count, _TIMED)
    times = []
    for _ in range(2):  # the first includes compilation
        start = time.monotonic()
        sample(
            model, procedure.sampler, grid[:2], images, key=jax.random.key(0), guidance=procedure.guidance
        ).block_until_ready()
        times.append(time.monotonic() - start)
    affordable = max(int(seconds / times[1] * images), 1)  # steps of single images
    count = min(wanted.count, max(affordable // wanted.steps, 1))
    return Plan(count, wanted.steps if count > 1 else min(wanted.steps, affordable))
