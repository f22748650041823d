# SPDX-License-Identifier: Apache-2.0
"""Scores of samples against real images: Frechet distances, nearest neighbours, and FID."""

from vdmkit.metrics.features import load_inception
from vdmkit.metrics.fid import Fid, Scores, score

__all__ = ["Fid", "Scores", "load_inception", "score"]
