# SPDX-License-Identifier: Apache-2.0
"""Lossless compression by a trained model: compresses images into .vdmz files and decompresses them."""

from vdmkit_codec.codec._api import Archive, compress, decompress, open
from vdmkit_codec.codec._coding import Coding, default_bound, fingerprint, layers_of, make_coding, mixture_gammas
from vdmkit_codec.codec._compress import Compressed, to_bytes, write_file
from vdmkit_codec.codec._decompress import (
    LostError,
    MadeWith,
    Preview,
    images_of_file,
    lost_images,
    made_with,
    write_images,
)
from vdmkit_codec.codec._expected_rate import ExpectedRate, expected_rate
from vdmkit_codec.codec._run import codec_of_file, coding_of, step_of_file, with_steps_of_codec

__all__ = [
    "Archive",
    "Coding",
    "Compressed",
    "ExpectedRate",
    "LostError",
    "MadeWith",
    "Preview",
    "codec_of_file",
    "coding_of",
    "compress",
    "decompress",
    "default_bound",
    "expected_rate",
    "fingerprint",
    "images_of_file",
    "layers_of",
    "lost_images",
    "made_with",
    "make_coding",
    "mixture_gammas",
    "open",
    "step_of_file",
    "to_bytes",
    "with_steps_of_codec",
    "write_file",
    "write_images",
]
