# SPDX-License-Identifier: Apache-2.0
"""Display of the progress of long computations."""

from vdmkit.progress._track import Advance, Meter, Note, Progress, track

__all__ = ["Advance", "Meter", "Note", "Progress", "track"]
