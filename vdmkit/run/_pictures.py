# SPDX-License-Identifier: Apache-2.0
"""The picture that a run ends with: samples, and as many real images beside them."""

import sys

import numpy as np
from jaxtyping import UInt8

from vdmkit.data import Images
from vdmkit.errors import NonFiniteError
from vdmkit.model import DiffusionModel
from vdmkit.recipe import Recipe
from vdmkit.report import beside, grid
from vdmkit.run._sample import Plan, draw_samples, fit_into, procedure_of


def picture_beside_real(model: DiffusionModel, real: Images, recipe: Recipe) -> UInt8[np.ndarray, "H W c"] | None:
    """Samples on the left, the first images of `real` on the right. Says so when time allowed fewer than asked for.

    None, and a line on standard error, where samples are not finite: neither training nor its evaluation is lost by it.
    """
    settings = recipe.sampling
    procedure = procedure_of(recipe)
    wanted = Plan(min(settings.count, len(real.pixels)), settings.steps)
    plan = fit_into(model, procedure, wanted, seconds=60 * settings.minutes)
    if plan != wanted:
        print(
            f"sampling: {wanted.count} images of {wanted.steps} steps would take more than sampling.minutes = "
            f"{settings.minutes:g} here; drawing {plan.count} of {plan.steps} steps.",
            file=sys.stderr,
        )
    try:
        samples = draw_samples(model, procedure, plan, seed=recipe.seed)
    except NonFiniteError as error:
        print(f"sampling: no picture. {error}", file=sys.stderr)
        return None
    return beside(grid(samples, real.levels), grid(np.asarray(real.pixels[: plan.count]), real.levels))
