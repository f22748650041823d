# SPDX-License-Identifier: Apache-2.0
"""Likelihoods of a test set: estimators of a bound on -log P for every image, and the interval of their mean."""

from vdmkit.likelihood._bound import bound_of_images, check_count
from vdmkit.likelihood._doubt import depth_beyond_doubt
from vdmkit.likelihood._estimator import AbstractEstimator, Estimates
from vdmkit.likelihood._gaussian import gaussian_terms
from vdmkit.likelihood._importance import ImportanceWeighted
from vdmkit.likelihood._interval import Interval, check_distinct, interval, passes_for
from vdmkit.likelihood._ode import ProbabilityFlow, discretisation_error
from vdmkit.likelihood._quadrature import exact_terms, has_known_ends, terms_of_images
from vdmkit.likelihood._referee import FEW_STEPS, Check, Evidence, Measured, referee
from vdmkit.likelihood._steps import describe_bound, describe_steps
from vdmkit.likelihood._variational import VariationalBound

__all__ = [
    "FEW_STEPS",
    "AbstractEstimator",
    "Check",
    "Estimates",
    "Evidence",
    "ImportanceWeighted",
    "Interval",
    "Measured",
    "ProbabilityFlow",
    "VariationalBound",
    "bound_of_images",
    "check_count",
    "check_distinct",
    "depth_beyond_doubt",
    "describe_bound",
    "describe_steps",
    "discretisation_error",
    "exact_terms",
    "gaussian_terms",
    "has_known_ends",
    "interval",
    "passes_for",
    "referee",
    "terms_of_images",
]
