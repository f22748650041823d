# SPDX-License-Identifier: Apache-2.0
"""Building blocks of a page's sections: paragraphs, commands, tables, charts, pictures and texts of files."""

import base64
import io
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8

from vdmkit.report.charts import as_image


class PageBlock:
    """A part of a section; the template has a branch for each kind."""

    @property
    def kind(self) -> str:
        """Returns the name of the class in lower case."""
        return type(self).__name__.lower()


@dataclass(frozen=True)
class Paragraph(PageBlock):
    """A paragraph; a warning is emphasised."""

    text: str
    warning: bool = False


@dataclass(frozen=True)
class Command(PageBlock):
    """A command line, below a sentence that states its purpose."""

    purpose: str
    words: Sequence[str]

    @property
    def line(self) -> str:
        """Returns the command as it is typed."""
        return shlex.join(self.words)


@dataclass(frozen=True)
class Number(PageBlock):
    """The headline: a value with its unit, and its errors, each with its meaning."""

    value: str
    unit: str
    errors: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True)
class Table(PageBlock):
    """Rows of text below the names of columns; rows whose indices are in `marked` are emphasised."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    marked: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Chart(PageBlock):
    """An inline SVG, with alternative text in it, and a caption."""

    svg: str
    caption: str


@dataclass(frozen=True)
class Picture(PageBlock):
    """An inline PNG, enlarged `scale` times without smoothing, with its alternative text and a caption."""

    pixels: UInt8[np.ndarray, "H W c"]
    alt: str
    caption: str
    scale: float = 1.0

    @property
    def width(self) -> int:
        """Returns the width on the page in CSS pixels."""
        return round(self.pixels.shape[1] * self.scale)

    @property
    def source(self) -> str:
        """Returns the picture as a data URL."""
        file = io.BytesIO()
        as_image(self.pixels).save(file, format="PNG", optimize=True)
        return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


@dataclass(frozen=True)
class Text(PageBlock):
    """The verbatim text of a file."""

    name: str
    text: str


@dataclass(frozen=True)
class Section:
    """A titled part of a page."""

    title: str
    blocks: Sequence[PageBlock]

    @property
    def groups(self) -> list[list[PageBlock]]:
        """Returns the blocks in groups; adjacent charts and pictures form one group and are shown side by side."""
        found: list[list[PageBlock]] = []
        for block in self.blocks:
            joins = isinstance(block, Chart | Picture) and found and isinstance(found[-1][0], Chart | Picture)
            found[-1].append(block) if joins else found.append([block])
        return found
