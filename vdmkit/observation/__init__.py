# SPDX-License-Identifier: Apache-2.0
"""The map from images to real data, and the decoder p(x | z_0)."""

from vdmkit.observation._categorical import CategoricalObservation
from vdmkit.observation._discretised import DiscretisedGaussian
from vdmkit.observation._gaussian import GaussianObservation
from vdmkit.observation._observation import AbstractObservation, level_values, require_even_levels, require_levels

__all__ = [
    "AbstractObservation",
    "CategoricalObservation",
    "DiscretisedGaussian",
    "GaussianObservation",
    "level_values",
    "require_even_levels",
    "require_levels",
]
