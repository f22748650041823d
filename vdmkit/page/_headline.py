# SPDX-License-Identifier: Apache-2.0
"""The number of a run, what it is of, and what speaks against it."""

from collections.abc import Iterator
from typing import Any

from vdmkit.page._blocks import Block, Command, Number, Section, Table, Words, section
from vdmkit.page._shown import Shown, plus_minus, test_set_of


def headline(shown: Shown) -> list[Section]:
    """Returns the sections of the headline and of all measured likelihoods."""
    facts = shown.files.facts
    if facts is None:
        asked = Command(
            "No likelihood was measured yet. This measures the bound:", shown.command("evaluate", "--ckpt", "RUN")
        )
        return section("Likelihood", [asked, *_against(shown)])
    return section("Likelihood", [_number(facts), *_against(shown), _about(facts), *_results(shown)])


def _number(facts: dict[str, Any]) -> Number:
    what = "bits/dim" if facts["levels"] else "bits/dim of a density"
    errors = [
        (f"± {facts['half_width_monte_carlo']:.4f}", "Monte Carlo, 95%: what more draws on these images would change"),
        (test_set_of(facts), "test set, 95%: what other images would change"),
    ]
    if facts["discretisation"] is not None:
        errors.append((f"{facts['discretisation']:+.5f}", "solver, by a finer solve of a few images"))
    return Number(f"{facts['bpd']:.4f}", what, errors)


def _about(facts: dict[str, Any]) -> Table:
    some = facts["images"] < facts["images_in_test_set"]
    images = f"{facts['images']:,} of {facts['images_in_test_set']:,}" if some else f"all {facts['images']:,}"
    rows = [
        ("terms, bits/dim", " + ".join(f"{name} {value:.4f}" for name, value in facts["terms"].items())),
        ("estimator", facts["estimator"]),
        ("images", f"{images} of {facts['dataset']}, {facts['published'] or 'not a published data set'}"),
        ("SHA-256 of the images", facts["sha256"]),
        ("network", f"{facts['evaluations']:,} evaluations, {facts['evaluations_per_image']:g} an image"),
        ("model", f"step {facts['step']:,}, {facts['weights']} weights, seed {facts['seed']}"),
        ("arithmetic", f"{facts['precision']}, matrix products {facts['matmul_precision']}, {facts['device']}"),
    ]
    known = {"exact": "truth on these images", "exact_bound": "bound, from infinitely many draws"}
    rows += [(words, f"{facts[name]:.4f}") for name, words in known.items() if facts[name] is not None]
    return Table("What the number is of", (), rows)


def _against(shown: Shown) -> Iterator[Block]:
    found = list(reasons_not_to_trust(shown))
    yield from (Words(reason, marked=True) for reason in found)
    if not found and shown.files.facts is not None:
        yield Words("No reason is known not to trust this number: its images are held out, and no check has failed.")


def reasons_not_to_trust(shown: Shown) -> Iterator[str]:
    """Yields everything that speaks against a run's number, in sentences."""
    facts, audit = shown.files.facts, shown.files.json("audit.json") or {"checks": []}
    if shown.reason:
        yield f"This run could not be loaded, so its schedule and samples are missing here: {shown.reason}"
    if facts is not None:
        yield from _of_report(facts)
    failed = [check["claim"] for check in audit["checks"] if check["verdict"] == "fails"]
    if failed:
        yield f"The audit failed: {'; '.join(failed)}."
    if facts is not None and shown.seen and facts["step"] != shown.seen.step:
        newest = f"the newest checkpoint that of step {shown.seen.step:,}"
        yield f"The number is that of step {facts['step']:,}, and {newest}."
    steps, wanted = shown.seen and shown.seen.step, shown.files.recipe["training.steps"]
    if steps is not None and steps < wanted and not shown.files.made["imported"]:
        yield f"Training has not ended: step {steps:,} of {wanted:,}."


def _of_report(facts: dict[str, Any]) -> Iterator[str]:
    if not facts["trusted"]:
        yield "NOT A LIKELIHOOD."
    yield from facts["reasons"]
    if facts["held_out"] is False:
        yield "NOT A TEST LIKELIHOOD: some of these images are copies or near copies of training images."
    if facts["held_out"] is None:
        yield "It is not known which images this model was trained on."
    if facts["images"] < facts["images_in_test_set"]:
        yield f"Only {facts['images']:,} of the {facts['images_in_test_set']:,} test images were measured."
    if facts["distinct_images"] < facts["images"]:
        yield f"Of the {facts['images']:,} images {facts['distinct_images']:,} are distinct."
    yield from facts["remarks"]


def _results(shown: Shown) -> Iterator[Block]:
    """Yields all measured likelihoods, and how to measure one image by image if there is none."""
    found = [("evaluation", shown.files.json("evaluation.json"))]
    found += [(one.name, one.facts) for one in shown.files.likelihoods]
    found = [(name, facts) for name, facts in found if facts]
    if len(found) > 1:
        columns = ("result", "bits/dim", "test set", "images", "estimator", "weights", "step")
        untrusted = frozenset(number for number, (_, facts) in enumerate(found) if not facts["trusted"])
        yield Table(
            "All measured likelihoods; ± is the 95% error on these images",
            columns,
            [_row(*one) for one in found],
            untrusted,
        )


def _row(name: str, facts: dict[str, Any]) -> list[str]:
    images = f"{facts['images']:,} of {facts['dataset']}"
    if facts["label"] is not None:
        images += f" given label {facts['label']}"
    return [
        name,
        plus_minus(facts),
        test_set_of(facts),
        images,
        facts["estimator"],
        facts["weights"],
        f"{facts['step']:,}",
    ]
