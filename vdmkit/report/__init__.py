# SPDX-License-Identifier: Apache-2.0
"""Pictures, charts and TensorBoard events."""

from vdmkit.report._chart import line_chart
from vdmkit.report._events import EventFile
from vdmkit.report._grid import beside, grid, write_png

__all__ = ["EventFile", "beside", "grid", "line_chart", "write_png"]
