# SPDX-License-Identifier: Apache-2.0
"""Lossless compression by a trained model: compresses images into .vdmz files and decompresses them."""

from vdmkit.codec._coding import Coding, fingerprint, layers_of, make_coding
from vdmkit.codec._compress import Compressed, compress
from vdmkit.codec._decompress import MadeWith, Preview, images_of_file, made_with, write_images
from vdmkit.codec._expected_rate import ExpectedRate, expected_rate

__all__ = [
    "Coding",
    "Compressed",
    "ExpectedRate",
    "MadeWith",
    "Preview",
    "compress",
    "expected_rate",
    "fingerprint",
    "images_of_file",
    "layers_of",
    "made_with",
    "make_coding",
    "write_images",
]
