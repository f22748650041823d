# SPDX-License-Identifier: Apache-2.0
"""The test images of a run, and the bound that it ends with, measured again."""

from vdmkit.data import Images, check_comparable, check_fits
from vdmkit.likelihood import LikelihoodReport
from vdmkit.run._likelihood import evaluate
from vdmkit.run._load import Run
from vdmkit.run._trained_on import read_trained_on
from vdmkit.testing import check_data_of_recipe, check_model_of_recipe


def load_test(run: Run) -> Images:
    """The test images of a run's recipe, which their source gives again when it is asked again.

    Raises:
        DataError: they are missing or damaged.
        UntrustedError: they are not what their source or their identity says.
    """
    source = run.source
    test = source.load("test")
    check_data_of_recipe(run.recipe, source, test).refuse()
    return test


def evaluate_run(run: Run) -> LikelihoodReport:
    """Measure the bound of a run's test images by its evaluation settings.

    Raises:
        DataError: the images are missing, damaged, or not of the kind that the model was trained on.
        UntrustedError: a component does not do what its kind must, or the number is not a likelihood.
    """
    test, known = load_test(run), read_trained_on(run)
    model = run.weighted(run.recipe.evaluation.weights)
    check_comparable(known, test)
    check_fits(model, test)
    findings = check_model_of_recipe(run.recipe, model, test.pixels).refuse()
    return evaluate(run.recipe, model, test, known, step=run.step, findings=findings)
