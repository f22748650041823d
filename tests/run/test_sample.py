# SPDX-License-Identifier: Apache-2.0
"""Samples of a run: as many as asked for, and the same ones whatever else is asked."""

from types import SimpleNamespace

import numpy as np
import pytest

from vdmkit.run import Plan, Procedure, _sample, draw_samples, fit_into
from vdmkit.sampling import Ancestral


def test_the_first_images_do_not_depend_on_how_many(tiny_model):
    """`sample -n 70` would not begin with the images of `sample -n 3`; 70 take more than one batch."""
    many = draw_samples(tiny_model, Procedure(Ancestral()), Plan(70, 2), seed=0)
    assert many.shape == (70, *tiny_model.shape)
    np.testing.assert_array_equal(draw_samples(tiny_model, Procedure(Ancestral()), Plan(3, 2), seed=0), many[:3])
    assert not np.array_equal(many[64:], many[:6])
    assert not np.array_equal(draw_samples(tiny_model, Procedure(Ancestral()), Plan(3, 2), seed=1), many[:3])


@pytest.mark.parametrize(
    ("seconds", "plan"),
    [(1000.0, Plan(16, 100)), (100.0, Plan(8, 100)), (20.0, Plan(1, 100)), (2.5, Plan(1, 20)), (0.0, Plan(1, 1))],
)
def test_what_fits_into_the_time(tiny_model, monkeypatch, seconds, plan):
    """A slow machine would sample for hours, or a fast one draw less than it could."""
    ticks = iter([0.0, 50.0, 50.0, 51.0])  # compilation, then one second for a step of 8 images
    monkeypatch.setattr(_sample, "time", SimpleNamespace(monotonic=lambda: next(ticks)))
    assert fit_into(tiny_model, Procedure(Ancestral()), Plan(16, 100), seconds=seconds) == plan
