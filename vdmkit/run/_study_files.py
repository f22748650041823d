# SPDX-License-Identifier: Apache-2.0
"""The files of a study: tables, charts, and components for other commands."""

from pathlib import Path
from typing import Any

import tomli_w

from vdmkit.errors import CheckpointError
from vdmkit.files import locked_folder, sealed_text, sha256_in, write_results, write_text
from vdmkit.report import line_chart
from vdmkit.study import Study, lines_of_steps, lines_of_variances, text_of_study

_MADE = {"closed form", "dynamic"}  # grids that were found; the others have names of their own


def leave(study: Study, folder: Path) -> list[str]:
    """Writes a study into a folder. Returns the files; those of a grid for several T are abbreviated with braces.

    Raises CheckpointError if another process is writing one.
    """
    busy = f"{folder}: another vdmkit is writing its study. What was measured is kept: run the same command again."
    table, facts, kernel = (folder / name for name in ("schedule.txt", "schedule.json", "optimal_variance.toml"))
    with locked_folder(folder, CheckpointError(busy)):
        for earlier in (facts, *folder.glob("*_[0-9]*.toml")):
            earlier.unlink(missing_ok=True)
        write_text(table, text_of_study(study) + "\n")
        write_text(kernel, _component("optimal_variance", study.optimal_variance))
        charts = [*_variance_chart(study, folder), *_step_chart(study, folder)]
        grids = _leave_grids(study, folder)
        write_results(facts, study.as_json() | {"files": sha256_in(folder)})  # last: it marks that they belong together
    return [*map(str, (table, facts, *charts, kernel)), *grids]


def _leave_grids(study: Study, folder: Path) -> list[str]:
    counts: dict[str, list[str]] = {}
    for row in study.steps:
        if row.grid in _MADE:
            name = f"{row.kernel}_{row.grid.replace(' ', '_')}"
            write_text(folder / f"{name}_{row.count}.toml", _component("gammas", {"gammas": list(row.gammas)}))
            counts.setdefault(name, []).append(str(row.count))
    return [f"{folder / name}_{_one_of(of_grid)}.toml" for name, of_grid in counts.items()]


def _one_of(words: list[str]) -> str:
    return words[0] if len(words) == 1 else "{" + ",".join(words) + "}"


def _component(name: str, params: dict[str, Any]) -> str:
    return sealed_text(tomli_w.dumps({"name": name, **params}))


def _variance_chart(study: Study, folder: Path) -> list[Path]:
    return line_chart(
        folder / "variance",
        lines_of_variances(study),
        x="gamma = -log SNR",
        y="density of gamma for a uniform t",
        title="Where schedules draw, and the variance, (bits/dim)^2",
    )


def _step_chart(study: Study, folder: Path) -> list[Path]:
    return line_chart(
        folder / "steps",
        lines_of_steps(study),
        x="steps T",
        y="bits/dim above continuous time",
        title="What few steps cost",
        log=True,
    )
