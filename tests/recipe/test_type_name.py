# SPDX-License-Identifier: Apache-2.0
"""Names of types in messages and listings."""

import inspect
from pathlib import Path
from typing import Annotated, Literal, Optional

import pytest
from annotated_types import Ge, Le, Lt, MultipleOf

from vdmkit.recipes.validation import toml_text, type_name
from vdmkit.registry import Choice


@pytest.mark.parametrize(
    ("annotation", "text"),
    [
        (int, "int"),
        (Path, "Path"),
        (int | None, "int"),
        (Optional[int], "int"),  # noqa: UP045 (what a plugin may still write)
        (int | str, "int | str"),
        (Literal["ema", "raw"], '"ema" | "raw"'),
        (Literal["a", "b"] | None, '"a" | "b"'),
        (tuple[float, ...], "list of float"),
        (tuple[Annotated[float, Ge(-100), Le(1e12)], ...], "list of float >= -100, <= 1e+12"),
        (tuple[Annotated[int, Ge(1)], str], "[int >= 1; str]"),
        (Annotated[float, Ge(0), Lt(1)], "float >= 0, < 1"),
        (Annotated[float, Ge(-30.0), Le(0.9999999)], "float >= -30, <= 0.9999999"),
        (Annotated[int, Ge(2), Le(1048576), MultipleOf(2)] | None, "int >= 2, <= 1048576, multiple of 2"),
        (Annotated[Choice, "kernel"] | None, "component of kind kernel"),
        (Annotated[Choice | Path, "kernel"], "component of kind kernel"),
        (inspect.Parameter.empty, "any"),
    ],
)
def test_type_name(annotation, text):
    """Types are described without Python's typing syntax."""
    assert type_name(annotation) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "true"),
        (1e-8, "1e-08"),
        (float("inf"), "inf"),
        ((1, 2), "[1, 2]"),
        (None, "none"),
        (Path("a"), '"a"'),
        ({"a b": [{"c": 1.0}]}, '{"a b" = [{"c" = 1.0}]}'),
    ],
)
def test_toml_text(value, text):
    """Defaults are shown as TOML."""
    assert toml_text(value) == text
