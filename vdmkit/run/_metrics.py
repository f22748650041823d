# SPDX-License-Identifier: Apache-2.0
"""Metrics of a run: JSON lines, which a resumed run continues exactly, and TensorBoard events."""

import json
from contextlib import closing
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from vdmkit.files import write_text, writing
from vdmkit.report import EventFile, step_of, whole_lines


class MetricLog:
    """metrics.jsonl and tensorboard/ in a run folder. Lines after `step`, where the run continues, are dropped."""

    def __init__(self, folder: Path, *, step: int):
        path = folder / "metrics.jsonl"
        kept = [line for line in whole_lines(path) if step_of(line) <= step]
        write_text(path, "".join(kept))
        self._path, self._kept = path, set(kept)
        with writing(path):
            self._file = path.open("a")
        self._events = EventFile(folder / "tensorboard", purge_step=step + 1)

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Writes one line to disk, unless it is there already, as when a finished run is run again."""
        line = json.dumps({"step": step, **values}) + "\n"
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
