# SPDX-License-Identifier: Apache-2.0
"""Drawing samples of a model within a time limit."""

import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Real

from vdmkit.assembly import build_guidance
from vdmkit.errors import NonFiniteError
from vdmkit.model import DiffusionModel
from vdmkit.noise import AbstractGrid, AbstractSchedule, UniformInTime, gammas_of
from vdmkit.randomness import fold_purpose
from vdmkit.recipe import Recipe, one_line
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


@dataclass(frozen=True)
class Drawn:
    """How samples were drawn, for the record; `label` None is each in turn, where guidance is above 0."""

    sampler: str
    grid: str
    steps: int
    end: Literal["latent", "image"]
    guidance: float
    label: int | None

    @property
    def settings(self) -> str:
        """All but the components."""
        end = "z_0" if self.end == "latent" else "the image"
        labels = "labels in turn" if self.label is None else f"label {self.label}"
        return f"{self.steps:,} steps to {end}, guidance {self.guidance:g}, {labels if self.guidance else 'no labels'}"

    def __str__(self) -> str:
        return f"sampler {self.sampler}, grid {self.grid}, {self.settings}"


def drawn_by(recipe: Recipe) -> Drawn:
    """By the recipe's settings."""
    settings = recipe.sampling
    sampler, grid = one_line(settings.sampler), one_line(settings.grid)
    return Drawn(sampler, grid, settings.steps, settings.end, settings.guidance, settings.label)


def procedure_of(recipe: Recipe) -> Procedure:
    """That of the recipe. Raises RecipeError for labels that would not be used."""
    settings = recipe.sampling
    return Procedure(settings.sampler.build(), settings.grid.build(), build_guidance(recipe), settings.end)


def draw_samples(model: DiffusionModel, procedure: Procedure, plan: Plan, *, seed: int) -> Real[np.ndarray, "n h w c"]:
    """The first `plan.count` images of the sequence that `seed` defines.

    More of them change these by no more than the rounding of another batch, which a chaotic network can make visible.

    Raises:
        NonFiniteError: some are not finite.
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

    Timed on one step of a few images, which need not come out finite.
    """
    grid = UniformInTime()(model.schedule, 2)
    images = min(wanted.count, _TIMED)
    times = []
    for _ in range(2):  # the first includes compilation
        start = time.monotonic()
        with suppress(NonFiniteError):
            sample(
                model, procedure.sampler, grid[:2], images, key=jax.random.key(0), guidance=procedure.guidance
            ).block_until_ready()
        times.append(time.monotonic() - start)
    affordable = max(int(seconds / times[1] * images), 1)  # steps of single images
    count = min(wanted.count, max(affordable // wanted.steps, 1))
    return Plan(count, wanted.steps if count > 1 else min(wanted.steps, affordable))
