# SPDX-License-Identifier: Apache-2.0
"""Networks, which map one latent z and gamma to k values per pixel and channel."""

from vdmkit.networks._axis import AbstractAxis, GammaAxis, LogSigmaAxis, SdeTimeAxis, TimestepAxis
from vdmkit.networks._ddpm_unet import ddpm_unet
from vdmkit.networks._given import Given
from vdmkit.networks._label import LabelNetwork
from vdmkit.networks._labelled import Labelled
from vdmkit.networks._network import AbstractNetwork, Condition, Conditions
from vdmkit.networks._none import NoNetwork
from vdmkit.networks._openai_unet import adm_unet, iddpm_unet
from vdmkit.networks._small_unet import SmallUNet
from vdmkit.networks._song_unet import ddpmpp, ncsnpp
from vdmkit.networks._vdm_unet import VDMUNet
from vdmkit.networks.unet._unet import UNet

__all__ = [
    "AbstractAxis",
    "AbstractNetwork",
    "Condition",
    "Conditions",
    "GammaAxis",
    "Given",
    "LabelNetwork",
    "Labelled",
    "LogSigmaAxis",
    "NoNetwork",
    "SdeTimeAxis",
    "SmallUNet",
    "TimestepAxis",
    "UNet",
    "VDMUNet",
    "adm_unet",
    "ddpm_unet",
    "ddpmpp",
    "iddpm_unet",
    "ncsnpp",
]
