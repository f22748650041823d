# SPDX-License-Identifier: Apache-2.0
"""Metrics of a run: JSON lines, which a resumed run continues exactly, and TensorBoard events."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt8

from vdmkit.errors import DamageWarning
from vdmkit.files import read_sealed_line, sealed_line, write_text, writing
from vdmkit.health import Facts, Trouble, Watch
from vdmkit.report._events import EventFile


class MetricLog:
    """metrics.jsonl and tensorboard/ in a run folder. Lines after `step`, where the run continues, are dropped.

    With the facts of a training it also looks for signs of trouble in each line, writes what it finds, and says it.
    """

    def __init__(self, folder: Path, *, step: int, facts: Facts | None = None, say: Callable[[str], object] = str):
        path = folder / "metrics.jsonl"
        kept = [(line, at, values) for line, at, values in _intact(path) if at <= step]
        damaged = _words_of_damage(path)
        lines = [line for line, _, _ in kept]
        write_text(path, "".join(lines))
        self._path, self._kept, self._say = path, set(lines), say
        if damaged:
            say(f"warning: {damaged}")
        with writing(path):
            self._file = path.open("a")
        self._events = EventFile(folder / "tensorboard", purge_step=step + 1)
        history = [(at, values) for _, at, values in kept]
        self.watch = facts and Watch(facts, folder / "health.json", step=step, history=history)
        self._tell(self.watch.begin(step) if self.watch else [])

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Writes one line to disk, unless it is there already, as when a finished run is run again."""
        line = sealed_line({"step": step, **values})
        if line not in self._kept:
            self._write(step, line, values)
            self._tell(self.watch.see(step, values) if self.watch else [])

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
    if damaged := _words_of_damage(folder / "metrics.jsonl"):
        warnings.warn(damaged, DamageWarning, stacklevel=2)
    found: dict[str, list[tuple[int, float]]] = {}
    for _, step, values in _intact(folder / "metrics.jsonl"):
        for name, value in values.items():
            if isinstance(value, int | float):
                found.setdefault(name, []).append((step, value))
    return {
        name: (np.array([s for s, _ in rows]), np.array([v for _, v in rows], float)) for name, rows in found.items()
    }


def intact_lines(path: Path) -> list[str]:
    """Returns the lines of a step that are as they were written, without a last one truncated by a kill."""
    return [line for line, _, _ in _intact(path)]


def _intact(path: Path) -> Iterator[tuple[str, int, dict[str, Any]]]:
    """Yields each intact line with its step and its values."""
    for line in _lines(path):
        if found := _read(line):
            yield line, *found


def _words_of_damage(path: Path) -> str | None:
    """Says which lines are not as they were written; a last one without its end is the work of a kill."""
    bad = [str(n) for n, line in enumerate(_lines(path), 1) if line.endswith("\n") and _read(line) is None]
    if not bad:
        return None
    return f"{path}: damaged, and left out: line{'s' * (len(bad) > 1)} {', '.join(bad)}."


def _lines(path: Path) -> list[str]:
    """Returns the lines of the file with their ends."""
    return path.read_text(errors="replace").splitlines(keepends=True) if path.exists() else []


def _read(line: str) -> tuple[int, dict[str, Any]] | None:
    values = read_sealed_line(line) if line.endswith("\n") else None
    step = values.pop("step", None) if values is not None else None
    return (step, values) if values is not None and isinstance(step, int) else None
