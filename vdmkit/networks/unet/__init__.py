# SPDX-License-Identifier: Apache-2.0
"""One family of U-Nets: the parts of the literature's denoisers, and the design that puts them together."""

from vdmkit.networks.unet._blocks import Block, SelfAttention, Stage, Style
from vdmkit.networks.unet._design import Design
from vdmkit.networks.unet._embedding import Embedding, FourierFeatures, PositionalFeatures
from vdmkit.networks.unet._levels import Down, Head, Up
from vdmkit.networks.unet._resampling import ConvDown, ConvUp, downsample, upsample
from vdmkit.networks.unet._unet import UNet

__all__ = [
    "Block",
    "ConvDown",
    "ConvUp",
    "Design",
    "Down",
    "Embedding",
    "FourierFeatures",
    "Head",
    "PositionalFeatures",
    "SelfAttention",
    "Stage",
    "Style",
    "UNet",
    "Up",
    "downsample",
    "upsample",
]
