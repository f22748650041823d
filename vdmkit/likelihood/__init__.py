# SPDX-License-Identifier: Apache-2.0
"""Likelihoods of a test set: estimators of a bound on -log P for every image, and the interval of their mean."""

from vdmkit.likelihood._bound import bound_of_images, check_count
from vdmkit.likelihood._estimator import AbstractEstimator, Estimates
from vdmkit.likelihood._interval import Interval, interval

__all__ = ["AbstractEstimator", "Estimates", "Interval", "bound_of_images", "check_count", "interval"]
