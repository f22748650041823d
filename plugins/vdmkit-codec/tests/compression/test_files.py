# SPDX-License-Identifier: Apache-2.0
"""Files that were changed by an enemy, who makes all checksums anew: refused, or the same pixels."""

import hashlib
import random
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import equinox as eqx
import numpy as np
import pytest
from vdmkit_codec.codec import codec_of
from vdmkit_codec.container import DIGEST, Chunk, open_reader, open_writer
from vdmkit_codec.decoding import images_of_file
from vdmkit_codec.inspection import inspect
from vdmkit_codec.payload import Limits, Payload, payload_of

from vdmkit.errors import CodecError, VdmkitError

MACHINE = {"versions": "jax 1, numpy 2", "device": "cpu"}
ONE = 1 << 16  # of gamma


@pytest.fixture(scope="module")
def codec(make_codec, learned):
    return make_codec(learned, 3)


@pytest.fixture(scope="module")
def coded(codec, images) -> tuple[dict, list[tuple[Payload, bytes]]]:
    """A header, and two chunks."""
    chunks = []
    for pixels in (images[:9], images[9:13]):
        payload, _ = codec.chunk_code(8).encode(pixels)
        chunks.append((payload, hashlib.sha256(pixels.tobytes()).digest()[:DIGEST]))
    return codec.header(MACHINE), chunks


def write(path: Path, header: dict, chunks) -> Path:
    with open_writer(path, header, resume=False) as writer:
        for payload, digest in chunks:
            data = payload if isinstance(payload, bytes) else payload.to_bytes()
            images = 9 if not writer.images else 4
            writer.append(Chunk(images, data, digest))
        writer.finish(None)
    return path


def read(path: Path, model, code=None) -> np.ndarray:
    """All images, by `code` if the header is known to be whole."""
    with open_reader(path) as reader:
        found = code or codec_of(reader.header, model, MACHINE)
        return np.concatenate([part for _, part in images_of_file(found, reader, range(reader.images))])


def refused_or_same(path: Path, model, images, code=None) -> bool:
    """Whether it is refused. Nothing but VdmkitError may come of it, and no other pixels."""
    try:
        found = read(path, model, code)
    except VdmkitError:
        return True
    np.testing.assert_array_equal(found, images[:13])
    return False


@pytest.mark.costly
def test_as_written(tmp_path, coded, learned, images) -> None:
    """The unchanged file is accepted, so that the tests below refuse their changes."""
    path = write(tmp_path / "a.vdmz", *coded)
    assert not refused_or_same(path, learned, images)
    assert inspect(path).images == 13


ANYTHING = [None, True, -1, 0, 1, 2**63, 10**30, 1.5, 1e300, "", "portable", [], [0], [[]], {}, {"a": 1}]
FALLING = [[-6 * ONE, ONE, -1], [-6 * ONE, 0, ONE], [0, 10**30], [0, 100 * ONE, 1], [-6 * ONE, 1, 1, 1], [0] + [1] * 99]
EDITS = {
    "shape": [[4, 4, 3], [4, 4], [1, 1, 1], [0, 0, 0], [-4, -4, 1], [4, 4, 1.0], [10**9, 10**9, 1]],
    "levels": [2, 4, 6, 256, 10**9],
    "spacing": [0.3, -0.4, 1e-300],
    "kernel": ["gaussian", "Mixture"],
    "gammas": FALLING,
    "log_errors": [[0, 0, 0], [0], [10**9] * 3, [80 * ONE] * 3],
    "profile": ["host", "exact"],
    "group": [65536, 3],
    "seed": [4, 2**64],
    "model": ["0" * 32],
    "tables": ["0" * 16, "0" * 32],
    "probe": [
        {"offsets": [0] * 4, "sha256": "0" * 16},
        {"offsets": [17] * 4, "sha256": ""},
        {"offsets": [0], "sha256": ""},
    ],
    "machine": [MACHINE],
}


