# SPDX-License-Identifier: Apache-2.0
"""Line charts show every line and its name."""

import numpy as np
import pytest

from vdmkit.report import line_chart
from vdmkit.report.charts import line_figure, merge_coinciding

XS = np.linspace(0.0, 1.0, 50)


def test_names_hide_no_line():
    """The legend is to the right of the axes and within the figure."""
    figure = line_figure({"a long name of a line": (XS, XS), "another": (XS, 1 - XS)}, log=False)
    figure.draw_without_rendering()
    names, axes, all_of_it = figure.legends[0].get_window_extent(), figure.axes[0].get_window_extent(), figure.bbox
    assert names.x0 > axes.x1
    assert names.x1 <= all_of_it.x1


def test_lines_that_coincide_are_one_with_all_names():
    """Lines closer than the width of a line are drawn once with all their names; the others stay apart."""
    lines = {"best": (XS, XS), "own": (XS, XS**2), "same": (XS, XS**2 * (1 + 1e-4)), "near": (XS, XS**2 + 0.01)}
    assert list(merge_coinciding(lines, log=False)) == ["best", "own\nsame", "near"]
    gaps = {"own": (XS, np.where(XS < 0.5, np.nan, XS)), "whole": (XS, XS), "short": (XS[:9], XS[:9])}
    assert list(merge_coinciding(gaps, log=False)) == list(gaps)
    small = {"low": (XS + 1, 1e-6 + XS), "lower": (XS + 1, 1e-8 + XS)}
    assert len(merge_coinciding(small, log=True)) == 2, "far apart on a log"
    assert len(merge_coinciding(small, log=False)) == 1
    drawn = line_figure(lines, log=False).axes[0].lines
    assert len({line.get_linestyle() + str(line._dash_pattern) for line in drawn}) == len(lines)


@pytest.mark.parametrize("log", [False, True])
def test_the_same_numbers_give_the_same_file(tmp_path, log):
    """The PNG of a chart depends on its numbers alone."""
    chart = {"a": (XS, XS), "b": ([1, 2, 3], [0.0, 1.0, 2.0])}
    for name in ("one", "two"):
        line_chart(tmp_path / name, chart, x="x", y="y", title="t", log=log)
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()
