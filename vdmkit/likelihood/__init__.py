# SPDX-License-Identifier: Apache-2.0
"""Likelihood estimates of test sets, with their errors."""

from vdmkit.likelihood._bound import bound_of_images, check_count
from vdmkit.likelihood._interval import Interval, interval

__all__ = ["Interval", "bound_of_images", "check_count", "interval"]
