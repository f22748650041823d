# SPDX-License-Identifier: Apache-2.0
"""Images: data sources, the identity of the data, and the stream of training batches."""

from vdmkit.data.arrays import Digits, GaussianData, MixtureData, Mnist5k, Npz
from vdmkit.data.batches import AbstractAugmentation, Flip, PermuteChannels, Rotate90
from vdmkit.data.cifar10 import Cifar10
from vdmkit.data.folder import Folder
from vdmkit.data.huggingface import HuggingFace
from vdmkit.data.imagenet import ImageNetNew, ImageNetOld
from vdmkit.data.packed import Packed
from vdmkit.data.sources import AbstractPixels, AbstractSource, Images, Pixels

__all__ = [
    "AbstractAugmentation",
    "AbstractPixels",
    "AbstractSource",
    "Cifar10",
    "Digits",
    "Flip",
    "Folder",
    "GaussianData",
    "HuggingFace",
    "ImageNetNew",
    "ImageNetOld",
    "Images",
    "MixtureData",
    "Mnist5k",
    "Npz",
    "Packed",
    "PermuteChannels",
    "Pixels",
    "Rotate90",
]
