# SPDX-License-Identifier: Apache-2.0
"""Metrics of a run: JSON lines, which a resumed run continues exactly, and TensorBoard events."""

from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt8

from vdmkit.files import read_sealed_line, sealed_line, write_text, writing
from vdmkit.report import EventFile


class MetricLog:
    """metrics.jsonl and tensorboard/ in a run folder. Lines after `step`, where the run continues, are dropped."""

    def __init__(self, folder: Path, *, step: int):
        path = folder / "metrics.jsonl"
        kept = [line for line in _whole_lines(path) if _step_of(read_sealed_line(line)) <= step]
        write_text(path, "".join(kept))
        self._path, self._kept = path, set(kept)
        with writing(path):
            self._file = path.open("a")
        self._events = EventFile(folder / "tensorboard", purge_step=step + 1)

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Writes one line to disk, unless it is there already, as when a finished run is run again."""
        line = sealed_line({"step": step, **values})
        if line in self._kept:
            return
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
    for line in _whole_lines(folder / "metrics.jsonl"):
        values = read_sealed_line(line)
        if values is None or _step_of(values) == float("inf"):
            continue
        step = values.pop("step")
        for name, value in values.items():
            if isinstance(value, int | float):
                found.setdefault(name, []).append((step, value))
    return {
        name: (np.array([s for s, _ in rows]), np.array([v for _, v in rows], float)) for name, rows in found.items()
    }


def _step_of(values: dict[str, Any] | None) -> int | float:
    """Returns the step of a line, or infinity for a damaged line, so that it is dropped."""
    return step if isinstance(step := values and values.get("step"), int) else float("inf")


def _whole_lines(path: Path) -> list[str]:
    """Returns all complete lines, without a last one truncated by a kill."""
    lines = path.read_text(errors="replace").splitlines(keepends=True) if path.exists() else []
    return [line for line in lines if line.endswith("\n")]
