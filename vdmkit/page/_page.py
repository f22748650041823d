# SPDX-License-Identifier: Apache-2.0
"""The page of one or several runs: one HTML file that fetches nothing."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from html import escape
from pathlib import Path
from typing import Any, TypeVar

from vdmkit.errors import in_one_line
from vdmkit.io import TooMuch, write_text
from vdmkit.page._audit import audit
from vdmkit.page._blocks import Section, Words
from vdmkit.page._coding import coding
from vdmkit.page._headline import headline
from vdmkit.page._images import images
from vdmkit.page._made import commands, manifest
from vdmkit.page._numbers import numbers
from vdmkit.page._recipe import recipe
from vdmkit.page._samples import samples
from vdmkit.page._schedule import schedule
from vdmkit.page._several import several
from vdmkit.page._shown import Shown
from vdmkit.page._study import study
from vdmkit.page._terms import terms
from vdmkit.page._training import training

T = TypeVar("T")
_OF_RUN = (
    headline,
    terms,
    training,
    schedule,
    study,
    images,
    samples,
    audit,
    coding,
    recipe,
    manifest,
    commands,
    numbers,
)


@dataclass(frozen=True, repr=False)
class Page:
    """A page of HTML; a notebook shows it."""

    html: str

    def write(self, path: Path) -> None:
        """Writes the page to a file atomically."""
        write_text(path, self.html)

    def __repr__(self) -> str:
        return f"Page({len(self.html.encode()) / 1024:,.0f} KiB)"

    def _repr_html_(self) -> str:
        return f'<iframe srcdoc="{escape(self.html)}" style="width: 100%; height: 40rem; border: 0"></iframe>'


@dataclass(frozen=True)
class Part:
    """The sections of a run, or of the comparison of all."""

    title: str
    path: str
    sections: Sequence[Section]


def page(runs: Sequence[Shown]) -> Page:
    """Returns the page of one or several runs, which are compared first."""
    runs = _told_apart(runs)
    parts = [Part("Comparison", "", _made(several, runs))] if len(runs) > 1 else []
    parts += [
        Part(run.name, str(run.files.path), [one for make in _OF_RUN for one in _made(make, run)]) for run in runs
    ]
    return Page(_template().render(parts=parts, title=", ".join(run.name for run in runs)))


def _told_apart(runs: Sequence[Shown]) -> Sequence[Shown]:
    """Calls runs by their paths if two folders have the same name."""
    if len({run.name for run in runs}) == len(runs):
        return runs
    return [replace(run, files=replace(run.files, name=str(run.files.path))) for run in runs]


def _made(make: Callable[[T], list[Section]], of: T) -> list[Section]:
    """Returns sections, or one that says what is odd in a file of another version of vdmkit, or from someone else."""
    try:
        return make(of)
    except KeyError as error:
        words = f"A file lacks {error}: it is of another version of vdmkit. Measure it again, or use that version."
    except (TypeError, ValueError, AttributeError, LookupError, ArithmeticError, TooMuch) as error:
        words = (
            f"A file of the run has a value of another kind than vdmkit writes ({in_one_line(error)}): someone changed "
            "it, or it is of another version. Measure it again."
        )
    return [Section(make.__name__.capitalize(), [Words(words, marked=True)])]


@cache
def _template() -> Any:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("vdmkit.page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html")
