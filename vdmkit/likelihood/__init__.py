# SPDX-License-Identifier: Apache-2.0
"""Likelihoods of a test set: estimators of a bound on -log P for every image, and the interval of their mean."""

from vdmkit.likelihood._bound import bound_of_images, check_count, describe_bound
from vdmkit.likelihood._doubt import depth_beyond_doubt
from vdmkit.likelihood._estimator import AbstractEstimator, Estimates
from vdmkit.likelihood._gaussian import gaussian_terms
from vdmkit.likelihood._importance import ImportanceWeighted
from vdmkit.likelihood._interval import Interval, interval, passes_for
from vdmkit.likelihood._ode import ProbabilityFlow, discretisation_error
from vdmkit.likelihood._quadrature import exact_terms, has_known_ends, terms_of_images
from vdmkit.likelihood._referee import FEW_STEPS, Check, Evidence, Measured, referee
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
    "depth_beyond_doubt",
    "describe_bound",
    "discretisation_error",
    "exact_terms",
    "gaussian_terms",
    "has_known_ends",
    "interval",
    "passes_for",
    "referee",
    "terms_of_images",
]
