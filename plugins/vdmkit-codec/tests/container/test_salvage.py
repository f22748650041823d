# SPDX-License-Identifier: Apache-2.0
"""Salvage: every chunk that is whole comes back as the images that it holds, whatever else is damaged."""

import os
import struct

import pytest
from vdmkit_codec.container import open_reader

from vdmkit.errors import CodecError


@pytest.mark.costly
@pytest.mark.parametrize("named", [False, True], ids=["no names", "names"])
def test_every_bit_flip_is_salvaged(vdmz, tmp_path, named):
    """One wrong bit would cost more than the chunk it is in, or give images another index."""
    path = vdmz.write(tmp_path / "a.vdmz", names=vdmz.names if named else None)
    with open_reader(path) as reader:
        places = [(entry.offset, entry.end) for entry in reader.chunks]
    for at, damaged in vdmz.flips(path.read_bytes()):
        vdmz.overwrite(path, damaged)
        hit = [begin <= at < end for begin, end in places]
        expected = {
            first: one for (first, one), lost in zip(vdmz.by_first(vdmz.chunks).items(), hit, strict=True) if not lost
        }
        chunks, images, words = vdmz.salvaged(path)
        assert chunks == expected
        assert images == 10
        assert len(words) >= 1


def test_salvage_without_an_index(vdmz, file, places):
    """Without its end, a file with a damaged chunk would lose others, or count its images wrongly."""
    data = file.read_bytes()[: places[-1][1]]
    for at, damaged in vdmz.flips(data, *places[1]):
        vdmz.overwrite(file, damaged)
        chunks, images, words = vdmz.salvaged(file)
        assert chunks == {first: one for first, one in vdmz.by_first(vdmz.chunks).items() if first != 1}, at
        assert images == 10
        assert any("chunk 1 (images 1 to 3) is damaged" in word or "images 1 to 3 are lost" in word for word in words)


def test_salvage_of_every_truncation(vdmz, file, places):
    """Chunks before the cut would be lost."""
    data = file.read_bytes()
    for size in reversed(range(places[0][0], len(data))):
        os.truncate(file, size)
        chunks, _, words = vdmz.salvaged(file)
        assert list(chunks.values()) == [one for one, (_, end) in zip(vdmz.chunks, places, strict=True) if end <= size]
        assert any("cut short" in word for word in words)


def test_salvage_where_bytes_were_taken_out(vdmz, file, places):
    """Chunks that are no longer where the index says would be lost."""
    data = file.read_bytes()
    begin, end = places[2]
    for cut in (begin, begin + 5, end - 3):
        file.write_bytes(data[:cut] + data[cut + 3 :])
        assert vdmz.salvaged(file)[0] == {first: one for first, one in vdmz.by_first(vdmz.chunks).items() if first != 4}


def test_salvage_needs_one_header(vdmz, file):
    """Images would be decoded by a guessed header; or one damaged copy would cost everything."""
    data = bytearray(file.read_bytes())
    head = 12 + struct.unpack_from("<I", data, 8)[0] + 4
    data[:head] = bytes(head)
    file.write_bytes(data)
    assert vdmz.salvaged(file)[0] == vdmz.by_first(vdmz.chunks)
    data[-32 - 20] ^= 1
    file.write_bytes(data)
    with pytest.raises(CodecError, match="No whole copy of its header"):
        vdmz.salvaged(file)


def test_salvage_finds_what_lies_across_pieces(vdmz, tmp_path):
    """A tag that lies across two pieces of the file, as it is searched, would not be found."""
    for shift in range(-6, 7):
        chunks = [vdmz.chunk(0, 1, 4096 + shift), vdmz.chunk(1, 1, 10)]
        path = vdmz.write(tmp_path / "a.vdmz", chunks)
        with open_reader(path) as reader:
            end = reader.chunks[1].end
        data = bytearray(path.read_bytes())[:end]  # no index, which would find it
        data[300] ^= 1  # so that the first chunk is searched through
        path.write_bytes(data)
        assert vdmz.salvaged(path)[0] == {1: chunks[1]}


def test_salvage_leaves_out_what_does_not_fit(vdmz, tmp_path):
    """Two chunks would claim the same images if files with the same header were mixed up."""
    one, other = [vdmz.chunk(i, 2) for i in range(3)], [vdmz.chunk(7, 3), vdmz.chunk(8, 1)]
    whole = [vdmz.write(tmp_path / "a.vdmz", chunks).read_bytes() for chunks in (other, one)]
    with open_reader(tmp_path / "a.vdmz") as reader:
        first, _, end = (entry.end for entry in reader.chunks)
    (tmp_path / "a.vdmz").write_bytes(whole[0][:first] + whole[1][first:end])
    chunks, images, words = vdmz.salvaged(tmp_path / "a.vdmz")
    assert chunks == {0: other[0], 4: one[2]}
    assert images == 6
    assert "images 3 to 3 are lost" in words
