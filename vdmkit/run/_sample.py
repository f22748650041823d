# SPDX-License-Identifier: Apache-2.0
"""Drawing samples of a model within a time limit."""

import time
from dataclasses import dataclass

import jax
import numpy as np
from jaxtyping import Real

from vdmkit.model import DiffusionModel
from vdmkit.randomness import fold_purpose
from vdmkit.report import progress
from vdmkit.sampling import AbstractGrid, AbstractSampler, UniformInTime, sample

_BATCH = 64
_TIMED = 8


@dataclass(frozen=True)
class Plan:
    """How many samples of how many steps."""

    count: int
    steps: int


def draw_samples(
    model: DiffusionModel, sampler: AbstractSampler, plan: Plan, *, seed: int, grid: AbstractGrid | None = None
) -> Real[np.ndarray, "n h w c"]:
    """The first `plan.count` images of the sequence that `seed` defines.

    More of them change these by no more than the rounding of another batch, which a chaotic network can make visible.
    """
    key = fold_purpose(jax.random.key(seed), "sample")
    gammas = (grid or UniformInTime())(model.schedule, plan.steps)
    starts = range(0, plan.count, _BATCH)
    drawn = []
    with progress("sampling", plan.steps * len(starts)) as advance:
        for first in starts:
            count = min(_BATCH, plan.count - first)
            drawn.append(np.asarray(sample(model, sampler, gammas, count, key=key, first=first, on_step=advance)))
    return np.concatenate(drawn)


def fit_into(model: DiffusionModel, sampler: AbstractSampler, wanted: Plan, *, seconds: float) -> Plan:
    """The largest plan up to `wanted` that fits: fewer images first, then, of a single one, fewer steps.

    Timed on one step of a few images.
    """
    grid = UniformInTime()(model.schedule, 2)
    images = min(wanted.count, _TIMED)
    times = []
    for _ in range(2):  # the first includes compilation
        start = time.monotonic()
        sample(model, sampler, grid[:2], images, key=jax.random.key(0)).block_until_ready()
        times.append(time.monotonic() - start)
    affordable = max(int(seconds / times[1] * images), 1)  # steps of single images
    count = min(wanted.count, max(affordable // wanted.steps, 1))
    return Plan(count, wanted.steps if count > 1 else min(wanted.steps, affordable))
