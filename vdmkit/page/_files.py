# SPDX-License-Identifier: Apache-2.0
"""What a run folder holds, as far as a page shows it. Nothing here needs the model, its plugins or JAX."""

import json
import operator
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from vdmkit.errors import CheckpointError, DamageWarning, in_one_line
from vdmkit.io import (
    MAX_JSON,
    TooMuch,
    are_intact,
    check_depth,
    check_seal,
    has_sha256,
    not_a_folder,
    read_at_most,
    read_json,
    read_measured,
)
from vdmkit.recipes.document import parse_toml, read_toml
from vdmkit.recipes.schema import leaves
from vdmkit.report._metrics import intact_lines, read_metrics
from vdmkit.training.checksums import check_unchanged, what_is_damaged

_RESOLVED, _MANIFEST, _GIVEN = "resolved.toml", "manifest.json", "recipe.toml"  # the first marks a run folder
_ENTRIES = 2000  # lines of metrics that are shown one by one


@dataclass(frozen=True)
class Result:
    """A measured likelihood: its report, and the arrays of its images, if they were kept."""

    name: str
    facts: dict[str, Any]
    arrays: Mapping[str, np.ndarray]


@dataclass(frozen=True)
class RunFiles:
    """The files of a run folder; JSON by its path in the folder, as text. `name` is what the page calls the run."""

    path: Path
    name: str
    texts: Mapping[str, str]

    def json(self, name: str) -> Any:
        """Returns a file's JSON, or None if there is no such file."""
        return json.loads(self.texts[name]) if name in self.texts else None

    @cached_property
    def recipe(self) -> dict[str, Any]:
        """Returns the resolved recipe's values by dotted key."""
        return dict(leaves(parse_toml(read_toml(self.path / _RESOLVED))))

    @property
    def given_recipe(self) -> str:
        """Returns the recipe as the user wrote it, or '', with a DamageWarning, if that is lost."""
        path, sha256 = self.path / _GIVEN, self.made.get("kept", {}).get(_GIVEN)
        if sha256 and not has_sha256(path, sha256):
            warn_left_out(path, "changed or missing")
            return ""
        return _text(path)

    @property
    def made(self) -> dict[str, Any]:
        """Returns the manifest; a run of an older version may lack what is null here."""
        return {"newest_checkpoint": None, **self.json(_MANIFEST)}

    @property
    def dimensions(self) -> int:
        """Returns the number of values in an image."""
        return values_in(self.made["shape"])

    @cached_property
    def metrics(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Returns the steps and values of each logged metric by name."""
        return read_metrics(self.path)

    @property
    def metrics_text(self) -> str:
        """Returns the lines of metrics.jsonl; of a long one every n-th, after a line that says so."""
        lines = [line.strip() for line in intact_lines(self.path)]
        every = -(-len(lines) // _ENTRIES) or 1
        few = [] if every == 1 else [f"# every {every}th of {len(lines):,} lines"]
        return "\n".join([*few, *lines[::every]])

    @cached_property
    def likelihoods(self) -> list[Result]:
        """Returns the measured likelihoods by name."""
        found = [Path(name) for name in self.texts if name.startswith("likelihood/")]
        return [
            Result(one.stem, self.json(str(one)), _arrays((self.path / one).with_suffix(".npz")))
            for one in sorted(found)
            if "bpd" in self.json(str(one))
        ]

    @property
    def facts(self) -> dict[str, Any] | None:
        """Returns the report of the last evaluation, or else of a likelihood; None if there is neither."""
        return self.json("evaluation.json") or next((one.facts for one in self.likelihoods), None)


def read_files(path: Path) -> RunFiles:
    """Reads a run folder.

    Raises:
        CheckpointError: the folder is not a run, or one of its JSON files is damaged.
    """
    if reason := not_a_folder(path):
        raise CheckpointError(f"{path}: {reason}. Give the folder of a run.")
    if not (path / _RESOLVED).is_file():
        raise CheckpointError(f"{path}: not a run folder: it has no {_RESOLVED}.")
    if not (path / _MANIFEST).is_file():
        raise CheckpointError(f"{path}: has no {_MANIFEST}. Put a copy of it back, or run the recipe again.")
    _check_made(path)
    return RunFiles(path, path.resolve().name, {str(one.relative_to(path)): _checked(one) for one in _json_of(path)})


def _json_of(path: Path) -> list[Path]:
    """Returns the JSON files of a run; warns of checkpoints whose files are not as they were written."""
    changed = set[Path]()
    for folder in path.glob("checkpoints/[0-9]*"):
        if reason := what_is_damaged(folder, ".json"):
            warn_left_out(folder, reason)
            changed.add(folder)
    return sorted(one for one in path.rglob("*.json") if changed.isdisjoint(one.parents))


def _check_made(path: Path) -> None:
    """Raises CheckpointError if the manifest or the recipe of a run is not as it was written."""
    try:
        made = read_json(path / _MANIFEST, dict[str, Any])
        check_seal(made)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path / _MANIFEST}: cannot be read ({error}). Put a copy of it back.") from error
    kept = made.get("kept")
    if isinstance(kept, dict) and (sha256 := kept.get(_RESOLVED)):
        check_unchanged(path / _RESOLVED, sha256, "Run the recipe again, which writes it anew.")


def _checked(path: Path) -> str:
    text = _text(path)
    try:
        found = json.loads(text)
        check_depth(found)
    except (ValueError, RecursionError, TooMuch) as error:
        raise CheckpointError(
            f"{path}: is not JSON that vdmkit writes ({error}). Make it anew, or delete it."
        ) from error
    if isinstance(found, dict) and not are_intact(found):
        raise CheckpointError(f"{path}: its numbers are not those that were written. Make it anew, or delete it.")
    return text


def values_in(shape: Any) -> int:
    """Returns the number of values in an image of this shape. Raises TypeError or ValueError if it is not a shape."""
    height, width, channels = map(operator.index, shape)  # Python would multiply a list or a string, too
    return height * width * channels


def warn_left_out(path: Path, reason: str) -> None:
    """Warns with DamageWarning that a page does not show a file."""
    warnings.warn(f"{path}: {reason}, and left out.", DamageWarning, stacklevel=2)


def _text(path: Path) -> str:
    try:
        return read_at_most(path, MAX_JSON).decode(errors="replace") if path.is_file() else ""
    except TooMuch as error:
        raise CheckpointError(f"{path}: {error}. Make it anew, or delete it.") from error


def _arrays(path: Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        warn_left_out(path, "missing")
        return {}
    try:
        return read_measured(path)
    except Exception as error:  # of many types
        raise CheckpointError(f"{path}: damaged ({in_one_line(error)}). Measure it anew, or delete it.") from error
