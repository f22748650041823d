# SPDX-License-Identifier: Apache-2.0
"""The images of a run, and its test bound."""

from vdmkit.data import Images, Split, check_comparable, check_fits
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
    return _load(run, "test")


def load_train(run: Run) -> Images:
    """Returns the training images of a run's recipe. Raises the errors of `load_test`."""
    return _load(run, "train")


def _load(run: Run, split: Split) -> Images:
    source = run.source
    images = source.load(split)
    check_data_of_recipe(run.recipe, source, images).refuse()
    _refuse_unrecorded(run, images, split)
    return images


def _refuse_unrecorded(run: Run, images: Images, split: Split) -> None:
    """Raises UntrustedError if the images are not those of the run, which would allow choosing images by the result."""
    data, found = run.folder.provenance().data, images.identity.sha256
    recorded = data and getattr(data, split)
    if recorded and recorded.sha256 != found and run.recipe.data == run.read_recipe(()).data:
        raise UntrustedError(
            f"{run.recipe.data.component}: its {split} images, sha256 {found[:12]}, are not those that "
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
