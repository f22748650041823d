# SPDX-License-Identifier: Apache-2.0
"""The folder of a run: everything that a later command needs."""

import fcntl
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vdmkit.errors import CheckpointError
from vdmkit.recipe import Recipe, differences, dump, load_recipe

# These may change when a run is continued: they do not touch what was trained so far.
_MAY_CHANGE = {"data.path", "data.train", "data.test", "evaluation", "sampling"}
_MAY_CHANGE |= {"training.steps", "training.log_every", "training.keep_last", "training.keep_best"}
_FACTS = {"plugins", "shape", "levels", "data"}


@dataclass(frozen=True)
class RunFolder:
    """Names of what a run leaves behind."""

    path: Path

    @property
    def given_recipe(self) -> Path:
        """The recipe as the user wrote it."""
        return self.path / "recipe.toml"

    @property
    def resolved_recipe(self) -> Path:
        """The recipe with overrides and defaults filled in; itself a valid recipe. Its presence marks a run folder."""
        return self.path / "resolved.toml"

    @property
    def manifest(self) -> Path:
        """Versions, device, data identity, git state."""
        return self.path / "manifest.json"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def evaluation(self) -> Path:
        """The last evaluation, as JSON."""
        return self.path / "evaluation.json"

    @property
    def samples(self) -> Path:
        """Samples of the trained model beside real images."""
        return self.path / "samples.png"

    def claim(self, recipe: Recipe, text: str) -> None:
        """Make this the folder of `recipe`, whose file reads `text`; or continue it if it is already.

        Raises:
            CheckpointError: it is another recipe's, holds something else, or cannot be written.
        """
        if self.resolved_recipe.exists():
            self._refuse_other(recipe)
        elif self.path.exists() and any(not entry.name.startswith(".") for entry in self.path.iterdir()):
            raise CheckpointError(f"{self.path}: not empty, and not a run folder. Choose another with --out.")
        self.path.mkdir(parents=True, exist_ok=True)
        write_text(self.resolved_recipe, dump(recipe))  # first: a run killed here can be continued
        write_text(self.given_recipe, text)

    def _refuse_other(self, recipe: Recipe) -> None:
        before = load_recipe(self.resolved_recipe)
        changed = [key for key in differences(before, recipe) if not _may_change(key)]
        if changed:
            raise CheckpointError(
                f"{self.path}: a run of another recipe. It differs in {', '.join(changed)}. "
                "Choose another folder with --out, or the recipe of this one."
            )
        steps_before, steps = before.training.steps, recipe.training.steps
        if steps_before != steps:
            print(
                f"{self.path}: training.steps was {steps_before:,}, from here on it is {steps:,}. A learning rate "
                "that decays follows the new end: a run from the start would differ.",
                file=sys.stderr,
            )

    def facts(self) -> dict[str, Any]:
        """What the manifest says. Raises CheckpointError if it is missing or damaged."""
        try:
            facts = json.loads(self.manifest.read_text())
            missing = sorted(_FACTS - facts.keys())
        except (OSError, ValueError, AttributeError) as error:
            raise CheckpointError(
                f"{self.manifest}: cannot be read ({error}). Restore it, or delete it and run the recipe again."
            ) from error
        if missing:
            raise CheckpointError(f"{self.manifest}: without {', '.join(missing)}. Delete it and run the recipe again.")
        return facts

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for this process; the system lets go of it however the process ends."""
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / ".lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise CheckpointError(
                    f"{self.path}: another vdmkit is training here. Wait for it, or choose another --out."
                ) from None
            yield


def _may_change(key: str) -> bool:
    return any(key == allowed or key.startswith(f"{allowed}.") for allowed in _MAY_CHANGE)


def write_text(path: Path, text: str) -> None:
    """Whole or not at all."""
    temporary = path.with_name(f".{path.name}")
    temporary.write_text(text)
    os.replace(temporary, path)


def write_json(path: Path, facts: dict[str, Any]) -> None:
    """Whole or not at all. A NaN is refused: it is not JSON."""
    write_text(path, json.dumps(facts, indent=2, allow_nan=False) + "\n")
