# SPDX-License-Identifier: Apache-2.0
"""Likelihoods of images: estimators of a bound on -log P, the interval of their mean, and checks of validity."""

from vdmkit.likelihood._audit import gather
from vdmkit.likelihood._checks import audit_as_json
from vdmkit.likelihood._compare import against_raw, compare
from vdmkit.likelihood._comparison import Comparison, check_same_estimator, times_to_decide
from vdmkit.likelihood._condition import as_arguments, rows_of
from vdmkit.likelihood._doubt import depth_beyond_doubt
from vdmkit.likelihood._estimator import AbstractEstimator, Estimates, mean_of_draws
from vdmkit.likelihood._exact import below_the_truth, exact_bound, impossible_below
from vdmkit.likelihood._gaussian import gaussian_terms
from vdmkit.likelihood._importance import ImportanceWeighted
from vdmkit.likelihood._interval import (
    Interval,
    check_count,
    check_distinct,
    check_index,
    interval,
    passes_for,
    remark_on_few,
)
from vdmkit.likelihood._judge import Subject, report_on
from vdmkit.likelihood._log_likelihood import LogLikelihood, log_likelihood, solver_error
from vdmkit.likelihood._names import name_of_result
from vdmkit.likelihood._ode import ProbabilityFlow
from vdmkit.likelihood._pair import plan_pair
from vdmkit.likelihood._pass import Parts, as_arrays, as_first_plan, calls_of, pass_over, sample_of
from vdmkit.likelihood._quadrature import exact_terms, has_known_ends, terms_of_images
from vdmkit.likelihood._referee import FEW_STEPS, Check, Evidence, Measured, referee
from vdmkit.likelihood._report import LikelihoodReport, count_of_images, on_trained_images
from vdmkit.likelihood._solver_error import SolverError
from vdmkit.likelihood._steps import describe_bound, describe_steps
from vdmkit.likelihood._variational import VariationalBound

__all__ = [
    "FEW_STEPS",
    "AbstractEstimator",
    "Check",
    "Comparison",
    "Estimates",
    "Evidence",
    "ImportanceWeighted",
    "Interval",
    "LikelihoodReport",
    "LogLikelihood",
    "Measured",
    "Parts",
    "ProbabilityFlow",
    "SolverError",
    "Subject",
    "VariationalBound",
    "against_raw",
    "as_arguments",
    "as_arrays",
    "as_first_plan",
    "audit_as_json",
    "below_the_truth",
    "calls_of",
    "check_count",
    "check_distinct",
    "check_index",
    "check_same_estimator",
    "compare",
    "count_of_images",
    "depth_beyond_doubt",
    "describe_bound",
    "describe_steps",
    "exact_bound",
    "exact_terms",
    "gather",
    "gaussian_terms",
    "has_known_ends",
    "impossible_below",
    "interval",
    "log_likelihood",
    "mean_of_draws",
    "name_of_result",
    "on_trained_images",
    "pass_over",
    "passes_for",
    "plan_pair",
    "referee",
    "remark_on_few",
    "report_on",
    "rows_of",
    "sample_of",
    "solver_error",
    "terms_of_images",
    "times_to_decide",
]
