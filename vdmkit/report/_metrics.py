# SPDX-License-Identifier: Apache-2.0
"""Metrics of a run: JSON lines, which a resumed run continues exactly, and TensorBoard events."""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt8

from vdmkit.files import read_sealed_line, sealed_line, write_text, writing
from vdmkit.health import Facts, Trouble, Watch
from vdmkit.report._events import EventFile


class MetricLog:
    """metrics.jsonl and tensorboard/ in a run folder. Lines after `step`, where the run continues, are dropped.

    With the facts of a training it also looks for signs of trouble in each line, writes what it finds, and says it.
    """

    def __init__(self, folder: Path, *, step: int, facts: Facts | None = None, say: Callable[[str], object] = str):
        path = folder / "metrics.jsonl"
        kept = [line for line in intact_lines(path) if _read(line)[0] <= step]
        write_text(path, "".join(kept))
        self._path, self._kept, self._say = path, set(kept), say
        with writing(path):
            self._file = path.open("a")
        self._events = EventFile(folder / "tensorboard", purge_step=step + 1)
        self.watch = facts and Watch(facts, folder / "health.json", step=step, history=map(_read, kept))
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
    """Returns the steps and values of each metric by name. A metric may have values at some steps only."""
    found: dict[str, list[tuple[int, float]]] = {}
    for line in intact_lines(folder / "metrics.jsonl"):
        step, values = _read(line)
        for name, value in values.items():
            if isinstance(value, int | float):
                found.setdefault(name, []).append((step, value))
    return {
        name: (np.array([s for s, _ in rows]), np.array([v for _, v in rows], float)) for name, rows in found.items()
    }


def intact_lines(path: Path) -> list[str]:
    """Returns the lines of a step that are as they were written, without a last one truncated by a kill."""
    lines = path.read_text(errors="replace").splitlines(keepends=True) if path.exists() else []
    return [line for line in lines if line.endswith("\n") and _has_step(read_sealed_line(line))]


def _has_step(values: dict[str, Any] | None) -> bool:
    return values is not None and isinstance(values.get("step"), int)


def _read(line: str) -> tuple[int, dict[str, Any]]:
    """Returns the step and the values of an intact line."""
    values = read_sealed_line(line) or {}
    return values.pop("step"), values
