# SPDX-License-Identifier: Apache-2.0
"""Files whose fields were changed by an enemy who makes all checksums anew: refused at once, and with little memory."""

import hashlib
import random
import resource
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import vdmkit_codec
from vdmkit_codec.codec import Codec, codec_of
from vdmkit_codec.coding import default_bound, layers_of
from vdmkit_codec.container import DIGEST, Chunk, open_reader, pack_file
from vdmkit_codec.decoding import images_of_file
from vdmkit_codec.payload import Payload

from vdmkit.errors import VdmkitError

MACHINE = {"versions": "jax 1, numpy 2"}
MOST_SECONDS, MOST_BYTES = 1, 200e6
NUMBERS = [0, 1, 2, 3, 5, 255, 256, 65535, 65536, 10**6, 2**31, 2**32 - 1, 2**63, 2**64 - 1, -1, 10**30]


@pytest.fixture(scope="module")
def codec(make_codec, learned) -> Codec:
    return make_codec(learned, 3)


@pytest.fixture(scope="module")
def coded(codec, images) -> tuple[dict[str, Any], Payload, bytes]:
    """The header, the payload and the SHA-256 of 13 images."""
    payload, _ = codec.chunk_code(8).encode(images[:13])
    return codec.header(MACHINE) | {"chunk": 16}, payload, hashlib.sha256(images[:13].tobytes()).digest()[:DIGEST]


def peak() -> int:
    """The most bytes that this process had since the last call, and begins anew; in all where Linux does not tell."""
    try:
        status = Path("/proc/self/status").read_text()
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])


def refused_at_once(data: bytes, model, expected: np.ndarray, whole: float, code: Codec | None = None) -> bool:
    """Whether it is refused; if not, its pixels are the right ones. Checks memory, and time beyond a whole decoding."""
    peak()
    start, before = time.process_time(), peak()
    try:
        with open_reader(data) as reader:
            found = code or codec_of(reader.header, model, MACHINE)
            parts = [part for _, part in images_of_file(found, reader, range(reader.images))]
        refused = False
    except VdmkitError:
        refused = True
    assert time.process_time() - start < MOST_SECONDS + whole
    assert peak() - before < MOST_BYTES
    if not refused:
        np.testing.assert_array_equal(np.concatenate(parts), expected)
    return refused


@pytest.fixture(scope="module")
def whole(coded, learned, codec, images) -> float:
    """Seconds to decode the file as it was written; what is timed is not compiled then."""
    header, payload, digest = coded
    data = pack_file(header, [Chunk(13, payload.to_bytes(), digest)])
    assert vdmkit_codec.decompress(data, learned).shape == images[:13].shape
    code = codec.chunk_code(8)
    for first in (1, 9):
        code.decode(code.encode(images[:first])[0])
    with suppress(VdmkitError):
        code.decode(replace(payload, heads=np.resize(payload.heads, code.lanes)))
    start = time.process_time()
    vdmkit_codec.decompress(data, learned)
    return time.process_time() - start


def mutated_numbers(value: int, rng: random.Random) -> int:
    return rng.choice([value + 1, value - 1, 2 * value, value * 1000, -value, *NUMBERS])


def mutated(value: Any, rng: random.Random) -> Any:
    """Another value of a field of a header."""
    if isinstance(value, dict):
        key = rng.choice(sorted(value))
        return value | {key: mutated(value[key], rng)}
    if isinstance(value, list):
        at = rng.randrange(len(value) + 1)
        changed = [mutated(one, rng) for one in value[at : at + 1]] or [rng.choice(NUMBERS)]
        return rng.choice([value[:at] + changed + value[at + 1 :], value[:at], value * 1000, value[::-1]])
    if isinstance(value, str):
        return rng.choice(["", value[:-1], value[::-1], value + "0", "x" * 10**5])
    return mutated_numbers(value, rng) if isinstance(value, int) else rng.choice([0.0, -value, value * 2, 1e300])


@pytest.mark.costly
def test_mutated_headers(coded, learned, images, whole) -> None:
    """A changed field of the header is refused in bounded time and memory, or the pixels are the same."""
    header, payload, digest = coded
    rng, refused = random.Random(0), 0
    for number in range(104):
        key = sorted(header)[number % len(header)]
        edited = header | {key: mutated(header[key], rng)}
        try:
            data = pack_file(edited, [Chunk(13, payload.to_bytes(), digest)])
        except ValueError:
            continue  # no writer makes it
        refused += refused_at_once(data, learned, images[:13], whole)
    assert refused > 80


def mutated_payload(payload: Payload, rng: random.Random) -> Payload:
    groups = list(payload.groups)
    edits: list[Callable[[], Payload]] = [
        lambda: replace(payload, groups=tuple(abs(mutated_numbers(size, rng)) % 2**64 for size in groups)),
        lambda: replace(payload, groups=tuple(rng.sample(groups, len(groups)))),
        lambda: replace(payload, groups=(13,)),
        lambda: replace(payload, stored=np.full(13, rng.choice([2, 3, 5, 17, 256]), np.uint16)),
        lambda: replace(payload, stored=np.resize(np.array([0, 256], np.uint16), 13)),
        lambda: replace(payload, heads=np.resize(payload.heads, rng.choice([2, 3, 64, 32_768]))),
        lambda: replace(payload, seeded=rng.choice([payload.seeded + 1, 0, 2**63])),
        lambda: replace(payload, heads=payload.heads ^ np.uint64(1 << rng.randrange(64))),
        lambda: replace(payload, words=payload.words[: rng.randrange(len(payload.words))]),
        lambda: replace(payload, words=np.resize(payload.words, 10**6)),
        lambda: replace(payload, words=payload.words ^ np.uint32(1 << rng.randrange(32))),
    ]
    return rng.choice(edits)()


@pytest.mark.costly
def test_mutated_payloads(coded, learned, codec, images, whole) -> None:
    """A changed payload with correct checksums is refused in bounded time and memory, or the pixels are the same."""
    header, payload, digest = coded
    rng, refused = random.Random(1), 0
    for _ in range(60):
        changed = mutated_payload(payload, rng)
        count = rng.choice([13, 13, 13, 1, 12, 14, 16, 17, 1000, 65535])
        data = pack_file(header, [Chunk(count, changed.to_bytes(), digest)])
        refused += refused_at_once(data, learned, images[:13], whole, codec)
    assert refused > 55


def test_the_limit_can_be_raised(learned, images) -> None:
    """A large chunk is refused unless `max_pixels` allows it."""
    data = vdmkit_codec.compress(learned, images, steps=3)
    with pytest.raises(VdmkitError, match=r"592 pixels, more than 500\. If you trust the file: --max-pixels 592"):
        vdmkit_codec.decompress(data, learned, max_pixels=500)
    np.testing.assert_array_equal(vdmkit_codec.decompress(data, learned, max_pixels=592), images)


def test_layers_of_a_recipe_are_within_the_limits(learned) -> None:
    """The steps that users choose are within the limits."""
    for steps in (1, 15, 250, 1000):
        layers = layers_of(learned, default_bound(learned, steps))
        assert layers.steps == steps
