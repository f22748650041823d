# SPDX-License-Identifier: Apache-2.0
"""The test images of a run, and its test bound."""

from vdmkit.data import Images, check_comparable, check_fits
from vdmkit.errors import UntrustedError
from vdmkit.likelihood import LikelihoodReport
from vdmkit.run._likelihood import evaluate
from vdmkit.run._load import Run
from vdmkit.run._trained_on import read_trained_on
from vdmkit.testing import check_data_of_recipe, check_model_of_recipe


def load_test(run: Run) -> Images:
    """Returns the test images of a run's recipe.

    Raises:
        DataError: the images are missing or damaged.
        UntrustedError: the images contradict their source or their identity, change on a second read, or are not those
            that the run recorded although no setting of the data was changed.
    """
    source = run.source
    test = source.load("test")
    check_data_of_recipe(run.recipe, source, test).refuse()
    _refuse_unrecorded(run, test)
    return test


def _refuse_unrecorded(run: Run, test: Images) -> None:
    """Raises UntrustedError if the images are not those of the run, which would allow choosing images by the result."""
    recorded, found = run.tested_on, test.identity.sha256
    if recorded and recorded.sha256 != found and run.recipe.data == run.read_recipe(()).data:
        raise UntrustedError(
            f"{run.recipe.data.component}: its test images, sha256 {found[:12]}, are not those that "
            f"{run.folder.manifest} records, sha256 {recorded.sha256[:12]}, although no setting of the data was "
            "changed. Put the same images back, or name others with --set data...."
        )


def evaluate_run(run: Run) -> LikelihoodReport:
    """Measures the bound of a run's test images by its evaluation settings.

    Raises:
        DataError: the images are missing, damaged, or not comparable with the training images.
        UntrustedError: a component fails the checks of its kind, or the number is not a likelihood.
    """
    test, known = load_test(run), read_trained_on(run)
    model = run.weighted(run.recipe.evaluation.weights)
    check_comparable(known, test)
    check_fits(model, test)
    findings = check_model_of_recipe(run.recipe, model, test.pixels).refuse()
    return evaluate(run.recipe, model, test, known, step=run.step, findings=findings, progress="auto")
