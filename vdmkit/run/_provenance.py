# SPDX-License-Identifier: Apache-2.0
"""What a run is made from: one record, whole in the manifest, and in short with every checkpoint."""

import hashlib
import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge

from vdmkit.checkpoint import Restored, steps_in
from vdmkit.data import Identities, Images
from vdmkit.errors import CheckpointError
from vdmkit.files import check_seal, read_json
from vdmkit.paths import not_a_file
from vdmkit.recipe import Recipe, differences, flat
from vdmkit.registry import Choice

# These may change when a run is continued, because they do not affect what was trained so far.
_MAY_CHANGE = {"data.path", "data.train", "data.test", "evaluation", "likelihood", "sampling"}
_MAY_CHANGE |= {"training.steps", "training.log_every", "training.keep_last", "training.keep_best"}
_WORDS = {"recipe": "recipe settings", "plugins": "plugin files", "images": "training images"}
_WORDS |= {"imported": "imported parameters", "components": "packages of its components"}
_WORDS |= {"run": "sessions, so it or manifest.json is another run's"}

_Size = Annotated[int, Ge(1)]


@dataclass(frozen=True)
class Provenance:
    """What a run was made from, and the processes that trained it.

    Attributes:
        shape: Height, width and channels of the images.
        levels: Number of levels of the images.
        data: Identities of the images; None if unknown, as for an imported model.
        plugins: SHA-256 of every plugin file, by file name.
        imported: SHA-256 of the file that the parameters were imported from, or None.
        sessions: The processes that trained the run: see `session`.
        kept: SHA-256 of the recipes and of the files on training images, by file name.
        newest_checkpoint: Step of the checkpoint that was saved last, or None.
        logged: Number of lines of metrics up to that checkpoint, or fewer.
        run: A random name, so that no other run's manifest passes for this one; "" for a run of an older version, None
            if its manifest was lost.
    """

    shape: tuple[_Size, _Size, _Size]
    levels: Annotated[int, Ge(0)]
    data: Identities | None
    plugins: Mapping[str, str]
    imported: str | None
    sessions: Sequence[Mapping[str, Any]]
    kept: Mapping[str, str] = field(default_factory=dict)
    newest_checkpoint: int | None = None
    logged: Annotated[int, Ge(0)] = 0
    run: str | None = ""

    def origin(self, recipe: Recipe) -> dict[str, Any]:
        """Returns what a checkpoint of `recipe` records, so that no other run continues from it or reports it."""
        train = self.data and f"{self.data.train.sha256} {'x'.join(map(str, self.shape))} {self.levels} levels"
        foreign = {str(one.component) for one in _choices(recipe) if one.component.is_of_package}
        return {
            "recipe": _digest(recipe),
            "plugins": sorted(self.plugins.values()),
            "images": train,
            "imported": self.imported,
            "components": sorted(foreign),  # two packages may register the same name
            "run": self.run,
        }

    def check(self, recipe: Recipe, checkpoints: Path, restored: Restored) -> None:
        """Raises CheckpointError if a checkpoint has another origin than this run with this recipe."""
        wanted, step = self.origin(recipe), checkpoints / str(restored.step)
        found = {"components": wanted["components"], "run": ""} | restored.meta  # older checkpoints do not record these
        found |= {"run": None} if self.run is None else {}
        other = [name for name in _WORDS if found.get(name, "") != wanted[name]]
        if self.imported and None in (wanted["images"], found.get("images", "")):
            other = [name for name in other if name != "images"]
        if other := [name for name in other if name != "run"] or other:  # the rest says more
            raise CheckpointError(
                f"{step}: this checkpoint was made with other {' and '.join(_WORDS[name] for name in other)}. "
                "Give the run what it began with, or choose another folder."
            )
        if restored.step != int(restored.state.step):
            raise CheckpointError(
                f"{step}: holds the state of step {int(restored.state.step):,}. Give the folder its old name."
            )


def provenance_of(
    train: Images, test: Images, plugins: Mapping[str, bytes], earlier: Provenance | None = None
) -> Provenance:
    """Returns the record of a run.

    Args:
        train: The training images.
        test: The test images.
        plugins: The contents of every plugin file, by file name.
        earlier: The record of the run's earlier sessions.
    """
    return Provenance(
        shape=train.pixels.shape[1:],
        levels=train.levels,
        data=Identities(train.identity, test.identity),
        plugins={name: hashlib.sha256(source).hexdigest() for name, source in plugins.items()},
        imported=earlier.imported if earlier else None,
        sessions=list(earlier.sessions) if earlier else [],
        newest_checkpoint=earlier.newest_checkpoint if earlier else None,
        logged=earlier.logged if earlier else 0,
        run=earlier.run if earlier else None,
    )


def read_provenance(path: Path) -> Provenance:
    """Reads a manifest. Raises CheckpointError if it is missing or damaged."""
    if reason := not_a_file(path):
        raise CheckpointError(
            f"{path}: {reason}. It records the data, plugins, versions and sessions that this run was made with; no "
            "number is given without them. Put a copy of it back, or run the recipe again with --out "
            f"{shlex.quote(str(path.parent))}: that goes on from the newest checkpoint, and records the sessions from "
            "then on."
        )
    older = {"newest_checkpoint": max(steps_in(path.parent / "checkpoints"), default=None)}  # not recorded
    try:
        check_seal(read_json(path, dict[str, Any]))
        return read_json(path, Provenance, older)
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{path}: cannot be read ({error}). It records what this run was made with. "
            "Put a copy of it back, or delete it and run the recipe again."
        ) from error


def check_same_recipe(where: Path, before: Recipe, now: Recipe) -> None:
    """Raises CheckpointError if a run cannot be continued with the recipe `now`; the message names the keys."""
    changed = [key for key in differences(before, now) if not may_change(key)]
    if changed:
        raise CheckpointError(
            f"{where}: a run of another recipe. It differs in {', '.join(changed)}. "
            "Choose another folder with --out, or the recipe of this one."
        )


def may_change(key: str) -> bool:
    """Returns whether a run may be continued with another value of this recipe key."""
    return any(key == allowed or key.startswith(f"{allowed}.") for allowed in _MAY_CHANGE)


def _digest(recipe: Recipe) -> str:
    # The hash of the training images replaces the recipe's data.
    fixed = {key: value for key, value in flat(recipe).items() if not (may_change(key) or key.startswith("data."))}
    return hashlib.sha256(json.dumps(fixed, sort_keys=True).encode()).hexdigest()


def _choices(value: Any) -> Iterator[Choice]:
    """Yields the components that affect training."""
    if isinstance(value, Choice):
        yield from value.nested()
    elif is_dataclass(value):
        value = tuple(getattr(value, one.name) for one in fields(value) if not may_change(one.name))
    if isinstance(value, tuple):
        for part in value:
            yield from _choices(part)
