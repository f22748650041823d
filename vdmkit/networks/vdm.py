# SPDX-License-Identifier: Apache-2.0
"""The parts of VDM's U-Net (`VDMUNet`), for networks that share them."""

from vdmkit.networks._embedding import Conditioning, sinusoid, with_fourier_features
from vdmkit.networks._layers import Conv, Dense, GroupNorm, VDMStage
from vdmkit.networks._vdm_unet import GROUPS

__all__ = ["GROUPS", "Conditioning", "Conv", "Dense", "GroupNorm", "VDMStage", "sinusoid", "with_fourier_features"]