@pytest.mark.costly
@pytest.mark.parametrize("key", EDITS)
def test_edited_headers(tmp_path, coded, learned, images, key) -> None:
    """A header with a changed field is refused, or the field is harmless and the pixels are the same."""
    header, chunks = coded
    accepted = []
    for value in [*ANYTHING, *EDITS[key], "absent"]:
        edited = header | {key: value}
        if value == "absent":
            del edited[key]
        path = write(tmp_path / "a.vdmz", edited, chunks)
        if not refused_or_same(path, learned, images):
            accepted.append(value)
    # Sizes of groups are in the payload, and the machine of profile portable is for information.
    harmless = {"group": [1, 3], "machine": ["", "portable", {}, MACHINE], "log_errors": [[]], "profile": ["portable"]}
    assert all(value in harmless.get(key, []) for value in accepted), accepted


@pytest.mark.costly
@pytest.mark.parametrize("gammas", FALLING)
@pytest.mark.parametrize("kernel", ["gaussian", "mixture"])
def test_steps_are_refused_before_tables_are_made(coded, learned, gammas, kernel) -> None:
    """Steps whose tables would fill the memory are refused before these are made."""
    header, _ = coded
    for errors in ([], [79 * ONE] * (len(gammas) - 1)):
        with pytest.raises(CodecError):
            codec_of(header | {"gammas": gammas, "kernel": kernel, "log_errors": errors}, learned, MACHINE)


def swapped(payload: Payload) -> Payload:
    return replace(payload, groups=payload.groups[::-1])


PAYLOADS = {
    "groups": swapped,
    "one group": lambda p: replace(p, groups=(sum(p.groups),)),
    "groups of one": lambda p: replace(p, groups=(1,) * sum(p.groups)),
    "stored": lambda p: replace(p, stored=np.full_like(p.stored, 5)),
    "one stored": lambda p: replace(p, stored=np.where(np.arange(len(p.stored)) == 2, 5, p.stored).astype(np.uint16)),
    "stored of 1 level": lambda p: replace(p, stored=np.full_like(p.stored, 1)),
    "stored of 256 levels": lambda p: replace(p, stored=np.full_like(p.stored, 256)),
    "heads zero": lambda p: replace(p, heads=0 * p.heads),
    "heads ones": lambda p: replace(p, heads=~(0 * p.heads)),
    "a head more": lambda p: replace(p, heads=np.append(p.heads, p.heads[:1])),
    "no words": lambda p: replace(p, words=p.words[:0], seeded=0),
    "no words, full heads": lambda p: replace(p, words=p.words[:0], heads=~(0 * p.heads)),
    "a word less": lambda p: replace(p, words=p.words[1:]),
    "a word more": lambda p: replace(p, words=np.append(np.uint32(7), p.words)),
    "a word more on top": lambda p: replace(p, words=np.append(p.words, np.uint32(7))),
    "words zero": lambda p: replace(p, words=0 * p.words),
    "words ones": lambda p: replace(p, words=~(0 * p.words)),
    "words turned": lambda p: replace(p, words=p.words[::-1]),
    "seeded": lambda p: replace(p, seeded=2**32 - 1),
}


@pytest.mark.parametrize("edit", PAYLOADS)
def test_edited_payloads(tmp_path, coded, learned, codec, images, edit) -> None:
    """A changed payload with correct checksums is refused."""
    header, ((payload, digest), second) = coded
    path = write(tmp_path / "a.vdmz", header, [(PAYLOADS[edit](payload), digest), second])
    assert refused_or_same(path, learned, images, codec)
    with suppress(CodecError):
        inspect(path)


@pytest.mark.costly
def test_payloads_of_noise(tmp_path, coded, learned, codec, images) -> None:
    """Noise in place of a payload, or a part of one, is refused."""
    header, ((payload, digest), second) = coded
    rng = random.Random(0)
    data, start = payload.to_bytes(), 16 + 2 * len(payload.groups)
    for _ in range(20):
        noise = data[:start] + rng.randbytes(len(data) - start)
        assert refused_or_same(write(tmp_path / "a.vdmz", header, [(noise, digest), second]), learned, images, codec)
    for size in (0, 1, 15, 16, 17, len(data) - 1):
        assert refused_or_same(
            write(tmp_path / "a.vdmz", header, [(data[:size], digest), second]), learned, images, codec
        )


