# SPDX-License-Identifier: Apache-2.0
"""Reports of runs: the HTML page, charts, grids of images, logged metrics."""

from vdmkit.report.charts import grid, line_chart, write_png
from vdmkit.report.metrics import read_metrics, write_result

__all__ = ["grid", "line_chart", "read_metrics", "write_png", "write_result"]
