# SPDX-License-Identifier: Apache-2.0
"""How near samples are to real images: distances between their features, which are named as what they are."""

from vdmkit.quality._distances import Neighbours, frechet_distance, neighbours
from vdmkit.quality._features import FEATURES, features_of

__all__ = ["FEATURES", "Neighbours", "features_of", "frechet_distance", "neighbours"]
