# SPDX-License-Identifier: Apache-2.0
"""Classification of images by their likelihoods given each label, with accuracy, calibration and errors."""

from vdmkit.classification._bayes import Classification
from vdmkit.classification._beside import Beside, Exactly, compare_with, compare_with_exact, logistic_regression
from vdmkit.classification._calibration import Calibration, Reliability
from vdmkit.classification._classify import check_frequencies, classify
from vdmkit.classification._judge import report_on
from vdmkit.classification._report import ClassificationReport
from vdmkit.classification._scores import ClassificationScores, scores_of, wilson

__all__ = [
    "Beside",
    "Calibration",
    "Classification",
    "ClassificationReport",
    "ClassificationScores",
    "Exactly",
    "Reliability",
    "check_frequencies",
    "classify",
    "compare_with",
    "compare_with_exact",
    "logistic_regression",
    "report_on",
    "scores_of",
    "wilson",
]
