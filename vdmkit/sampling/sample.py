# SPDX-License-Identifier: Apache-2.0
"""Draws samples of a model, with a progress display and within a time limit."""

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray, Real

from vdmkit.arguments import MAX_STEPS, check_instance, check_integer, check_one_of
from vdmkit.devices import devices_for, in_groups, local_mesh, place_batch, replicate_arrays
from vdmkit.errors import NonFiniteError, RecipeError
from vdmkit.model import Compute, DiffusionModel
from vdmkit.multihost import as_first, gathered, is_alone, share_of
from vdmkit.predictions import Estimate
from vdmkit.process import AbstractGrid, UniformInTime
from vdmkit.progress import Progress, track
from vdmkit.randomness import fold_purpose
from vdmkit.sampling.ancestral import Ancestral
from vdmkit.sampling.sampler import AbstractSampler, Guidance, draw, draw_numbers
from vdmkit.schedules import AbstractSchedule, gammas_of

_BATCH = 64
_TIMED = 8


@dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    """Settings of sampling: sampler, number of steps, grid, labels, end of the last step, and compute type.

    `end` is "latent" for a last step to z_0, which the observation decodes, or "image" for a last step to zero noise.

    Raises:
        RecipeError: a setting is invalid.
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
        """Returns the gammas of the grid, the noisiest first; the last is -inf if `end` is "image"."""
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
    """Draws the first `count` images of the infinite sequence defined by `key`, as `vdmkit sample` does.

    Changing `count` changes these images only by rounding, because the batch size changes; a chaotic network can
    amplify this.

    Args:
        model: The model.
        count: Number of images.
        key: Random key; the command uses `jax.random.key(seed)`.
        steps: Number of steps.
        sampler: The sampler, by default ancestral.
        grid: Gammas of the steps, by default uniform in t.
        guidance: Labels of the images.
        end: End of the last step, see `SamplingConfig`.
        trajectory: Whether to also return x_hat(z_t) at the start of every step, in units of the data.
        progress: None, "auto" for a bar on standard error, or an object like `vdmkit.progress.Meter`.

    Raises:
        NonFiniteError: some images are not finite.
        RecipeError: an argument is invalid.
    """
    if trajectory and not is_alone():
        raise RecipeError("trajectory: only one process can return it, and there are several.")
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
        on_step: Called after every step with the estimates at its start. A call covers at most 64 images per device.

    Raises:
        NonFiniteError: some images are not finite.
        RecipeError: an argument is invalid.
    """
    check_instance("model", model, DiffusionModel)
    check_integer("count", count)
    model = model.computing_in(config.compute)
    key, gammas = fold_purpose(key, "sample"), config.gammas(model.schedule)
    calls = _calls(count)
    drawn: dict[str, np.ndarray] = {}
    failure = None
    with track(progress, "sampling", config.steps * len(calls)) as advance:

        def stepped(estimate: Estimate) -> None:
            on_step(estimate)
            advance()

        for numbers in calls:
            settings = (model, config.sampler, gammas, numbers, key, config.guidance)
            model_, sampler, gammas_, on_devices, key_, guidance = _spread(settings, len(numbers))
            how = {"key": key_, "guidance": guidance, "on_step": stepped}
            try:
                images = np.asarray(draw_numbers(model_, sampler, gammas_, on_devices, **how))
            except NonFiniteError as error:  # raised below, in all processes
                failure = str(error)
                break
            firsts = range(0, len(numbers), _BATCH)
            drawn |= {str(numbers[first]): images[first : first + _BATCH] for first in firsts}
    return _joined(drawn, failure)


def _calls(count: int) -> list[Int[np.ndarray, " m"]]:
    """Returns the numbers of the images that this process draws in each call of the sampler.

    Every device draws whole batches, so images do not depend on the number of devices and processes.
    """
    batches = share_of(
        [np.arange(first, min(first + _BATCH, count), dtype=np.int32) for first in range(0, count, _BATCH)]
    )
    whole = [batch for batch in batches if len(batch) == _BATCH]
    rest = [batch for batch in batches if len(batch) < _BATCH]
    return [np.concatenate(group) for group in in_groups(whole, devices_for(len(whole)))] + rest


def _spread(settings: tuple[Any, ...], count: int) -> tuple[Any, ...]:
    """Places the settings of a call on one device per batch, and divides its image numbers over the devices."""
    if count <= _BATCH:
        return tuple(jnp.asarray(part) if isinstance(part, np.ndarray) else part for part in settings)
    mesh = local_mesh(count // _BATCH)
    return tuple(
        place_batch(part, mesh) if isinstance(part, np.ndarray) else replicate_arrays(part, mesh) for part in settings
    )


def _joined(drawn: dict[str, np.ndarray], failure: str | None) -> Real[np.ndarray, "count h w c"]:
    """Gathers the images of all processes in order. Raises NonFiniteError in every process if any has failed."""
    parts: dict[int, np.ndarray] = {}
    for arrays in gathered(drawn if failure is None else {"failure": np.asarray(failure)}):
        if "failure" in arrays:
            raise NonFiniteError(str(arrays["failure"]))
        parts |= {int(first): images for first, images in arrays.items()}
    return np.concatenate([parts[first] for first in sorted(parts)])


def fit_into(model: DiffusionModel, config: SamplingConfig, count: int, *, seconds: float) -> tuple[int, int]:
    """Returns the largest number of images and of steps that fit into `seconds`.

    The number of images is reduced first, and then the number of steps of a single image. The time is measured on one
    step of a few images.
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
    affordable = max(int(seconds / times[1] * images), 1)  # in steps of a single image
    affordable = int(as_first({"affordable": np.asarray(affordable)})["affordable"])  # must agree between processes
    fitting = min(count, max(affordable // config.steps, 1))
    return fitting, config.steps if fitting > 1 else min(config.steps, affordable)
