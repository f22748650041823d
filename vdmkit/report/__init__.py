# SPDX-License-Identifier: Apache-2.0
"""Pictures, charts, metrics, TensorBoard events, and the files of what was measured."""

from vdmkit.report._chart import line_chart
from vdmkit.report._events import EventFile
from vdmkit.report._grid import beside, grid, write_png
from vdmkit.report._metrics import MetricLog, intact_lines, read_metrics
from vdmkit.report._result import leave_result

__all__ = [
    "EventFile",
    "MetricLog",
    "beside",
    "grid",
    "intact_lines",
    "leave_result",
    "line_chart",
    "read_metrics",
    "write_png",
]
