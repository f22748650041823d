# SPDX-License-Identifier: Apache-2.0
"""Reports of runs: the HTML page, charts, grids of images, logged metrics."""

from vdmkit.report.charts import grid, line_chart, side_by_side, write_png
from vdmkit.report.metrics import MetricLog, read_metrics, write_result
from vdmkit.report.page import Page

__all__ = ["MetricLog", "Page", "grid", "line_chart", "read_metrics", "side_by_side", "write_png", "write_result"]
