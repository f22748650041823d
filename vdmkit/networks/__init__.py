# SPDX-License-Identifier: Apache-2.0
"""Networks, which map one latent z and gamma to k values per pixel and channel."""

from vdmkit.networks._labelled import Labelled
from vdmkit.networks._network import AbstractNetwork, Condition
from vdmkit.networks._none import NoNetwork
from vdmkit.networks._small_unet import SmallUNet
from vdmkit.networks._vdm_unet import VDMUNet

__all__ = ["AbstractNetwork", "Condition", "Labelled", "NoNetwork", "SmallUNet", "VDMUNet"]
