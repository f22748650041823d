# SPDX-License-Identifier: Apache-2.0
"""The picture at the end of a run: samples beside as many real images."""

import sys
from dataclasses import replace

import jax
import numpy as np
from jaxtyping import UInt8

from vdmkit.assembly import build_sampling
from vdmkit.data import Images
from vdmkit.errors import NonFiniteError
from vdmkit.model import DiffusionModel
from vdmkit.progress import Progress
from vdmkit.recipe import Recipe
from vdmkit.report import beside, grid
from vdmkit.sampling import draw_samples, fit_into


def picture_beside_real(
    model: DiffusionModel, real: Images, recipe: Recipe, progress: Progress
) -> UInt8[np.ndarray, "H W c"] | None:
    """Returns a picture with samples on the left and the first images of `real` on the right.

    If the time limit allows fewer samples than asked for, it prints a message. If samples are not finite, it returns
    None with a message instead of an error, so that training and evaluation are not lost.
    """
    settings, config = recipe.sampling, build_sampling(recipe)
    wanted = min(settings.count, len(real.pixels))
    count, steps = fit_into(model, config, wanted, seconds=60 * settings.minutes)
    if (count, steps) != (wanted, config.steps):
        print(
            f"sampling: {wanted} images of {config.steps} steps would take more than sampling.minutes = "
            f"{settings.minutes:g} here; drawing {count} of {steps} steps.",
            file=sys.stderr,
        )
    try:
        key = jax.random.key(recipe.seed)
        samples = draw_samples(model, replace(config, steps=steps), count, key=key, progress=progress)
    except NonFiniteError as error:
        print(f"sampling: no picture. {error}", file=sys.stderr)
        return None
    return beside(grid(samples, real.levels), grid(np.asarray(real.pixels[:count]), real.levels))
