# SPDX-License-Identifier: Apache-2.0
"""TensorBoard events, written synchronously.

tensorboardX's own writer uses a thread, which on a full disk dies with a traceback, and the run then waits for ever.
"""

import socket
import struct
import time
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from tensorboardX import summary
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.record_writer import masked_crc32c

from vdmkit.io import writing


class EventFile:
    """One file of events in a folder. TensorBoard hides the events of earlier files from `purge_step` on.

    The constructor and the methods raise OSError if the file cannot be written.
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
