# SPDX-License-Identifier: Apache-2.0
"""Networks, which map one latent z and gamma to k values per pixel and channel."""

from vdmkit.networks.network import AbstractNetwork, Condition
from vdmkit.networks.noise_embedding import (
    AbstractNoiseEmbedding,
    GammaEmbedding,
    LogSigmaEmbedding,
    SdeTimeEmbedding,
    TimestepEmbedding,
)
from vdmkit.networks.small import NoNetwork, SmallUNet
from vdmkit.networks.unet import Design, UNet
from vdmkit.networks.vdm_unet import VDMUNet
from vdmkit.networks.wrappers import Conditioned, LabelConditioned

__all__ = [
    "AbstractNetwork",
    "AbstractNoiseEmbedding",
    "Condition",
    "Conditioned",
    "Design",
    "GammaEmbedding",
    "LabelConditioned",
    "LogSigmaEmbedding",
    "NoNetwork",
    "SdeTimeEmbedding",
    "SmallUNet",
    "TimestepEmbedding",
    "UNet",
    "VDMUNet",
]
