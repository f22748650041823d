# SPDX-License-Identifier: Apache-2.0
"""What a codec makes of images, and where its time goes."""

import hashlib
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Float, UInt8
from vdmkit_codec.codec import Coding, fingerprint
from vdmkit_codec.compression import ChunkCode
from vdmkit_codec.container import Chunk, Payload, open_writer

from vdmkit.likelihood import interval, pass_over

TIMED = 256  # images
Images = UInt8[np.ndarray, "n h w c"]


@dataclass
class Watch:
    """Seconds in all and in calls of the network, the number of calls, and the net bits of each image."""

    seconds: float = 0
    network: float = 0
    calls: int = 0
    bits: list[Float[np.ndarray, " n"]] = field(default_factory=list)

    @property
    def share(self) -> float:
        """Returns the share of the time that is spent outside of the network."""
        return 1 - self.network / self.seconds


@dataclass(frozen=True)
class Measured:
    """Bits per dimension. To encode and decode: `milliseconds` an image, the coder's `shares`.

    `each`: net, of each image; None where some were stored.
    """

    gross: float
    net: float
    each: Float[np.ndarray, " n"] | None
    initial: float
    stored: int
    milliseconds: tuple[float, float]
    shares: tuple[float, float]
    calls: int


def measure(coding: Coding, images: Images) -> Measured:
    """Raises RuntimeError if other pixels come back."""
    code = coding.codec.chunk_code(coding.codec.group)
    timed = images[:TIMED]
    _compile(code)
    if coding.codec.layers.mixture:  # what searches in mixtures is compiled for the sizes that come
        code.decode(code.encode(timed)[0])
    (payload, bits), encoding = watched(code, lambda: code.encode(timed))
    back, decoding = watched(code, lambda: code.decode(payload))
    if not np.array_equal(back, timed):
        raise RuntimeError("other pixels came back")
    whole = encoding
    if len(images) > TIMED:
        (payload, bits), whole = watched(code, lambda: code.encode(images))
    values = images.size
    return Measured(
        8 * _bytes_of_file(coding, images, payload) / values,
        bits / values,
        None if payload.stored.any() else np.concatenate(whole.bits) / images[0].size,
        payload.initial_bits / values,
        int(payload.stored.sum()),
        (1e3 * encoding.seconds / len(timed), 1e3 * decoding.seconds / len(timed)),
        (encoding.share, decoding.share),
        encoding.calls,
    )


def bound(coding: Coding, images: Images, draws: int) -> tuple[Float[np.ndarray, " n"], float]:
    """The T-step bound of each image, in bits per dimension, and the half-width of the 95% interval of its draws."""
    per_nat = 1 / np.log(2) / images[0].size
    model = coding.codec.model
    plan = eqx.tree_at(lambda plan: plan.draws, coding.bound.even_plan(model), np.asarray(draws // 2))
    how = {"batch_size": min(TIMED, len(images)), "key": jax.random.key(1)}
    nats = np.asarray(pass_over(coding.bound, model, images, np.arange(len(images)), plan, **how).nats, np.float64)
    return nats.mean(0) * per_nat, interval(nats).half_width_monte_carlo * per_nat


def watched(code: ChunkCode, action: Callable[[], Any]) -> tuple[Any, Watch]:
    """What the action gives, and what it took."""
    watch = Watch()
    with _watching(code, watch):
        start = time.perf_counter()
        result = action()
        watch.seconds = time.perf_counter() - start
    return result, watch


@contextmanager
def _watching(code: ChunkCode, watch: Watch) -> Iterator[None]:
    network, chain = type(code.chain.network), type(code.chain)
    in_batches, encode = network._in_batches, chain.encode

    def timed(of: Any, count: int, call: Callable[..., Any]) -> Any:
        start = time.perf_counter()
        result = in_batches(of, count, lambda rows: counted(call, rows))
        watch.network += time.perf_counter() - start
        return result

    def counted(call: Callable[..., Any], rows: Any) -> Any:
        watch.calls += 1
        return call(rows)

    def kept_encode(*arguments: Any) -> Any:
        watch.bits.append(encode(*arguments))
        return watch.bits[-1]

    with patch.object(network, "_in_batches", timed), patch.object(chain, "encode", kept_encode):
        yield


def _compile(code: ChunkCode) -> None:
    """Both sizes of batches, of the steps and of the observation."""
    network = code.chain.network
    for count in (1, code.group):
        for t in (0, 1):
            network.decoded(np.zeros((count, *network.model.shape), np.int64), t, np.zeros(count, np.int64))


def _bytes_of_file(coding: Coding, images: Images, payload: Payload) -> int:
    """As `vdmkit compress` writes it, of an .npy and so without names."""
    header = coding.codec.header(fingerprint()) | {"chunk": len(images)}
    chunk = Chunk(len(images), payload.to_bytes(), hashlib.sha256(images.tobytes()).digest())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "images.vdmz"
        with open_writer(path, header, resume=False) as writer:
            writer.append(chunk)
            writer.finish(None)
        return path.stat().st_size
