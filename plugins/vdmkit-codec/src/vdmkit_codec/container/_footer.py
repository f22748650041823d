# SPDX-License-Identifier: Apache-2.0
"""The last 32 bytes of a .vdmz file, which show that it is finished and where its parts are."""

import struct
from dataclasses import dataclass

from vdmkit.errors import CodecError
from vdmkit_codec.container._chunk import keyed_digest
from vdmkit_codec.container._head import Head
from vdmkit_codec.container._source import Source

_END = b"ZMDV"
_FIELDS = struct.Struct("<QIII")  # end of the chunks; bytes of names, index and second head
_FOOTER_BYTES = _FIELDS.size + 8 + len(_END)


@dataclass(frozen=True)
class Footer:
    """Offsets in bytes of the consecutive parts after the chunks."""

    names: int
    index: int
    head: int
    footer: int


def pack_footer(fields: tuple[int, int, int, int], file_id: bytes) -> bytes:
    """Packs the end of the chunks and the bytes of names, index and second head, with a keyed digest."""
    packed = _FIELDS.pack(*fields)
    return packed + keyed_digest(file_id, [packed]) + _END


def read_footer(source: Source, head: Head) -> Footer:
    """Reads the footer.

    Raises:
        CodecError: The file does not end with a footer (it was truncated, or bytes follow), the footer is damaged, or
            the size of the file differs from the written one.
    """
    start = source.size - _FOOTER_BYTES
    data = source.read(start, _FOOTER_BYTES) if start >= len(head.raw) else b""
    if not data.endswith(_END) or not _holds(data, head):
        raise _why_none(source, head, data)
    chunks_end, names, index, copy = _FIELDS.unpack_from(data)
    end = chunks_end + names + index + copy
    if end != start:
        raise source.fault(
            f"has {source.size} bytes, but was written with {end + _FOOTER_BYTES}: some were taken out or put in"
        )
    return Footer(chunks_end, chunks_end + names, chunks_end + names + index, end)


def _holds(data: bytes, head: Head) -> bool:
    return keyed_digest(head.file_id, [data[: _FIELDS.size]]) == data[_FIELDS.size : -len(_END)]


def _why_none(source: Source, head: Head, data: bytes) -> CodecError:
    if more := _bytes_after(source, head):
        return source.fault(f"{more} bytes follow its end")
    if data.endswith(_END):
        return source.fault("its footer is damaged, or its header was edited: the footer's checksum does not hold")
    if source.path.suffix == ".part":
        return CodecError(f"{source.path}: is not finished. `vdmkit compress --resume` goes on with it.")
    return source.fault(f"was cut short, or its last bytes are damaged: it does not end with {_END!r}")


def _bytes_after(source: Source, head: Head) -> int:
    """Returns the number of bytes after a footer within the last 2^16 bytes; 0 if there is no footer."""
    start = max(len(head.raw), source.size - (1 << 16))
    last = source.read(start, max(0, source.size - start))
    end = len(last)
    while (at := last.rfind(_END, 0, end)) >= 0:
        end = at + len(_END)
        if end >= _FOOTER_BYTES and _holds(last[end - _FOOTER_BYTES : end], head):
            return len(last) - end
        end -= 1
    return 0
