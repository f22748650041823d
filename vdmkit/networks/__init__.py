# SPDX-License-Identifier: Apache-2.0
"""Networks, which map one latent z and gamma to k values per pixel and channel."""

from vdmkit.networks.network import AbstractNetwork, Condition, Conditions
from vdmkit.networks.noise_embedding import (
    AbstractNoiseEmbedding,
    GammaEmbedding,
    LogSigmaEmbedding,
    SdeTimeEmbedding,
    TimestepEmbedding,
)
from vdmkit.networks.small import LabelNetwork, NoNetwork, SmallUNet
from vdmkit.networks.unet import Design, UNet, adm_unet, ddpm_unet, ddpmpp, iddpm_unet, ncsnpp
from vdmkit.networks.vdm_unet import VDMUNet
from vdmkit.networks.wrappers import Conditioned, LabelConditioned

__all__ = [
    "AbstractNetwork",
    "AbstractNoiseEmbedding",
    "Condition",
    "Conditioned",
    "Conditions",
    "Design",
    "GammaEmbedding",
    "LabelConditioned",
    "LabelNetwork",
    "LogSigmaEmbedding",
    "NoNetwork",
    "SdeTimeEmbedding",
    "SmallUNet",
    "TimestepEmbedding",
    "UNet",
    "VDMUNet",
    "adm_unet",
    "ddpm_unet",
    "ddpmpp",
    "iddpm_unet",
    "ncsnpp",
]
