# SPDX-License-Identifier: Apache-2.0
"""A run of the same model with a fitted schedule."""

from dataclasses import replace

import equinox as eqx

from vdmkit.assembly import started_anew
from vdmkit.errors import RecipeError
from vdmkit.run._convert import save_as
from vdmkit.run._evaluate import load_train
from vdmkit.run._folder import RunFolder
from vdmkit.run._load import Run
from vdmkit.study import Curve, Fit, choice_of_fit, fitted, judge_fit


def check_fit(run: Run, folder: RunFolder) -> None:
    """Checks, before the measurement, that a schedule can be fitted.

    Raises:
        CheckpointError: the folder is in use.
        RecipeError: the run was trained with T steps, whose bound would change.
    """
    folder.check_new("--fit")
    if run.recipe.objective.steps:
        raise RecipeError(
            f"--fit: the run was trained with T = {run.recipe.objective.steps} steps, whose bound would change."
        )


def fit_schedule(run: Run, train: Curve, test: Curve, folder: RunFolder) -> Fit:
    """Makes `folder` a run of the same model with a piecewise linear schedule, fitted on training images.

    gamma' ~ 1 / sqrt(M_2) between the same ends: see `vdmkit.study`. The bound in continuous time does not change.

    Raises:
        CheckpointError, RecipeError: as in `check_fit`.
    """
    check_fit(run, folder)
    before = run.state.ema_model.schedule
    after = fitted(train, before.gamma_min, before.gamma_max)
    model, ema = (eqx.tree_at(lambda m: m.schedule, old, after) for old in (run.state.model, run.state.ema_model))
    choice = choice_of_fit(after.gamma_min, after.gamma_max)
    recipe = replace(run.recipe, model=replace(run.recipe.model, schedule=choice))
    state = started_anew(recipe, model, ema, run.state.step)
    save_as(run, recipe, state, load_train(run), folder, f"Schedule fitted to {run.folder.path.name}")
    return judge_fit(before, after, test, run.model.dimensions)