def flips(data: bytes, count: int):
    for bit in random.Random(0).sample(range(8 * len(data)), min(count, 8 * len(data))):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        yield bytes(damaged)


@pytest.mark.costly
def test_flips_of_the_payload(tmp_path, coded, learned, codec, images) -> None:
    """A wrong bit of the payload with correct checksums is refused, or the pixels are the same."""
    header, ((payload, digest), second) = coded
    for damaged in flips(payload.to_bytes(), 30):
        refused_or_same(write(tmp_path / "a.vdmz", header, [(damaged, digest), second]), learned, images, codec)


@pytest.mark.statistical
@pytest.mark.parametrize("count", [100, pytest.param(2000, marks=pytest.mark.slow)])
def test_flips_of_the_file(tmp_path, coded, learned, images, count) -> None:
    """A wrong bit anywhere in a file is refused."""
    path = write(tmp_path / "a.vdmz", *coded)
    for damaged in flips(path.read_bytes(), count):
        path.write_bytes(damaged)
        assert refused_or_same(path, learned, images)


def test_truncations(tmp_path, coded, learned, images) -> None:
    """A file that was cut off anywhere is refused."""
    path = write(tmp_path / "a.vdmz", *coded)
    data = path.read_bytes()
    for size in range(0, len(data), 7):
        path.write_bytes(data[:size])
        assert refused_or_same(path, learned, images)


def test_exchanged_chunks(tmp_path, coded, learned, codec, images) -> None:
    """A chunk with the digest of different pixels is refused."""
    header, (first, second) = coded
    path = write(tmp_path / "a.vdmz", header, [(first[0], second[1]), second])
    with pytest.raises(CodecError, match=r"chunk 0 .*not those that were encoded"):
        read(path, learned, codec)


def test_another_checkpoint(tmp_path, coded, learned) -> None:
    """A model whose last bit differs, or that has different histograms, is refused."""
    path = write(tmp_path / "a.vdmz", *coded)
    nudged = eqx.tree_at(lambda m: m.network.bias, learned, learned.network.bias.at[3].multiply(1 + 2**-22))
    for other in (
        nudged,
        eqx.tree_at(lambda m: m.prediction.level_counts, learned, learned.prediction.level_counts + 1),
    ):
        with pytest.raises(CodecError, match="it was made with the model"):
            read(path, other)


def test_another_machine(make_codec, learned) -> None:
    """Profile host decodes on the encoder's machine only; portable ignores the machine."""
    other = MACHINE | {"device": "gpu"}
    header = make_codec(learned, 3, profile="host").header(MACHINE)
    assert codec_of(header, learned, MACHINE).profile == "host"
    with pytest.raises(CodecError, match="profile host"):
        codec_of(header, learned, other)
    with pytest.raises(CodecError, match="outputs are not those of the encoder"):
        codec_of(header | {"probe": header["probe"] | {"sha256": "0" * 16}}, learned, MACHINE)
    assert codec_of(make_codec(learned, 3).header(MACHINE), learned, other).profile == "portable"


@pytest.mark.parametrize("key", EDITS)
def test_inspect_shows_edited_headers_or_refuses(tmp_path, coded, key) -> None:
    """`vdmkit inspect` shows an edited header or raises CodecError."""
    header, chunks = coded
    for value in (*ANYTHING, "absent"):
        edited = {name: one for name, one in (header | {key: value}).items() if (name, value) != (key, "absent")}
        with suppress(CodecError):
            str(inspect(write(tmp_path / "a.vdmz", edited, chunks)))


def test_payload_round_trip(coded) -> None:
    """A payload is the same after writing and reading."""
    _, chunks = coded
    for payload, _ in chunks:
        again = payload_of(payload.to_bytes(), len(payload.stored), Limits(9, 8, 16))
        assert again.to_bytes() == payload.to_bytes()
        assert again.groups == payload.groups
