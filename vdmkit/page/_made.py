# SPDX-License-Identifier: Apache-2.0
"""What a run was made from, and the commands that rebuild its numbers."""

import shlex
from collections.abc import Iterator
from typing import Any

from vdmkit.page._blocks import Command, Section, Table, section
from vdmkit.page._files import Result
from vdmkit.page._shown import Shown, plus_minus


def manifest(shown: Shown) -> list[Section]:
    """Returns the section on data, versions and sessions."""
    found = shown.files.made
    return section("Manifest", [Table("The run", (), list(_facts(found))), *_sessions(found)])


def _facts(found: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield "images", f"{' x '.join(map(str, found['shape']))}, {found['levels'] or 'no'} levels"
    for split, data in (found["data"] or {}).items():
        known = data["published"] or "not a published data set"
        yield f"{split} images", f"{data['name']}, {data['count']:,} images, {known}, SHA-256 {data['sha256']}"
    if found["imported"]:
        yield "imported file", f"SHA-256 {found['imported']}"
    yield from ((f"plugin file {name}", f"SHA-256 {sha256}") for name, sha256 in found["plugins"].items())
    yield "newest checkpoint", "none" if found["newest_checkpoint"] is None else f"step {found['newest_checkpoint']:,}"


def _sessions(found: dict[str, Any]) -> list[Table]:
    rows = [
        (
            f"{one['from_step']:,} to {one['goal_step']:,}",
            f"vdmkit {one['vdmkit']}, git {one['git'] or 'unknown'}, Python {one['python']}, {one['device']}",
            ", ".join(f"{name} {version}" for name, version in one["packages"].items()),
            shlex.join(one["command"]),
        )
        for one in found["sessions"]
    ]
    return [Table("Sessions", ("steps", "software and device", "packages", "command"), rows)] if rows else []


def commands(shown: Shown) -> list[Section]:
    """Returns the section with the commands that rebuild the numbers of this page."""
    return section("Commands that rebuild these numbers", _commands(shown))


def _commands(shown: Shown) -> Iterator[Command]:
    files = shown.files
    if files.metrics:
        words = "Training, in another folder, with the same numbers on the same machine and versions:"
        again = shown.command("run", str(files.path / "resolved.toml"), "--out", f"{files.path}-again")
        yield Command(words, [*again, *_plugins(shown)])
    if facts := files.json("evaluation.json"):
        words = f"{plus_minus(facts)} bits/dim (evaluation.json):"
        yield Command(words, [*_at(shown, "evaluate", facts), *_settings(shown, facts)])
    for one in files.likelihoods:
        yield Command(f"{plus_minus(one.facts)} bits/dim ({one.name}):", _of_result(shown, one))
    if files.json("schedule/schedule.json"):
        yield Command("The study of schedules and steps:", shown.command("study", "--ckpt", "RUN"))
    if files.json("audit.json"):
        yield Command("The audit:", shown.command("likelihood", "--ckpt", "RUN", "--audit"))
    yield Command("This page:", shown.command("report", "RUN", "-o", "report.html"))


def _of_result(shown: Shown, one: Result) -> list[str]:
    if compared_by := one.facts.get("compared_by"):  # draws were planned for a difference, in another run's light
        return shlex.split(compared_by)
    overrides = [word for text in one.arrays.get("overrides", ()) for word in ("--set", str(text))]
    return [*_at(shown, "likelihood", one.facts), *overrides]


def _at(shown: Shown, command: str, facts: dict[str, Any]) -> list[str]:
    return shown.command(command, "--ckpt", "RUN", "--checkpoint-step", str(facts["step"]))


def _plugins(shown: Shown) -> list[str]:
    """Returns the options for the plugin files that the run kept."""
    return [
        word for name in shown.files.made["plugins"] for word in ("--plugin", str(shown.files.path / "plugins" / name))
    ]


def _settings(shown: Shown, facts: dict[str, Any]) -> list[str]:
    """Returns the overrides with which an evaluation was made, as far as its report differs from the recipe."""
    draws = round(facts["evaluations_per_image"])
    found = {"seed": facts["seed"], "evaluation.draws": draws, "evaluation.weights": facts["weights"]}
    changed = {key: value for key, value in found.items() if shown.files.recipe[key] != value}
    return [word for key, value in changed.items() for word in ("--set", f"{key}={value}")]
