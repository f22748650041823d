# SPDX-License-Identifier: Apache-2.0
"""Studies the schedules and step grids of a run.

It writes tables, charts and component files for other commands, and can make a run of the same model with a fitted
schedule.
"""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import tomli_w

from vdmkit.conformance.recipe import check_model_of_recipe, problems_of_kernels
from vdmkit.data.identity import check_comparable, check_fits
from vdmkit.devices import packages
from vdmkit.errors import CheckpointError, RecipeError
from vdmkit.experiments.conversion import save_as, started_anew
from vdmkit.experiments.folder import RunFolder
from vdmkit.experiments.load import Run, load_test, load_train, read_trained_on
from vdmkit.experiments.measure import fingerprint_of
from vdmkit.io import locked_folder, sealed_text, sha256_in, write_results, write_text
from vdmkit.likelihood.log_likelihood import sample_of
from vdmkit.progress import Kept
from vdmkit.randomness import fold_purpose
from vdmkit.report.charts import line_chart
from vdmkit.schedule_search.measurement import Curve
from vdmkit.schedule_search.study import (
    Study,
    lines_of_steps,
    lines_of_variances,
    plan_study,
    study_schedules,
    text_of_study,
)
from vdmkit.schedule_search.variance import Fit, choice_of_fit, fitted, judge_fit


def study_run(run: Run, *, images: int, nodes: int, counts: tuple[int, ...]) -> tuple[Study, Kept]:
    """Studies a run on at most `images` of its training images and of its test images; see `study_schedules`.

    Returns the study, and its measurements on disk, which the caller deletes after the results are written.

    Raises:
        DataError: the images do not fit the model, or are not comparable with the training images.
        RecipeError: the schedule is not increasing.
        UntrustedError: the images are not those of the run (see `load_test`), or a component fails its check.
    """
    model = run.weighted(run.recipe.likelihood.weights)
    test, train = load_test(run), load_train(run)
    check_fits(model, test)
    check_comparable(read_trained_on(run), test)
    check_model_of_recipe(run.recipe, model, test.pixels).refuse()
    some = [one.pixels[sample_of(len(one.pixels), min(images, len(one.pixels)))] for one in (train, test)]
    # All installed kernels are measured, so the packages are part of the fingerprint.
    stage = [train.identity.sha256, images, nodes, packages()]
    kept = Kept(run.folder.unfinished_schedule / fingerprint_of(run, test, stage))
    plan = plan_study(model, *some, nodes=nodes, key=fold_purpose(jax.random.key(run.recipe.seed), "schedule"))
    plan = plan.without(problems_of_kernels(model, test.pixels, plan.kernels))
    print(
        f"measuring {plan.describe(kept.numbers())}.\n"
        f"Measurements are kept in {kept.folder.parent}: if this is stopped, the same command continues.",
        file=sys.stderr,
    )
    return study_schedules(plan, counts, kept=kept, progress="auto"), kept


_MADE = {"closed form", "dynamic"}  # grids computed by the study; the others are registered components


def leave(study: Study, folder: Path) -> list[str]:
    """Writes a study to a folder. Returns the file names; those of a grid for several T are abbreviated with braces.

    Raises CheckpointError if a different process is writing one.
    """
    busy = f"{folder}: another vdmkit is writing its study. What was measured is kept: run the same command again."
    table, facts, kernel = (folder / name for name in ("schedule.txt", "schedule.json", "optimal_variance.toml"))
    with locked_folder(folder, CheckpointError(busy)):
        for earlier in (facts, *folder.glob("*_[0-9]*.toml")):
            earlier.unlink(missing_ok=True)
        write_text(table, text_of_study(study) + "\n")
        write_text(kernel, _component("optimal_variance", study.optimal_variance))
        charts = [*_variance_chart(study, folder), *_step_chart(study, folder)]
        grids = _leave_grids(study, folder)
        write_results(facts, study.as_json() | {"files": sha256_in(folder)})  # last: marks that the study is complete
    return [*map(str, (table, facts, *charts, kernel)), *grids]


def _leave_grids(study: Study, folder: Path) -> list[str]:
    counts: dict[str, list[str]] = {}
    for row in study.steps:
        if row.grid in _MADE:
            name = f"{row.kernel}_{row.grid.replace(' ', '_')}"
            write_text(folder / f"{name}_{row.count}.toml", _component("gammas", {"gammas": list(row.gammas)}))
            counts.setdefault(name, []).append(str(row.count))
    return [f"{folder / name}_{_one_of(of_grid)}.toml" for name, of_grid in counts.items()]


def _one_of(words: list[str]) -> str:
    return words[0] if len(words) == 1 else "{" + ",".join(words) + "}"


def _component(name: str, params: dict[str, Any]) -> str:
    return sealed_text(tomli_w.dumps({"name": name, **params}))


def _variance_chart(study: Study, folder: Path) -> list[Path]:
    return line_chart(
        folder / "variance",
        lines_of_variances(study),
        x="gamma = -log SNR",
        y="density of gamma for a uniform t",
        title="Where schedules draw, and the variance, (bits/dim)^2",
    )


def _step_chart(study: Study, folder: Path) -> list[Path]:
    return line_chart(
        folder / "steps",
        lines_of_steps(study),
        x="steps T",
        y="bits/dim above continuous time",
        title="What few steps cost",
        log=True,
    )


def check_fit(run: Run, folder: RunFolder) -> None:
    """Checks before the measurement that a schedule can be fitted.

    Raises:
        CheckpointError: the folder is in use.
        RecipeError: the run was trained with T steps, so its bound would change.
    """
    folder.check_new("--fit")
    if run.recipe.objective.steps:
        raise RecipeError(
            f"--fit: the run was trained with T = {run.recipe.objective.steps} steps, whose bound would change."
        )


def fit_schedule(run: Run, train: Curve, test: Curve, folder: RunFolder) -> Fit:
    """Makes `folder` a run of the same model with a piecewise linear schedule, fitted on training images.

    gamma' ~ 1 / sqrt(M_2) between the same ends, see `vdmkit.schedule_search`. The bound in continuous time does not
    change.

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
