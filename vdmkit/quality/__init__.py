# SPDX-License-Identifier: Apache-2.0
"""Scores of samples: distances between the features of samples and of real images."""

from vdmkit.quality._distances import Neighbours, frechet_distance, neighbours
from vdmkit.quality._features import FEATURES, features_of
from vdmkit.quality._inception import Extractor, as_rgb, load_inception
from vdmkit.quality._nearest import nearest
from vdmkit.quality._score import Fid, Scores, score

__all__ = [
    "FEATURES",
    "Extractor",
    "Fid",
    "Neighbours",
    "Scores",
    "as_rgb",
    "features_of",
    "frechet_distance",
    "load_inception",
    "nearest",
    "neighbours",
    "score",
]
