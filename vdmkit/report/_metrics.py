# SPDX-License-Identifier: Apache-2.0
"""Metrics of a run: JSON lines, which a resumed run continues exactly, and TensorBoard events."""

import warnings
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int, UInt8

from vdmkit.errors import CheckpointError, DamageWarning
from vdmkit.io import (
    MAX_METRICS,
    TooMuch,
    not_a_file,
    read_at_most,
    read_json,
    read_sealed_line,
    sealed_line,
    write_text,
    writing,
)
from vdmkit.report._events import EventFile
from vdmkit.training.health import Facts, Trouble, Watch


class _Line(NamedTuple):
    text: str
    step: int
    values: dict[str, Any]


class MetricLog:
    """metrics.jsonl and tensorboard/ in a run folder. Lines after `step`, where the run continues, are dropped.

    `count` is the number of lines. With the facts of a training it also looks for signs of trouble in each line, writes
    what it finds, and says it.
    """

    def __init__(self, folder: Path, *, step: int, facts: Facts | None = None, say: Callable[[str], object] = str):
        path = folder / "metrics.jsonl"
        intact, damage = _parsed(folder)
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
        self._tell(self.watch.check_settings(step) if self.watch else [])

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Writes one line to disk, unless it is there already, as when a finished run is run again."""
        line = sealed_line({"step": step, **values})
        if line not in self._kept:
            self._write(step, line, values)
            self._tell(self.watch.check(step, values) if self.watch else [])

    def _tell(self, findings: list[Trouble]) -> None:
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

    Warns with DamageWarning of lines that are not as they were written, and omits their values.
    """
    intact, damage = _parsed(folder)
    if damage:
        warnings.warn(damage, DamageWarning, stacklevel=2)
    found: dict[str, list[tuple[int, float]]] = {}
    for line in intact:
        for name, value in line.values.items():
            if _is_number(value):
                found.setdefault(name, []).append((line.step, value))
    return {
        name: (np.array([s for s, _ in rows]), np.array([v for _, v in rows], float)) for name, rows in found.items()
    }


def intact_lines(folder: Path) -> list[str]:
    """Returns the lines of metrics.jsonl that are as they were written, without a last one truncated by a kill."""
    return [line.text for line in _parsed(folder)[0]]


def _text(path: Path) -> str:
    if reason := not_a_file(path):
        raise CheckpointError(f"{path}: {reason}. Put a copy of it back, or delete it.")
    try:
        return read_at_most(path, MAX_METRICS).decode(errors="replace")
    except TooMuch as error:
        raise CheckpointError(f"{path}: {error}. Put a copy of it back, or delete it.") from error


def _is_number(value: object) -> bool:
    """Returns whether an array can hold it."""
    return isinstance(value, float) or (isinstance(value, int) and value.bit_length() < 64)


def _parsed(folder: Path) -> tuple[list[_Line], str | None]:
    """Returns the intact lines, and words on those that are not as they were written, or missing.

    A last line without its end is the work of a kill, and no damage, unless the manifest counts it.
    """
    path, intact, bad = folder / "metrics.jsonl", list[_Line](), list[str]()
    lines = _text(path).splitlines(keepends=True) if path.exists() else []
    for number, text in enumerate(lines, 1):
        if not text.endswith("\n"):
            continue
        values = read_sealed_line(text) or {}
        step = values.pop("step", None)
        if _is_number(step) and isinstance(step, int):
            intact.append(_Line(text, step, values))
        else:
            bad.append(str(number))
    words = [f"damaged, and left out: line{'s' * (len(bad) > 1)} {', '.join(bad)}"] if bad else []
    if (lost := _counted(folder) - len(intact) - len(bad)) > 0:
        words.append(f"{lost:,} line{'s' * (lost > 1)} missing that the run wrote")
    return intact, f"{path}: {'; '.join(words)}." if words else None


def _counted(folder: Path) -> int:
    """Returns the number of lines by the manifest; who reads the rest of it says what is wrong with it."""
    try:
        count = read_json(folder / "manifest.json", dict[str, Any]).get("logged")
    except (OSError, ValueError):
        return 0
    return count if isinstance(count, int) else 0
