# SPDX-License-Identifier: Apache-2.0
"""Searches a whole .vdmz file for its undamaged parts."""

from contextlib import suppress
from dataclasses import dataclass, field

from vdmkit.errors import CodecError
from vdmkit_codec.container._chunk import HEADER_BYTES, TAG, Entry, is_whole, read_entry
from vdmkit_codec.container._contents import Contents, check_copy
from vdmkit_codec.container._footer import read_footer
from vdmkit_codec.container._head import MAGIC, Head, read_head
from vdmkit_codec.container._small import read_small
from vdmkit_codec.container._source import Source
from vdmkit_codec.container._tail import INDEX, NAMES, index_of, names_of, read_section

_COMMON = b"VDM"  # first bytes of all tags
_TIMES, _LEAST = 16, 1 << 24  # how often the file's length may be read, and bytes that any file may


@dataclass
class _Found:
    """Chunks whose own header is undamaged, in the order of the file, and sections."""

    whole: list[Entry] = field(default_factory=list)
    broken: list[Entry] = field(default_factory=list)
    names: bytes | None = None
    index: bytes | None = None


def read_undamaged(source: Source) -> tuple[Head, Contents]:
    """Reads the whole file, a mebibyte at a time; returns its header and contents, with descriptions of damage.

    Overlapping chunks are not read without end, as in a file that is full of headers of chunks.

    Raises:
        CodecError: Both copies of the header are damaged.
    """
    damaged: list[str] = []
    source = source.metered(_TIMES * source.size + _LEAST)
    head = _any_head(source, damaged)
    if head.small:
        return head, read_small(source, head, salvage=True)
    try:
        check_copy(source, head, read_footer(source, head))
    except CodecError as error:
        damaged.append(source.said(error))
    found = _search(source, head, damaged)
    listed, names_digest = index_of(found.index, head) if found.index else (None, None)
    if listed is None:
        damaged.append("its index is damaged or missing")
        entries = _in_order(found, damaged)
    else:
        entries = _as_listed(listed, found, damaged)
    images = entries[-1].next_image if entries else 0
    names = _names(found.names, names_digest, None if listed is None else images, damaged)
    images = max(images, len(names or []))
    damaged.extend(_gaps(entries, images))
    return head, Contents(entries, images, names, damaged)


def _any_head(source: Source, damaged: list[str]) -> Head:
    try:
        return read_head(source)
    except CodecError as error:
        damaged.append(source.said(error))
        reason = damaged[-1].removesuffix(".")
    head, at = None, 1
    while (at := source.find(MAGIC, at)) is not None:
        with suppress(CodecError):
            head = read_head(source, at)  # the last one, because a payload of stored pixels may contain any bytes
        at += 1
    if head is None:
        raise CodecError(f"{source.path}: {reason}. No whole copy of its header was found: nothing can be decoded.")
    return head


def _search(source: Source, head: Head, damaged: list[str]) -> _Found:
    found, at = _Found(), 0
    while (at := source.find(_COMMON, at)) is not None:
        at = _take(source, head, at, found, damaged)
    return found


def _take(source: Source, head: Head, at: int, found: _Found, damaged: list[str]) -> int:
    """Adds the chunk or section at `at`, if there is one; returns where to continue."""
    try:
        tag = source.read(at, len(TAG))
        if tag == TAG and (entry := read_entry(source, at, head.file_id)):
            if is_whole(source, entry, head.file_id):
                found.whole.append(entry)
                return entry.end
            found.broken.append(entry)
            return at + HEADER_BYTES
        if tag == NAMES and (section := read_section(source, NAMES, at, head.file_id)):
            found.names = section
        if tag == INDEX and (section := read_section(source, INDEX, at, head.file_id)):
            found.index = section
    except CodecError as error:
        damaged.append(source.said(error))
    return at + 1


def _as_listed(listed: list[Entry], found: _Found, damaged: list[str]) -> list[Entry]:
    """Returns every chunk of the index, with its position if it was found."""
    whole = {entry.listed: entry for entry in found.whole}
    strangers = {entry.ordinal for entry in found.whole}
    for entry in listed:
        if entry.listed not in whole:
            what = "not the one that the index lists" if entry.ordinal in strangers else "damaged or missing"
            damaged.append(f"{entry.title} is {what}")
    return [whole.get(entry.listed, entry) for entry in listed]


def _in_order(found: _Found, damaged: list[str]) -> list[Entry]:
    """Returns one chunk per ordinal, without overlaps; intact chunks take precedence over damaged ones."""
    entries: list[Entry] = []
    whole = {id(entry) for entry in found.whole}
    for entry in sorted([*found.whole, *found.broken], key=lambda entry: entry.ordinal):
        if entries and (entry.ordinal == entries[-1].ordinal or entry.first < entries[-1].next_image):
            damaged.append(f"{entry.title} is there twice, or does not fit the chunk before it; it is skipped")
            continue
        entries.append(entry)
        if id(entry) not in whole:
            damaged.append(f"{entry.title} is damaged")
    return entries


def _names(section: bytes | None, digest: bytes | None, images: int | None, damaged: list[str]) -> list[str] | None:
    expected = digest is not None
    try:
        if section is not None and (not expected or section[-8:] == digest):
            return names_of(section, images)
    except ValueError as error:
        damaged.append(f"its names cannot be read: {error}")
        return None
    if expected:
        damaged.append("its names are damaged or missing")
    return None


def _gaps(entries: list[Entry], images: int) -> list[str]:
    starts = [entry.first for entry in entries] + [images]
    ends = [0] + [entry.next_image for entry in entries]
    return [f"images {end} to {start - 1} are lost" for end, start in zip(ends, starts, strict=True) if start > end]
