# SPDX-License-Identifier: Apache-2.0
"""Distributions of images with a known likelihood, and their exact denoisers."""

from vdmkit.distribution._continuous import Basis, GaussianMixture
from vdmkit.distribution._distribution import AbstractDistribution
from vdmkit.distribution._exact import Exact, ExactGivenLabel
from vdmkit.distribution._levels import LevelMixture

__all__ = ["AbstractDistribution", "Basis", "Exact", "ExactGivenLabel", "GaussianMixture", "LevelMixture"]
