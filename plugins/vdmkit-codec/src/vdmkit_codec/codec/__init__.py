# SPDX-License-Identifier: Apache-2.0
"""Lossless compression by a trained model: compresses images into .vdmz files and decompresses them."""

from vdmkit_codec.codec._coding import Coding, fingerprint, layers_of, make_coding
from vdmkit_codec.codec._compress import Compressed, write_file
from vdmkit_codec.codec._decompress import MadeWith, Preview, images_of_file, made_with, write_images
from vdmkit_codec.codec._expected_rate import ExpectedRate, expected_rate
from vdmkit_codec.codec._run import codec_of_file, coding_of, step_of_file, with_steps_of_codec

__all__ = [
    "Coding",
    "Compressed",
    "ExpectedRate",
    "MadeWith",
    "Preview",
    "codec_of_file",
    "coding_of",
    "expected_rate",
    "fingerprint",
    "images_of_file",
    "layers_of",
    "made_with",
    "make_coding",
    "step_of_file",
    "with_steps_of_codec",
    "write_file",
    "write_images",
]
