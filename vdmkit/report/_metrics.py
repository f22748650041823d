# SPDX-License-Identifier: Apache-2.0
"""Reads the metrics that training logged, one JSON object a line."""

import json
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int


def read_metrics(folder: Path) -> dict[str, tuple[Int[np.ndarray, " n"], Float[np.ndarray, " n"]]]:
    """Returns the steps and values of each metric by name. A metric may have values at some steps only."""
    found: dict[str, list[tuple[int, float]]] = {}
    for line in whole_lines(folder / "metrics.jsonl"):
        if step_of(line) == float("inf"):
            continue
        values = json.loads(line)
        step = values.pop("step")
        for name, value in values.items():
            found.setdefault(name, []).append((step, value))
    return {
        name: (np.array([s for s, _ in rows]), np.array([v for _, v in rows], float)) for name, rows in found.items()
    }


def step_of(line: str) -> int | float:
    """Returns the step of a line, or infinity for a damaged line, so that it is dropped."""
    try:
        step = json.loads(line)["step"]
        return step if isinstance(step, int) else float("inf")
    except (ValueError, TypeError, KeyError, RecursionError):
        return float("inf")


def whole_lines(path: Path) -> list[str]:
    """Returns all complete lines, without a last one truncated by a kill."""
    lines = path.read_text(errors="replace").splitlines(keepends=True) if path.exists() else []
    return [line for line in lines if line.endswith("\n")]
