# SPDX-License-Identifier: Apache-2.0
"""Reads the contents of an undamaged .vdmz file from its footer and index."""

from dataclasses import dataclass, field

from vdmkit.errors import CodecError
from vdmkit_codec.container._chunk import HEADER_BYTES, Entry, walk
from vdmkit_codec.container._footer import Footer, read_footer
from vdmkit_codec.container._head import Head
from vdmkit_codec.container._source import Source
from vdmkit_codec.container._tail import INDEX, NAMES, index_of, names_of, number_of_chunks, read_section


@dataclass(frozen=True)
class Contents:
    """The contents of a file without its header and payloads.

    Attributes:
        entries: Its chunks, by ordinal.
        images: Number of images that were written.
        names: A name for each image, or None.
        damaged: Descriptions of damage.
    """

    entries: list[Entry]
    images: int
    names: list[str] | None
    damaged: list[str] = field(default_factory=list)


def read_contents(source: Source, head: Head) -> Contents:
    """Reads the contents of a file without its chunks.

    Raises:
        CodecError: The footer, index, names or second header are damaged, the chunks are not in order, or the file is
            unfinished.
    """
    if head.small:
        from vdmkit_codec.container._small import read_small

        return read_small(source, head, salvage=False)
    try:
        return _read(source, head, read_footer(source, head))
    except CodecError:
        check_order(source, head)  # chunks out of order are the more informative error
        raise


def _read(source: Source, head: Head, footer: Footer) -> Contents:
    check_copy(source, head, footer)
    section = read_section(source, INDEX, footer.index, head.file_id)
    if section and number_of_chunks(section) * HEADER_BYTES > footer.names:
        raise source.fault("its index lists more chunks than it has room for")
    entries, names_digest = index_of(section, head) if section else ([], None)
    if section is None or footer.names != (entries[-1].end if entries else len(head.raw)):
        raise source.fault("its index is damaged")
    images = entries[-1].next_image if entries else 0
    return Contents(entries, images, _read_names(source, head, footer.names, names_digest, images))


def check_order(source: Source, head: Head) -> None:
    """Follows the chunks by their own headers, as far as these are undamaged.

    Raises:
        CodecError: A chunk belongs to another file, or is not in its place.
    """
    for _ in walk(source, len(head.raw), head.file_id):
        pass


def check_copy(source: Source, head: Head, footer: Footer) -> None:
    """Compares the two copies of the header.

    Raises:
        CodecError: The second copy differs.
    """
    if source.read(footer.head, footer.footer - footer.head) != head.raw:
        raise source.fault("the second of its two copies of the header is damaged")


def _read_names(source: Source, head: Head, start: int, digest: bytes | None, images: int) -> list[str] | None:
    if digest is None:
        return None
    section = read_section(source, NAMES, start, head.file_id)
    if section is None or section[-8:] != digest:
        raise source.fault("its names are damaged")
    try:
        return names_of(section, images)
    except ValueError as error:
        raise source.fault(f"its names cannot be read: {error}") from error
