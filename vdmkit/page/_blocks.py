# SPDX-License-Identifier: Apache-2.0
"""The parts of a page: sections of paragraphs, tables, charts, pictures and files."""

import base64
import io
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import UInt8
from PIL import Image


@dataclass(frozen=True)
class Words:
    """A paragraph; `marked` is one that a reader must not overlook."""

    kind: ClassVar[str] = "words"
    text: str
    marked: bool = False


@dataclass(frozen=True)
class Command:
    """A command line that makes or rebuilds what `purpose` says."""

    kind: ClassVar[str] = "command"
    purpose: str
    words: Sequence[str]

    @property
    def line(self) -> str:
        """Returns the command as it is typed."""
        return shlex.join(self.words)


@dataclass(frozen=True)
class Number:
    """The headline: a value with what stands after it, and its errors, each with its meaning."""

    kind: ClassVar[str] = "number"
    value: str
    unit: str
    errors: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True)
class Table:
    """Rows of text below the names of columns; rows of the numbers in `marked` are emphasised."""

    kind: ClassVar[str] = "table"
    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    marked: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Chart:
    """An inline SVG, with what a reader who cannot see it is told, and a caption."""

    kind: ClassVar[str] = "chart"
    svg: str
    caption: str


@dataclass(frozen=True)
class Picture:
    """An inline PNG, enlarged `scale` times without smoothing, with its alternative text and a caption."""

    kind: ClassVar[str] = "picture"
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
        grey = self.pixels.shape[-1] == 1
        Image.fromarray(self.pixels[..., 0] if grey else self.pixels).save(file, format="PNG", optimize=True)
        return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


@dataclass(frozen=True)
class File:
    """The text of a file, word for word."""

    kind: ClassVar[str] = "file"
    name: str
    text: str


Block = Words | Command | Number | Table | Chart | Picture | File


@dataclass(frozen=True)
class Section:
    """A titled part of a page; `printed` is false for one that is too long for paper."""

    title: str
    blocks: Sequence[Block]
    printed: bool = True

    @property
    def groups(self) -> list[list[Block]]:
        """Returns the blocks, with neighbouring charts and pictures in one group, which are shown side by side."""
        found: list[list[Block]] = []
        for block in self.blocks:
            beside = isinstance(block, Chart | Picture) and found and isinstance(found[-1][0], Chart | Picture)
            found[-1].append(block) if beside else found.append([block])
        return found


def section(title: str, blocks: Iterable[Block], *, printed: bool = True) -> list[Section]:
    """Returns a section in a list, which is empty if there are no blocks."""
    found = tuple(blocks)
    return [Section(title, found, printed)] if found else []
