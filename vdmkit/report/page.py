# SPDX-License-Identifier: Apache-2.0
"""The report of one or several runs: an HTML page that fetches nothing."""

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from html import escape
from pathlib import Path
from typing import Any, TypeVar

from vdmkit.errors import in_one_line
from vdmkit.io import TooMuch, write_text
from vdmkit.likelihood.comparison import times_to_decide
from vdmkit.recipes.validation import toml_text
from vdmkit.report import sections
from vdmkit.report.blocks import Command, PageBlock, Paragraph, Section, Table
from vdmkit.report.run_contents import RunContents, best_pairs
from vdmkit.report.sections import TOTALS, bars_of_terms, plus_minus, test_set_error, training_curves

T = TypeVar("T")


@dataclass(frozen=True, repr=False)
class Page:
    """An HTML page, which notebooks display."""

    html: str

    def write(self, path: Path) -> None:
        """Writes the page to a file atomically."""
        write_text(path, self.html)

    def __repr__(self) -> str:
        return f"Page({len(self.html.encode()) / 1024:,.0f} KiB)"

    def _repr_html_(self) -> str:
        return f'<iframe srcdoc="{escape(self.html)}" style="width: 100%; height: 40rem; border: 0"></iframe>'


def page(runs: Sequence[RunContents]) -> Page:
    """Returns the page of one or several runs; with several runs it starts with a comparison."""
    if len({run.name for run in runs}) < len(runs):
        runs = [replace(run, name=str(run.path)) for run in runs]
    parts = [{"title": "Comparison", "path": "", "sections": _sections(_OF_SEVERAL, runs)}] if len(runs) > 1 else []
    parts += [{"title": run.name, "path": str(run.path), "sections": _sections(_OF_RUN, run)} for run in runs]
    return Page(_template().render(parts=parts, title=", ".join(run.name for run in runs)))


def _sections(make: Mapping[str, Callable[[T], Iterator[PageBlock]]], of: T) -> list[Section]:
    """Returns the non-empty sections. Problems of a file are shown in the sections that need it."""
    found = []
    for title, blocks in make.items():
        try:
            found.append(Section(title, list(blocks(of))))
        except (TypeError, ValueError, AttributeError, LookupError, ArithmeticError, TooMuch) as error:
            lacks = f"A file lacks {error}: it is of another version of vdmkit. Measure it again, or use that version."
            wrong = f"A file has a value that vdmkit does not write ({in_one_line(error)}). Measure it again."
            words = lacks if isinstance(error, KeyError) else wrong
            found.append(Section(title, [Paragraph(words, warning=True)]))
    return [one for one in found if one.blocks]


@cache
def _template() -> Any:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader("vdmkit.report")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("page.html")


def numbers_of_several(runs: Sequence[RunContents]) -> Iterator[PageBlock]:
    """Yields the likelihoods of runs, and their terms if they are comparable."""
    rows, measured = [], [(run.name, report) for run in runs if (report := run.report)]
    for name, report in measured:
        held_out = {True: "yes", False: "NO", None: "not known"}[report["held_out"]] if report["trusted"] else "NO"
        of_model = f"{report['step']:,}", report["weights"]
        number = plus_minus(report), test_set_error(report)
        rows.append((name, *number, report["estimator"], report["dataset"], *of_model, held_out))
    rows += [(run.name, "not measured", *6 * [""]) for run in runs if not run.report]
    columns = ("run", "bits/dim", "test set", "estimator", "images", "step", "weights", "test likelihood")
    yield Table("Bits/dim, ± the 95% error on these images; and the error of the test set", columns, rows)
    if len({(report["sha256"], report["estimator"], report["label"]) for _, report in measured}) > 1:
        yield Paragraph("These numbers are of different images or estimators and do not compare.", warning=True)
    elif measured:
        yield from bars_of_terms(measured)


