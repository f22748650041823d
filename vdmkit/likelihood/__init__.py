# SPDX-License-Identifier: Apache-2.0
"""Likelihoods of images: estimators of a bound on -log P, intervals of their mean, and checks of validity."""

from vdmkit.likelihood.bound import VariationalBound
from vdmkit.likelihood.comparison import Comparison
from vdmkit.likelihood.estimator import AbstractEstimator, Estimates
from vdmkit.likelihood.importance import ImportanceWeighted
from vdmkit.likelihood.intervals import Interval
from vdmkit.likelihood.log_likelihood import LogLikelihood
from vdmkit.likelihood.ode import ProbabilityFlow
from vdmkit.likelihood.report import LikelihoodReport

__all__ = [
    "AbstractEstimator",
    "Comparison",
    "Estimates",
    "ImportanceWeighted",
    "Interval",
    "LikelihoodReport",
    "LogLikelihood",
    "ProbabilityFlow",
    "VariationalBound",
]
