# SPDX-License-Identifier: Apache-2.0
"""What a person sees of a run: progress, metrics, pictures."""

from vdmkit.report._chart import line_chart
from vdmkit.report._grid import beside, grid, write_png
from vdmkit.report._metrics import MetricLog
from vdmkit.report._progress import Advance, progress

__all__ = ["Advance", "MetricLog", "beside", "grid", "line_chart", "progress", "write_png"]