def differences(runs: Sequence[RunContents]) -> Iterator[PageBlock]:
    """Yields the pairwise differences of runs on the same images, or how to measure them."""

    def verdict(value: float, half_width: float, of_what: str) -> str:
        times = times_to_decide(half_width, value)
        if times is None:
            return f"the {'first' if value < 0 else 'second'} is better"
        return "no difference" if math.isinf(times) else f"not decided; about {times:.2g} times as many {of_what} would"

    rows = []
    for one, other in itertools.combinations(runs, 2):
        pairs = best_pairs(itertools.product(one.likelihoods, other.likelihoods), one.dimensions)
        for first, second, found in pairs:
            on_these = found.half_width_monte_carlo + found.half_width_solver
            names = f"{one.name}, {first.report['weights']} - {other.name}, {second.report['weights']}"
            of_draws = f"± {on_these:.4f}: {verdict(found.value, on_these, 'draws')}"
            of_images = f"± {found.half_width:.4f}: {verdict(found.value, found.half_width, 'images')}"
            rows.append([names, f"{found.value:+.4f}", of_draws, of_images, first.report["estimator"]])
        if not pairs:
            yield _how_to_compare(one, other)
    if rows:
        columns = ("first minus second", "bits/dim", "on these images", "on other images", "estimator")
        yield Table("Differences on the same images; below 0 the first is better. ± is the 95% error", columns, rows)


def _how_to_compare(one: RunContents, other: RunContents) -> PageBlock:
    first, second = one.manifest, other.manifest
    of_test = [made["data"] and made["data"]["test"]["sha256"] for made in (first, second)]
    if first["shape"] != second["shape"] or (all(of_test) and of_test[0] != of_test[1]):
        return Paragraph(f"{one.name} and {other.name} were not tested on the same images.")
    words = f"{one.name} and {other.name} have no results of single images that compare. This measures both:"
    return Command(words, one.command("compare", "RUN", str(other.path)))


def curves_of_several(runs: Sequence[RunContents]) -> Iterator[PageBlock]:
    """Yields the training losses and test bounds of runs."""
    for name in dict.fromkeys(name for run in runs for name in run.metrics):
        found = [(run.name, *run.metrics[name]) for run in runs if name in run.metrics]
        if (name in TOTALS or name.startswith("test/bpd")) and max(len(steps) for _, steps, _ in found) > 1:
            yield training_curves(found, name, "bits/dim")


def recipes_of_several(runs: Sequence[RunContents]) -> Iterator[PageBlock]:
    """Yields the keys whose values differ between the recipes of runs."""
    keys = dict.fromkeys(key for run in runs for key in run.recipe)
    texts = {key: [toml_text(run.recipe[key]) if key in run.recipe else "" for run in runs] for key in keys}
    rows = [(key, *values) for key, values in texts.items() if len(set(values)) > 1]
    if rows:
        yield Table("Keys in which the resolved recipes differ", ("key", *(run.name for run in runs)), rows)
    else:
        yield Paragraph("The resolved recipes are equal.")


_OF_RUN: dict[str, Callable[[RunContents], Iterator[PageBlock]]] = {
    "Likelihood": sections.likelihood,
    "Terms of the bound": sections.terms,
    "Training": sections.training,
    "Noise schedule": sections.schedule,
    "Loss along gamma": sections.loss_along_gamma,
    "Bounds of few steps": sections.bounds_of_steps,
    "Bits/dim of each image": sections.images,
    "Samples": sections.samples,
    "Audit": sections.audit,
    "Compressed files": sections.coding,
    "Recipe": sections.recipe,
    "Manifest": sections.manifest,
    "Commands that rebuild these numbers": sections.commands,
    "All numbers": sections.numbers,
}
_OF_SEVERAL: dict[str, Callable[[Sequence[RunContents]], Iterator[PageBlock]]] = {
    "Side by side": numbers_of_several,
    "Paired differences": differences,
    "Training curves": curves_of_several,
    "Differences between the recipes": recipes_of_several,
}
