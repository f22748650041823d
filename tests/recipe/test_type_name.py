# SPDX-License-Identifier: Apache-2.0
"""Types in the words of messages and listings."""

import inspect
from pathlib import Path
from typing import Annotated, Literal, Optional

import pytest
from annotated_types import Ge, Lt, MultipleOf

from vdmkit.recipe import toml_text, type_name


@pytest.mark.parametrize(
    ("annotation", "text"),
    [
        (int, "int"),
        (Path, "Path"),
        (int | None, "int | None"),
        (Optional[int], "int | None"),  # noqa: UP045 (what a plugin may still write)
        (Literal["ema", "raw"], "Literal['ema', 'raw']"),
        (tuple[float, ...], "tuple[float, ...]"),
        (Annotated[float, Ge(0), Lt(1)], "float >= 0 < 1"),
        (Annotated[int, Ge(2), MultipleOf(2)] | None, "int >= 2 multiple of 2 | None"),
        (inspect.Parameter.empty, "any"),
    ],
)
def test_type_name(annotation, text):
    """`vdmkit list` would show Python's internals."""
    assert type_name(annotation) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(True, "true"), (1e-8, "1e-08"), (float("inf"), "inf"), ((1, 2), "[1, 2]"), (None, "none"), (Path("a"), '"a"')],
)
def test_toml_text(value, text):
    """A default would be shown in a form that a recipe does not accept."""
    assert toml_text(value) == text
