# SPDX-License-Identifier: Apache-2.0
"""Scores of samples: distances between the features of samples and of real images."""

from vdmkit.quality._inception import load_inception
from vdmkit.quality._score import Fid, Scores, score

__all__ = ["Fid", "Scores", "load_inception", "score"]
