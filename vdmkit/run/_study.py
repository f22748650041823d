# SPDX-License-Identifier: Apache-2.0
"""The study of schedules and step grids of a run."""

import sys

import jax

from vdmkit.data import check_comparable, check_fits
from vdmkit.devices import packages
from vdmkit.likelihood import sample_of
from vdmkit.progress import Kept
from vdmkit.randomness import fold_purpose
from vdmkit.run._evaluate import load_test, load_train
from vdmkit.run._fingerprint import fingerprint_of
from vdmkit.run._load import Run
from vdmkit.run._trained_on import read_trained_on
from vdmkit.study import Study, plan_study, study_schedules
from vdmkit.testing import check_model_of_recipe, problems_of_kernels


def study_run(run: Run, *, images: int, nodes: int, counts: tuple[int, ...]) -> tuple[Study, Kept]:
    """Studies a run on at most `images` of its training images and of its test images: see `study_schedules`.

    Returns the study, and its measurements on disk, which the caller clears after the results are written.

    Raises:
        DataError: the images do not fit the model, or are not comparable with the training images.
        RecipeError: the schedule does not rise.
        UntrustedError: the images are not those of the run (see `load_test`), or a component fails its check.
    """
    model = run.weighted(run.recipe.likelihood.weights)
    test, train = load_test(run), load_train(run)
    check_fits(model, test)
    check_comparable(read_trained_on(run), test)
    check_model_of_recipe(run.recipe, model, test.pixels).refuse()
    some = [one.pixels[sample_of(len(one.pixels), min(images, len(one.pixels)))] for one in (train, test)]
    # Every installed kernel is measured.
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
