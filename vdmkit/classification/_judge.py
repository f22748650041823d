# SPDX-License-Identifier: Apache-2.0
"""Makes a report from a classification."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Int

from vdmkit.classification._bayes import Classification
from vdmkit.classification._beside import compare_with, compare_with_exact, logistic_regression
from vdmkit.classification._report import ClassificationReport
from vdmkit.classification._scores import scores_of
from vdmkit.data.identity import TrainedOn, copies_of, fingerprints_of, groups_of, on_copies
from vdmkit.data.sources import Images, select
from vdmkit.likelihood.report import Subject


def report_on(
    found: Classification,
    subject: Subject,
    known: TrainedOn,
    class_counts: Int[np.ndarray, " labels"],
    *,
    beside: Images | None = None,
    remarks: Sequence[str] = (),
) -> ClassificationReport:
    """Returns the report of a classification.

    Args:
        found: The classification.
        subject: The model, the images and their labels; its distribution, if known, has the labels as components.
        known: What is known of the training images.
        class_counts: Number of training images of each label.
        beside: Training images to which logistic regression is fitted for comparison; None for no comparison.
        remarks: Sentences to print beside the scores.
    """
    assert subject.labels is not None, "classification needs labels to judge it"
    test, fingerprints, labels = subject.test, fingerprints_of(subject.test), subject.labels[found.index]
    copies, groups = (
        copies_of(fingerprints, known.fingerprints),
        groups_of(fingerprints, known.fingerprints)[found.index],
    )
    found, pixels = replace(found, groups=groups), select(test.pixels, found.index)
    other = None
    if beside is not None and beside.labels is not None:
        fitted = logistic_regression(beside.pixels[:], np.asarray(beside.labels), pixels[:], test.levels)
        other = compare_with("logistic regression", fitted, found, labels)
    distribution = subject.distribution
    return ClassificationReport(
        scores=scores_of(found, labels),
        exact=None if distribution is None else compare_with_exact(distribution, pixels, found, labels),
        beside=other,
        labels=len(class_counts),
        class_counts=tuple(class_counts.tolist()),
        estimates=len(found.log_joint),
        evaluations=found.total_evaluations,
        evaluations_per_label=found.evaluations_per_label,
        discretisation=found.solver and found.solver.value,
        estimator=found.estimator,
        images_in_test_set=len(test.pixels),
        test_images_trained_on=copies.exact,
        held_out=copies.held_out,
        dataset=f"{test.identity.name}/{test.identity.split}",
        sha256=test.identity.sha256,
        published=test.identity.published,
        seed=subject.seed,
        step=subject.step,
        weights=subject.weights,
        arithmetic=found.arithmetic,
        remarks=(*on_copies(copies, groups, len(fingerprints)), *remarks),
    )
