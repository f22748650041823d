# SPDX-License-Identifier: Apache-2.0
"""Lossless compression by bits back through the model's T steps, with integer arithmetic between network and bytes."""

from vdmkit_codec.compression._chunk import ChunkCode
from vdmkit_codec.compression._codec import Codec, Profile, codec_of, model_sha256
from vdmkit_codec.compression._forecast import Forecast, Rate, forecast, shares_of_pixels
from vdmkit_codec.compression._layers import Layers, whole
from vdmkit_codec.compression._narrow import narrows

__all__ = [
    "ChunkCode",
    "Codec",
    "Forecast",
    "Layers",
    "Profile",
    "Rate",
    "codec_of",
    "forecast",
    "model_sha256",
    "narrows",
    "shares_of_pixels",
    "whole",
]
