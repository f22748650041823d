# SPDX-License-Identifier: Apache-2.0
"""Files with the measurements of a run: metrics.jsonl, TensorBoard events, and the results of likelihoods."""

import os
import socket
import struct
import time
import warnings
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int, UInt8
from tensorboardX import summary
from tensorboardX.proto.event_pb2 import Event, SessionLog  # pyright: ignore[reportAttributeAccessIssue]
from tensorboardX.record_writer import masked_crc32c

from vdmkit.errors import CheckpointError, DamageWarning
from vdmkit.io import (
    MAX_METRICS,
    TooMuch,
    not_a_file,
    read_at_most,
    read_json,
    read_sealed_line,
    sealed_line,
    whole_file,
    write_results,
    write_text,
    writing,
)
from vdmkit.training.health import Facts, Trouble, Watch


class MetricLog:
    """metrics.jsonl and tensorboard/ in a run folder. Lines after `step`, where the run continues, are dropped.

    `count` is the number of lines. With the facts of a training it also checks each line for signs of trouble, and
    writes and reports what it finds.
    """

    def __init__(self, folder: Path, *, step: int, facts: Facts | None = None, say: Callable[[str], object] = str):
        path = folder / "metrics.jsonl"
        intact, damage = _parse(folder)
        kept = [line for line in intact if line.step <= step]
        lines = [line.text for line in kept]
        write_text(path, "".join(lines))
        self._path, self._kept, self._say = path, set(lines), say
        self.count = len(lines)
        if damage:
            say(f"warning: {damage}")
        with writing(path):
            self._file = path.open("a")
        self._events = EventFile(folder / "tensorboard", purge_step=step + 1)
        history = [(line.step, line.values) for line in kept]
        self.watch = facts and Watch(facts, folder / "health.json", step=step, history=history)
        self._report(self.watch.check_settings(step) if self.watch else [])

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Writes one line to disk, unless the file already has it because a finished run is run again."""
        line = sealed_line({"step": step, **values})
        if line not in self._kept:
            self._write(step, line, values)
            self._report(self.watch.check(step, values) if self.watch else [])

    def _report(self, findings: list[Trouble]) -> None:
        for found in findings:
            self._say(f"warning: step {found.step:,}: {found.message}")
            values = {f"health/{found.sign}": 1.0}
            self._write(found.step, sealed_line({"step": found.step, **values}), values)
            self._events.add_text("health", found.message, found.step)

    def _write(self, step: int, line: str, values: dict[str, float]) -> None:
        with writing(self._path):
            self._file.write(line)
            self._file.flush()
        self.count += 1
        for name, value in values.items():
            self._events.add_scalar(name, value, step)

    def picture(self, step: int, name: str, picture: UInt8[np.ndarray, "H W c"]) -> None:
        """Writes a picture to TensorBoard."""
        self._events.add_image(name, picture, step)

    def close(self) -> None:
        """Flushes and closes the files."""
        with closing(self._events), writing(self._path):
            self._file.close()


def read_metrics(folder: Path) -> dict[str, tuple[Int[np.ndarray, " n"], Float[np.ndarray, " n"]]]:
    """Returns the steps and values of each metric by name. A metric may have values at some steps only.

    Issues a DamageWarning for damaged lines, and omits their values.
    """
    intact, damage = _parse(folder)
    if damage:
        warnings.warn(damage, DamageWarning, stacklevel=2)
    found: dict[str, list[tuple[int, float]]] = {}
    for line in intact:
        for name, value in line.values.items():
            if _fits_an_array(value):
                found.setdefault(name, []).append((line.step, value))
    return {
        name: (np.array([s for s, _ in rows]), np.array([v for _, v in rows], float)) for name, rows in found.items()
    }


def intact_lines(folder: Path) -> list[str]:
    """Returns the undamaged lines of metrics.jsonl, without a last line that was truncated by a kill."""
    return [line.text for line in _parse(folder)[0]]


class _Line(NamedTuple):
    text: str
    step: int
    values: dict[str, Any]


def _parse(folder: Path) -> tuple[list[_Line], str | None]:
    """Returns the intact lines, and a sentence on those that are damaged or missing.

    A truncated last line comes from a kill and is not damage, unless the manifest counts it.
    """
    path, intact, bad = folder / "metrics.jsonl", list[_Line](), list[str]()
    lines = _read(path).splitlines(keepends=True) if path.exists() else []
    for number, text in enumerate(lines, 1):
        if not text.endswith("\n"):
            continue
        values = read_sealed_line(text) or {}
        step = values.pop("step", None)
        if _fits_an_array(step) and isinstance(step, int):
            intact.append(_Line(text, step, values))
        else:
            bad.append(str(number))
    words = [f"damaged, and left out: line{'s' * (len(bad) > 1)} {', '.join(bad)}"] if bad else []
    if (lost := _count_in_manifest(folder) - len(intact) - len(bad)) > 0:
        words.append(f"{lost:,} line{'s' * (lost > 1)} missing that the run wrote")
    return intact, f"{path}: {'; '.join(words)}." if words else None


def _read(path: Path) -> str:
    if reason := not_a_file(path):
        raise CheckpointError(f"{path}: {reason}. Put a copy of it back, or delete it.")
    try:
        return read_at_most(path, MAX_METRICS).decode(errors="replace")
    except TooMuch as error:
        raise CheckpointError(f"{path}: {error}. Put a copy of it back, or delete it.") from error


def _fits_an_array(value: object) -> bool:
    return isinstance(value, float) or (isinstance(value, int) and value.bit_length() < 64)


def _count_in_manifest(folder: Path) -> int:
    """Returns the number of lines in the manifest, or 0 if it cannot be read, which its own readers report."""
    try:
        count = read_json(folder / "manifest.json", dict[str, Any]).get("logged")
    except (OSError, ValueError):
        return 0
    return count if isinstance(count, int) else 0


class EventFile:
    """One file of TensorBoard events. TensorBoard hides the events of earlier files in the folder from `purge_step` on.

    It is written synchronously: tensorboardX's own writer uses a thread that dies with a traceback on a full disk,
    after which the run hangs. The constructor and the methods raise OSError if the file cannot be written.
    """

    def __init__(self, folder: Path, *, purge_step: int):
        self._path = folder / f"events.out.tfevents.{time.time():.0f}.{socket.gethostname()}"
        with writing(folder):
            folder.mkdir(exist_ok=True)
        with writing(self._path):
            self._file = self._path.open("wb")
        self._add(Event(file_version="brain.Event:2"))
        self._add(Event(step=purge_step, session_log=SessionLog(status=SessionLog.START)))

    def add_scalar(self, name: str, value: float, step: int) -> None:
        """Writes a number."""
        self._add(Event(step=step, summary=summary.scalar(name, value)))

    def add_text(self, name: str, text: str, step: int) -> None:
        """Writes a text."""
        self._add(Event(step=step, summary=summary.text(name, text)))

    def add_image(self, name: str, picture: UInt8[np.ndarray, "H W c"], step: int) -> None:
        """Writes a picture."""
        self._add(Event(step=step, summary=summary.image(name, picture, dataformats="HWC")))

    def close(self) -> None:
        """Closes the file."""
        with writing(self._path):
            self._file.close()

    def _add(self, event: Event) -> None:
        event.wall_time = time.time()
        data = event.SerializeToString()
        length = struct.pack("<Q", len(data))
        with writing(self._path):
            self._file.write(length + _checksum(length) + data + _checksum(data))
            self._file.flush()


def _checksum(data: bytes) -> bytes:
    return struct.pack("<I", masked_crc32c(data))


def write_result(folder: Path, name: str, report: dict[str, Any], of_images: Mapping[str, Any]) -> str:
    """Writes a measurement as NAME.json and every image's numbers as NAME.npz; returns a sentence with their path.

    Args:
        folder: A folder inside the run folder; if the run is read-only, nothing is written.
        name: See `vdmkit.likelihood.report.name_of_result`.
        report: The report as JSON values.
        of_images: Arrays with an entry for each image, and the overrides of the recipe that they were computed with.
    """
    if not os.access(folder.parent, os.W_OK):
        return f"{folder.parent}: may not be written, so nothing is kept there."
    folder.mkdir(exist_ok=True)
    arrays, report_file = (folder / f"{name}.{suffix}" for suffix in ("npz", "json"))
    with whole_file(arrays) as part, part.open("wb") as file:
        np.savez(file, **of_images)
    write_results(report_file, report)
    return f"written to {report_file}, every image's to {arrays}"
