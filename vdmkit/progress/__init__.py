# SPDX-License-Identifier: Apache-2.0
"""The progress of long computations: its display, and the parts that are kept on disk."""

from vdmkit.progress._kept import Kept
from vdmkit.progress._track import Advance, Meter, Note, Progress, track

__all__ = ["Advance", "Kept", "Meter", "Note", "Progress", "track"]
