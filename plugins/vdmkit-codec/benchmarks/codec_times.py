# SPDX-License-Identifier: Apache-2.0
"""What a codec makes of images, and where its time goes: `uv run python codec_times.py RUN`, in this folder.

Prints milliseconds for each of the first 256 test images of a run, or of what there is, with the default steps of
`vdmkit compress`, or with its options `--steps` and `--grid`, after compilation. CPU is the time of all cores, which
other programs on the machine do not change much. rows: images in calls of the network, padding included, for each image
and step. "alone" is the network with full batches only, which a codec cannot be faster than.
"""

import argparse
import hashlib
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args
from unittest.mock import patch

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Float, UInt8
from vdmkit_codec.chain import ChunkCode
from vdmkit_codec.codec import Profile
from vdmkit_codec.coding import Coding, coding_of, fingerprint, with_steps_of_codec
from vdmkit_codec.container import DIGEST, Chunk, open_writer
from vdmkit_codec.payload import Payload

from vdmkit.cli.options import of_estimator
from vdmkit.experiments import load_run
from vdmkit.likelihood.intervals import interval
from vdmkit.likelihood.log_likelihood import pass_over

TIMED = 256  # images
BATCH = 64  # the default of `vdmkit compress`
Images = UInt8[np.ndarray, "n h w c"]


@dataclass
class Watch:
    """Seconds in all and in the network, the same of all cores, calls, rows, and the net bits of each image."""

    seconds: float = 0
    network: float = 0
    cpu: float = 0
    network_cpu: float = 0
    calls: int = 0
    rows: int = 0
    bits: list[Float[np.ndarray, " n"]] = field(default_factory=list)

    @property
    def share(self) -> float:
        """Returns the share of the time of all cores that is spent outside of the network."""
        return 1 - self.network_cpu / self.cpu


@dataclass(frozen=True)
class Measured:
    """Bits per dimension. To encode and decode: `milliseconds` of all cores an image, the coder's `shares`.

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
    code = coding.codec.chunk_code()
    timed = images[:TIMED]
    (payload, bits), encoding, decoding = round_trip(coding, timed)
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
        (1e3 * encoding.cpu / len(timed), 1e3 * decoding.cpu / len(timed)),
        (encoding.share, decoding.share),
        encoding.calls,
    )


def round_trip(coding: Coding, images: Images) -> tuple[tuple[Payload, float], Watch, Watch]:
    """Encodes and decodes images after compilation: what `encode` returns, and what both take.

    Raises RuntimeError if other pixels come back.
    """
    code = coding.codec.chunk_code()
    _compile(code)
    if coding.codec.layers.mixture:  # what searches in mixtures is compiled for the sizes that come
        code.decode(code.encode(images)[0])
    encoded, encoding = watched(code, lambda: code.encode(images))
    back, decoding = watched(code, lambda: code.decode(encoded[0]))
    if not np.array_equal(back, images):
        raise RuntimeError("other pixels came back")
    return encoded, encoding, decoding


def alone(coding: Coding, count: int) -> Watch:
    """What the network takes for so many images in full batches at every step, after compilation."""
    code = coding.codec.chunk_code()
    _compile(code)
    shape, zeros = (code.group, *coding.codec.model.shape), np.zeros(code.group, np.int64)

    def evaluate() -> None:
        for t in [*range(coding.codec.layers.steps + 1)] * (count // code.group):
            code.chain.network.decoded(np.zeros(shape, np.int64), t, zeros)

    return watched(code, evaluate)[1]


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
        start, cpu = time.perf_counter(), time.process_time()
        result = action()
        watch.seconds, watch.cpu = time.perf_counter() - start, time.process_time() - cpu
    return result, watch


@contextmanager
def _watching(code: ChunkCode, watch: Watch) -> Iterator[None]:
    network, chain = type(code.chain.network), type(code.chain)
    in_batches, encode = network._in_batches, chain.encode

    def timed(of: Any, count: int, call: Callable[..., Any]) -> Any:
        start, cpu = time.perf_counter(), time.process_time()
        result = in_batches(of, count, lambda rows: counted(call, rows))
        watch.network += time.perf_counter() - start
        watch.network_cpu += time.process_time() - cpu
        return result

    def counted(call: Callable[..., Any], rows: Any) -> Any:
        watch.calls += 1
        watch.rows += len(rows)
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
    chunk = Chunk(len(images), payload.to_bytes(), hashlib.sha256(images.tobytes()).digest()[:DIGEST])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "images.vdmz"
        with open_writer(path, header, resume=False) as writer:
            writer.append(chunk)
            writer.finish(None)
        return path.stat().st_size


def main() -> None:
    """Print the times of both profiles."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--grid")
    given = parser.parse_args()
    overrides = of_estimator(given.steps, None, given.grid)
    run = with_steps_of_codec(load_run(given.run, overrides), overrides)
    images = run.data("test").pixels[:TIMED]
    columns = ("wall", "network", "rest", "CPU", "network", "rest", "rows")
    print(f"{len(images)} images, ms an image" + "".join(f"{name:>9}" for name in columns))
    for profile in get_args(Profile):
        coding = coding_of(run, profile=profile, group=BATCH)
        watches = [*round_trip(coding, images)[1:], alone(coding, len(images))]
        for what, watch in zip(("encode", "decode", "alone"), watches, strict=True):
            times = (watch.seconds, watch.network, watch.seconds - watch.network)
            times += (watch.cpu, watch.network_cpu, watch.cpu - watch.network_cpu)
            rows = watch.rows / len(images) / (coding.codec.layers.steps + 1)
            numbers = "".join(f"{1e3 * value / len(images):9.2f}" for value in times)
            print(f"{profile:>12} {what:>9}{numbers}{rows:9.2f}", flush=True)


if __name__ == "__main__":
    main()
