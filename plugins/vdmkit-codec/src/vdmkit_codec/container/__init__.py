# SPDX-License-Identifier: Apache-2.0
"""The file format `.vdmz`: chunks of coded images, written one by one and read in any order, with checksums.

All integers are little-endian. Sizes in bytes:

    head     VDMZ, version 2, flags 2, length of the header 4, header, CRC-32 4
    chunk    VDMC, begin of the file's id 4, ordinal 4, first image 8, images 4, bytes of payload 4,
             SHA-256 of the pixels 32, keyed digest 8, CRC-32 of the 68 bytes before it 4, payload
    ...
    names    VDMN, length 4, JSON compressed by zlib, keyed digest 8; it may be absent
    index    VDMI, length 4, digest of the names 8 (zeros without), for each chunk: images 4, bytes of payload 4,
             digest 8; keyed digest 8
    head     once more, for `salvage`
    footer   where the chunks end 8, bytes of names 4, of index 4, of head 4, keyed digest 8, ZMDV

The file's id is the SHA-256 of its head, and a keyed digest is the first 8 bytes of the SHA-256 of the id and the bytes
it covers (for a chunk all but its CRC-32). The digests detect chunks of another file, and a header that was edited and
given a new CRC-32; the index detects a chunk of another file with the same header.

The header is JSON compressed by zlib or, with flag 1, binary: see `_fields`. With flag 2 a file has at most 8 KiB, one
head, and

    front    number of chunks; for each: images, bytes of payload, first 16 bytes of the SHA-256 of its pixels, keyed
             digest 8 of its number, this SHA-256 and the payload; length of the names, JSON compressed by zlib; keyed
             digest 8 of the front
    payloads

A payload is one stack: see `Payload.to_bytes`. Numbers without a size are `_varint`s.

Files of version 1, whose flags are 0, are read and not written. Their payloads begin with numbers of groups 4, lanes 2,
levels of stored images 2, initial words 4 and words 4; sizes of the groups 2 each, and one bit per image that is set if
the image is stored.
"""

from vdmkit_codec.container._chunk import Chunk, Entry
from vdmkit_codec.container._file import pack_file, size_of_file
from vdmkit_codec.container._inspection import Inspection, inspect
from vdmkit_codec.container._limits import MAX_PIXELS, Limits
from vdmkit_codec.container._payload import Payload, payload_of
from vdmkit_codec.container._reader import Given, Reader, open_reader
from vdmkit_codec.container._writer import Writer, open_writer

__all__ = [
    "MAX_PIXELS",
    "Chunk",
    "Entry",
    "Given",
    "Inspection",
    "Limits",
    "Payload",
    "Reader",
    "Writer",
    "inspect",
    "open_reader",
    "open_writer",
    "pack_file",
    "payload_of",
    "size_of_file",
]
