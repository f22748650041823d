# SPDX-License-Identifier: Apache-2.0
"""Estimates log p(image | label) of a run's test images for every label, with the facts that a report of it needs."""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Int

from vdmkit.conformance.recipe import check_measurement_of_recipe
from vdmkit.data.identity import check_comparable, check_fits, copies_of, fingerprints_of, groups_of, on_copies
from vdmkit.data.sources import Images
from vdmkit.errors import DataError, RecipeError
from vdmkit.experiments.load import Run, load_test, load_train, read_trained_on
from vdmkit.experiments.measure import fingerprint_of
from vdmkit.likelihood.labels import LabelLogLikelihoods, label_log_likelihoods
from vdmkit.likelihood.log_likelihood import sample_of
from vdmkit.likelihood.report import name_of_result
from vdmkit.recipes.build import build_estimator, count_labels, labels_of


@dataclass(frozen=True)
class MeasuredLabels:
    """The label likelihoods of a run's test images.

    Attributes:
        likelihoods: The estimates; near copies of an image share its group.
        train: The training images, with labels.
        test: The test images, with labels.
        class_counts: Number of training images of each label.
        test_images_trained_on: Number of test images that are copies of training images; None if unknown.
        held_out: Whether the test images are free of copies and near copies of training images; None if unknown.
        name: File name for results, with a fingerprint of everything they depend on.
        remarks: Sentences about the data and the model to print with a result.
    """

    likelihoods: LabelLogLikelihoods
    train: Images
    test: Images
    class_counts: Int[np.ndarray, " labels"]
    test_images_trained_on: int | None
    held_out: bool | None
    name: str
    remarks: tuple[str, ...]


def measure_labels(run: Run, passes: int, *, command: str = "classify") -> MeasuredLabels:
    """Estimates log p(image | label) of a run's test images for every label with the recipe's likelihood estimator.

    Raises:
        DataError: The images do not fit the model or lack labels, or are not comparable with the training images.
        RecipeError: The network uses no labels, or the recipe has settings that the command does not use.
        UntrustedError: An estimate is not a likelihood.
    """
    recipe, settings = run.recipe, run.recipe.likelihood
    labels = count_labels(recipe, command)
    if settings.label is not None:
        raise RecipeError(
            f"likelihood.label = {settings.label}: {command} conditions on every label in turn. Remove this key."
        )
    if settings.precision:
        raise RecipeError(f"likelihood.precision: {command} does not use it. Omit it, and give more --passes.")
    test, train, known = load_test(run), load_train(run), read_trained_on(run)
    model = run.weighted(settings.weights)
    check_fits(model, test)
    train_labels, test_labels = labels_of(train, command), labels_of(test, command)
    counts = np.bincount(train_labels, minlength=labels)
    if not counts.all():
        missing = int(np.flatnonzero(counts == 0)[0])
        raise DataError(f"label {missing} has frequency 0: {command} needs training images of every label.")
    remarks = check_comparable(known, test)
    findings = check_measurement_of_recipe(recipe, model.given({"label": test_labels[0]}), test).refuse()
    likelihoods = label_log_likelihoods(
        model,
        test.pixels,
        labels=len(counts),
        key=run.key,
        estimator=build_estimator(recipe, test.levels),
        passes=passes,
        batch_size=settings.batch_size,
        index=sample_of(len(test.pixels), settings.images or len(test.pixels)),
        progress="auto",
    )
    prints = fingerprints_of(test)
    copies, groups = copies_of(prints, known.fingerprints), groups_of(prints, known.fingerprints)[likelihoods.index]
    fingerprint = fingerprint_of(run, test, [command, 2 * passes, counts.tolist()])
    return MeasuredLabels(
        likelihoods=replace(likelihoods, groups=groups),
        train=train,
        test=test,
        class_counts=counts,
        test_images_trained_on=copies.exact,
        held_out=copies.held_out,
        name=name_of_result(f"{test.identity.name}/{test.identity.split}", None, settings.estimator, fingerprint),
        remarks=(*on_copies(copies, groups, len(prints)), *remarks, *findings.remarks),
    )
