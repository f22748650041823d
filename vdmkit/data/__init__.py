# SPDX-License-Identifier: Apache-2.0
"""Images: data sources, the identity of the data, and the stream of training batches."""

from vdmkit.data._augmentation import AbstractAugmentation, Flip, PermuteChannels, Rotate90
from vdmkit.data._batches import BatchSource, batches, image_numbers
from vdmkit.data._cifar10 import Cifar10
from vdmkit.data._comparable import check_comparable, check_fits, check_like, check_pixels, reasons_against
from vdmkit.data._copies import Copies, Prints, copies_of, groups_of, hashes_of, image_hashes, may_be_prints, prints_of
from vdmkit.data._counts import level_counts
from vdmkit.data._digits import Digits
from vdmkit.data._folder import Folder
from vdmkit.data._huggingface import HuggingFace
from vdmkit.data._image_file import read_image
from vdmkit.data._image_list import ImageList, list_images
from vdmkit.data._imagenet import ImageNetNew, ImageNetOld
from vdmkit.data._mnist import Mnist5k
from vdmkit.data._npz import Npz
from vdmkit.data._oracle import GaussianData, MixtureData
from vdmkit.data._pack import pack, verify
from vdmkit.data._packed import Packed
from vdmkit.data._pixels import AbstractPixels, Pixels, blocks, equal_batches, select
from vdmkit.data._remarks import on_copies
from vdmkit.data._sidecar import Sidecar
from vdmkit.data._source import (
    AbstractSource,
    Identities,
    Identity,
    Images,
    Split,
    hash_and_range,
    identified,
    pixel_sha256,
)
from vdmkit.data._statistics import Difference, Statistics, differences, may_be_statistics, statistics_of
from vdmkit.data._trained_on import TrainedOn, trained_on

__all__ = [
    "AbstractAugmentation",
    "AbstractPixels",
    "AbstractSource",
    "BatchSource",
    "Cifar10",
    "Copies",
    "Difference",
    "Digits",
    "Flip",
    "Folder",
    "GaussianData",
    "HuggingFace",
    "Identities",
    "Identity",
    "ImageList",
    "ImageNetNew",
    "ImageNetOld",
    "Images",
    "MixtureData",
    "Mnist5k",
    "Npz",
    "Packed",
    "PermuteChannels",
    "Pixels",
    "Prints",
    "Rotate90",
    "Sidecar",
    "Split",
    "Statistics",
    "TrainedOn",
    "batches",
    "blocks",
    "check_comparable",
    "check_fits",
    "check_like",
    "check_pixels",
    "copies_of",
    "differences",
    "equal_batches",
    "groups_of",
    "hash_and_range",
    "hashes_of",
    "identified",
    "image_hashes",
    "image_numbers",
    "level_counts",
    "list_images",
    "may_be_prints",
    "may_be_statistics",
    "on_copies",
    "pack",
    "pixel_sha256",
    "prints_of",
    "read_image",
    "reasons_against",
    "select",
    "statistics_of",
    "trained_on",
    "verify",
]
