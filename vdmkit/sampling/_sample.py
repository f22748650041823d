# SPDX-License-Identifier: Apache-2.0
"""Draws samples of a model, with a progress display and within a time limit."""

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, Real

from vdmkit.arguments import check_instance, check_integer, check_one_of
from vdmkit.denoiser import Estimate
from vdmkit.errors import NonFiniteError
from vdmkit.limits import MAX_STEPS
from vdmkit.model import Compute, DiffusionModel
from vdmkit.noise import AbstractGrid, AbstractSchedule, UniformInTime, gammas_of
from vdmkit.progress import Progress, track
from vdmkit.randomness import fold_purpose
from vdmkit.sampling._ancestral import Ancestral
from vdmkit.sampling._denoise import Guidance
from vdmkit.sampling._sampler import AbstractSampler, draw

_BATCH = 64
_TIMED = 8


@dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    """Settings of sampling: sampler, number of steps, grid, labels, end of the last step, and type of the network.

    `end` is "latent" for z_0, from which the observation draws levels, or "image" for a last step to zero noise.

    Raises:
        RecipeError: a setting is not what is said here.
    """

    sampler: AbstractSampler
    steps: int
    grid: AbstractGrid = UniformInTime()
    guidance: Guidance | None = None
    end: Literal["latent", "image"] = "latent"
    compute: Compute | None = None

    def __post_init__(self) -> None:
        check_instance("sampler", self.sampler, AbstractSampler)
        check_integer("steps", self.steps, most=MAX_STEPS)
        check_instance("grid", self.grid, AbstractGrid)
        check_instance("guidance", self.guidance, Guidance, optional=True)
        check_one_of("end", self.end, ("latent", "image"))

    def gammas(self, schedule: AbstractSchedule) -> Float[Array, " steps_plus_1"]:
        """Returns the gammas at the ends of the steps, from the noisiest; the last is -inf if `end` is "image"."""
        if self.end == "latent":
            return self.grid(schedule, self.steps)
        latents = self.grid(schedule, self.steps - 1) if self.steps > 1 else gammas_of(schedule, 1)[-1:]
        return jnp.append(latents, -jnp.inf)


def sample(
    model: DiffusionModel,
    *,
    count: int,
    key: PRNGKeyArray,
    steps: int = 250,
    sampler: AbstractSampler | None = None,
    grid: AbstractGrid | None = None,
    guidance: Guidance | None = None,
    end: Literal["latent", "image"] = "latent",
    trajectory: bool = False,
    progress: Progress = None,
) -> Real[np.ndarray, "count h w c"] | tuple[Real[np.ndarray, "count h w c"], Float[np.ndarray, "steps count h w c"]]:
    """Draws the first `count` images of the endless sequence that `key` defines, as `vdmkit sample` does.

    Another count changes these images only by the rounding of another batch size, which a chaotic network can amplify.

    Args:
        model: The model.
        count: Number of images.
        key: Random key; the command uses `jax.random.key(seed)`.
        steps: Number of steps.
        sampler: The sampler; ancestral by default.
        grid: Gammas of the steps; by default uniform in t.
        guidance: Labels of the images.
        end: End of the last step, see `SamplingConfig`.
        trajectory: Whether to return x_hat(z_t) at the start of every step as well, in units of data.
        progress: None, "auto" for a bar on standard error, or an object like `vdmkit.progress.Meter`.

    Raises:
        NonFiniteError: some images are not finite.
        RecipeError: an argument is not what is said here.
    """
    parts = {"sampler": Ancestral() if sampler is None else sampler, "grid": UniformInTime() if grid is None else grid}
    config, seen = SamplingConfig(steps=steps, guidance=guidance, end=end, **parts), []
    keep = (lambda estimate: seen.append(np.asarray(estimate.x_hat))) if trajectory else lambda estimate: None
    images = draw_samples(model, config, count, key=key, progress=progress, on_step=keep)
    if not trajectory:
        return images
    batches = [np.stack(seen[first : first + steps]) for first in range(0, len(seen), steps)]
    return images, np.concatenate(batches, axis=1)


def draw_samples(
    model: DiffusionModel,
    config: SamplingConfig,
    count: int,
    *,
    key: PRNGKeyArray,
    progress: Progress = None,
    on_step: Callable[[Estimate], object] = lambda estimate: None,
) -> Real[np.ndarray, "count h w c"]:
    """Draws samples with the settings in `config`: see `sample`.

    Args:
        model: The model.
        config: Settings of sampling.
        count: Number of images.
        key: Random key.
        progress: As in `sample`.
        on_step: Called after every step of a batch of at most 64 images, with the estimate at its start.

    Raises:
        NonFiniteError: some images are not finite.
        RecipeError: an argument is not what is said here.
    """
    check_instance("model", model, DiffusionModel)
    check_integer("count", count)
    model = model.computing_in(config.compute)
    key, gammas, starts = fold_purpose(key, "sample"), config.gammas(model.schedule), range(0, count, _BATCH)
    with track(progress, "sampling", config.steps * len(starts)) as advance:

        def stepped(estimate: Estimate) -> None:
            on_step(estimate)
            advance()

        of_batch = {"key": key, "guidance": config.guidance, "on_step": stepped}
        drawn = [
            np.asarray(draw(model, config.sampler, gammas, min(_BATCH, count - first), first=first, **of_batch))
            for first in starts
        ]
    return np.concatenate(drawn)


def fit_into(model: DiffusionModel, config: SamplingConfig, count: int, *, seconds: float) -> tuple[int, int]:
    """Returns the largest number of images, and of steps, that fit into `seconds`.

    It first reduces the images, then the steps of a single image. The time is measured on one step of a few images.
    """
    grid = UniformInTime()(model.schedule, 2)
    images = min(count, _TIMED)
    times = []
    for _ in range(2):  # the first includes compilation
        start = time.monotonic()
        with suppress(NonFiniteError):
            draw(
                model, config.sampler, grid[:2], images, key=jax.random.key(0), guidance=config.guidance
            ).block_until_ready()
        times.append(time.monotonic() - start)
    affordable = max(int(seconds / times[1] * images), 1)  # steps of single images
    fitting = min(count, max(affordable // config.steps, 1))
    return fitting, config.steps if fitting > 1 else min(config.steps, affordable)
