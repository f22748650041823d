# SPDX-License-Identifier: Apache-2.0
"""The report of `vdmkit study` agrees with its results and files."""

import re

import numpy as np

from vdmkit.devices import arithmetic
from vdmkit.experiments.study import leave as leave_study
from vdmkit.schedule_search import Study, text_of_study
from vdmkit.schedule_search.measurement import Curve
from vdmkit.schedule_search.steps import Predicted
from vdmkit.schedule_search.study import Variance


def _study() -> Study:
    """A study with three T on one grid, one on a second grid, and a named grid."""
    gamma = np.linspace(-6.0, 5.0, 11)
    curve = Curve(gamma, np.ones((2, 11, 4)), np.zeros((2, 4)))
    rows = [("mixture", "dynamic", T) for T in (1, 2, 5)] + [("gaussian", "closed form", 2), ("gaussian", "uniform", 2)]
    steps = tuple(Predicted(kernel, grid, tuple(np.linspace(-6, 5, T + 1)), 2.1, 0.1) for kernel, grid, T in rows)
    variances = (Variance("this run's", 2.0, 1.0, 3.0, (1.0,) * 11),)
    optimal = {"gammas": tuple(gamma), "errors": (1.0,) * 11}
    return Study(2.0, 0.1, 4, curve, curve, variances, steps, (), optimal, arithmetic())


def _expanded(name: str) -> list[str]:
    """Returns the names that a shell expands from one with braces."""
    braces = re.search(r"\{(.*)\}", name)
    return [name.replace(braces[0], word) for word in braces[1].split(",")] if braces else [name]


def test_it_says_how_many_images_and_gammas():
    """The report gives the numbers of images and gammas, and warns if there are too few gammas."""
    text = text_of_study(_study())
    few = "fewer than 61 gammas: the +/- of T steps understates the error"
    assert f"\nerrors at 11 gammas on 4 test and 4 training images; {few}\n" in text


def test_a_notebook_shows_the_same_rows():
    """The notebook table has the variances, bounds and kernels of the command."""
    html = _study()._repr_html_()
    assert "1.0000 to 3.0000" in html
    assert html.count("2.1000 +/- 0.1000") == 5
    assert html.count("mixture") == 3


def test_every_file_is_named(tmp_path):
    """The names printed for a study are exactly the files that were written."""
    named = leave_study(_study(), tmp_path / "schedule")
    assert f"{tmp_path}/schedule/mixture_dynamic_{{1,2,5}}.toml" in named
    assert f"{tmp_path}/schedule/gaussian_closed_form_2.toml" in named
    files = sorted(path for name in named for path in _expanded(name))
    assert files == sorted(map(str, (tmp_path / "schedule").iterdir()))
