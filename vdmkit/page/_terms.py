# SPDX-License-Identifier: Apache-2.0
"""The terms of likelihoods as stacked bars, beside published figures of the same data and estimator."""

import re
import tomllib
from collections.abc import Sequence
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from vdmkit.page._blocks import Block, Section, Table, Words, section
from vdmkit.page._figures import COLOURS, chart, literally
from vdmkit.page._shown import Shown, test_set_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Named = tuple[str, dict[str, Any]]


def terms(shown: Shown) -> list[Section]:
    """Returns the section on the terms of a run's number."""
    facts = shown.files.facts
    return [] if facts is None else section("Terms of the bound", blocks_of_terms([(shown.name, facts)]))


def blocks_of_terms(named: Sequence[Named]) -> list[Block]:
    """Returns bars of several numbers, and of what was published on the data and by the estimator of the first."""
    facts = named[0][1]
    rows = published(facts)
    same = f"{facts['published'] or facts['dataset']} by the same estimator ({facts['estimator']})"
    if not rows:
        return [_bars(named, rows), Words(f"No published figure for {same} is known to vdmkit; others do not compare.")]
    cells = [(row["model"], f"{row['bpd']:.2f}", row["source"]) for row in rows]
    return [_bars(named, rows), Table(f"Published for {same}", ("model", "bits/dim", "source"), cells)]


def published(facts: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns the published figures of the same version of the data, split and estimator as a report's JSON."""
    rows = tomllib.loads((files("vdmkit.page") / "published.toml").read_text())["figures"]
    of_data = [row for row in rows if all(facts[key] == row[key] for key in ("published", "dataset"))]
    return [row for row in of_data if re.fullmatch(row["estimator"], facts["estimator"])]


def _bars(named: Sequence[Named], rows: Sequence[dict[str, Any]]) -> Block:
    labels = [*(name for name, _ in named), *(row["model"] for row in rows)]

    def draw(axes: "Axes") -> None:
        names = dict.fromkeys(term for _, facts in named for term in facts["terms"])
        for number, (_, facts) in enumerate(named):
            left = 0.0
            for term, colour in zip(names, COLOURS, strict=False):
                value = facts["terms"].get(term, 0.0)
                words = f"{term} {value:.4f}" if len(named) == 1 else term
                axes.barh(number, value, 0.6, left=left, color=colour, label=words if number == 0 else None)
                left += value
            _beside(axes, left, number, f"{facts['bpd']:.4f}")
        for number, row in enumerate(rows, len(named)):
            axes.barh(number, row["bpd"], 0.6, color="none", edgecolor=COLOURS[5], hatch="///")
            _beside(axes, row["bpd"], number, f"{row['bpd']:.2f}")
        axes.set_yticks(range(len(labels)), map(literally, labels))
        axes.invert_yaxis()
        axes.margins(x=0.15)
        axes.set_xlim(left=min(0.0, axes.get_xlim()[0]))
        axes.grid(visible=False, axis="y")

    told = [
        f"{name}: {' + '.join(f'{term} {value:.4f}' for term, value in facts['terms'].items())}"
        for name, facts in named
    ]
    told += [f"{row['model']}: {row['bpd']:.2f}, published" for row in rows]
    errors = ", ".join(
        f"{name} {test_set_of(facts)}" if len(named) > 1 else test_set_of(facts) for name, facts in named
    )
    return chart(
        draw,
        alt=f"Bars of bits per dimension. {'; '.join(told)}.",
        caption=f"Terms of the bound, bits/dim; error of the test set: {errors}." + " Hatched: published." * bool(rows),
        x="bits/dim",
        y="",
        height=0.5 + 0.1 * len(labels),
    )


def _beside(axes: "Axes", x: float, y: int, text: str) -> None:
    axes.annotate(text, (x, y), (4, 0), textcoords="offset points", va="center")
