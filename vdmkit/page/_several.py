# SPDX-License-Identifier: Apache-2.0
"""Several runs side by side: their numbers, paired differences, training curves, and what their recipes differ in."""

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

from vdmkit.likelihood.comparison import times_to_decide
from vdmkit.page._blocks import Block, Command, Section, Table, Words, section
from vdmkit.page._pairs import best_measured
from vdmkit.page._shown import Shown, plus_minus, test_set_of
from vdmkit.page._terms import blocks_of_terms
from vdmkit.page._training import curves
from vdmkit.recipes.validation import toml_text


def several(runs: Sequence[Shown]) -> list[Section]:
    """Returns the sections that compare runs."""
    return [
        *section("Side by side", _side_by_side(runs)),
        *section("Paired differences", _paired(runs)),
        *section("Training curves", _curves(runs)),
        *section("Differences between the recipes", _recipes(runs)),
    ]


def _side_by_side(runs: Sequence[Shown]) -> Iterator[Block]:
    measured = [(run.name, facts) for run in runs if (facts := run.files.facts)]
    rows = [_row(name, facts) for name, facts in measured]
    rows += [(run.name, "not measured", *6 * [""]) for run in runs if not run.files.facts]
    columns = ("run", "bits/dim", "test set", "estimator", "images", "step", "weights", "test likelihood")
    yield Table("Bits/dim, ± the 95% error on these images; and the error of the test set", columns, rows)
    if len({(facts["sha256"], facts["estimator"], facts["label"]) for _, facts in measured}) > 1:
        yield Words("These numbers are of different images or estimators and do not compare.", marked=True)
    elif measured:
        yield from blocks_of_terms(measured)


def _row(name: str, facts: dict[str, Any]) -> Sequence[str]:
    held_out = {True: "yes", False: "NO", None: "not known"}[facts["held_out"]] if facts["trusted"] else "NO"
    of_model = f"{facts['step']:,}", facts["weights"]
    return [name, plus_minus(facts), test_set_of(facts), facts["estimator"], facts["dataset"], *of_model, held_out]


def _paired(runs: Sequence[Shown]) -> Iterator[Block]:
    rows = []
    for one, other in itertools.combinations(runs, 2):
        found = list(_rows_of_pair(one, other))
        rows += found
        if not found:
            yield _how_to_compare(one, other)
    if rows:
        columns = ("first minus second", "bits/dim", "on these images", "on other images", "estimator")
        yield Table("Differences on the same images; below 0 the first is better. ± is the 95% error", columns, rows)


def _how_to_compare(one: Shown, other: Shown) -> Block:
    first, second = one.files.made, other.files.made
    of_test = [made["data"] and made["data"]["test"]["sha256"] for made in (first, second)]
    if first["shape"] != second["shape"] or (all(of_test) and of_test[0] != of_test[1]):
        return Words(f"{one.name} and {other.name} were not tested on the same images.")
    words = f"{one.name} and {other.name} have no results of single images that compare. This measures both:"
    return Command(words, one.command("compare", "RUN", str(other.files.path)))


def _rows_of_pair(one: Shown, other: Shown) -> Iterator[list[str]]:
    pairs = itertools.product(one.files.likelihoods, other.files.likelihoods)
    for first, second, found in best_measured(pairs, one.files.dimensions):
        on_these = found.half_width_monte_carlo + found.half_width_solver
        yield [
            f"{one.name}, {first.facts['weights']} - {other.name}, {second.facts['weights']}",
            f"{found.value:+.4f}",
            f"± {on_these:.4f}: {_verdict(found.value, on_these, 'draws')}",
            f"± {found.half_width:.4f}: {_verdict(found.value, found.half_width, 'images')}",
            first.facts["estimator"],
        ]


def _verdict(value: float, half_width: float, of_what: str) -> str:
    times = times_to_decide(half_width, value)
    if times is None:
        return f"the {'first' if value < 0 else 'second'} is better"
    return "no difference" if math.isinf(times) else f"not decided; about {times:.2g} times as many {of_what} would"


def _curves(runs: Sequence[Shown]) -> Iterator[Block]:
    names = dict.fromkeys(name for run in runs for name in run.files.metrics)
    for name in (name for name in names if name in ("train/bpd", "train/loss") or name.startswith("test/bpd")):
        found = [(run.name, *run.files.metrics[name]) for run in runs if name in run.files.metrics]
        if max(len(steps) for _, steps, _ in found) > 1:
            yield curves(found, name, "bits/dim")


def _recipes(runs: Sequence[Shown]) -> Iterator[Block]:
    keys = dict.fromkeys(key for run in runs for key in run.files.recipe)
    texts = {key: [toml_text(run.files.recipe[key]) if key in run.files.recipe else "" for run in runs] for key in keys}
    rows = [(key, *values) for key, values in texts.items() if len(set(values)) > 1]
    if rows:
        yield Table("Keys in which the resolved recipes differ", ("key", *(run.name for run in runs)), rows)
    else:
        yield Words("The resolved recipes are equal.")
