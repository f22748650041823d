# SPDX-License-Identifier: Apache-2.0
"""The folder of a run, with everything that later commands need, and the provenance of the run.

The provenance is recorded in full in the manifest, and in short with every checkpoint.
"""

import hashlib
import json
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge

from vdmkit.data.sources import Identities, Images
from vdmkit.errors import CheckpointError
from vdmkit.io import (
    check_seal,
    has_sha256,
    locked_folder,
    not_a_file,
    not_a_folder,
    read_json,
    seal_of,
    whole_file,
    write_json,
    write_text,
)
from vdmkit.plugins import copies_in, remember
from vdmkit.recipes.loading import load_recipe
from vdmkit.recipes.schema import Recipe, differences, dump, flat
from vdmkit.registry import Choice
from vdmkit.training.checkpoints import Restored, check_unchanged, steps_in

# Keys that may change when a run is continued, because they do not affect the steps already trained.
_MAY_CHANGE = {"data.path", "data.train", "data.test", "evaluation", "likelihood", "sampling"}
_MAY_CHANGE |= {"training.steps", "training.log_every", "training.keep_last", "training.keep_best"}
_WORDS = {"recipe": "recipe settings", "plugins": "plugin files", "images": "training images"}
_WORDS |= {"imported": "imported parameters", "components": "packages of its components"}
_WORDS |= {"run": "sessions, so it or manifest.json is another run's"}

_Size = Annotated[int, Ge(1)]


@dataclass(frozen=True)
class Provenance:
    """The inputs of a run, and the processes that trained it.

    Attributes:
        shape: Height, width and channels of the images.
        levels: Number of levels of the images.
        data: Identities of the images; None if unknown, as for an imported model.
        plugins: SHA-256 of every plugin file, by file name.
        imported: SHA-256 of the file that the parameters were imported from, or None.
        sessions: The processes that trained the run: see `session`.
        kept: SHA-256 of the recipes and of the records of training images, by file name.
        newest_checkpoint: Step of the checkpoint that was saved last, or None.
        logged: Number of lines of metrics up to that checkpoint, or fewer.
        run: A random name, so that the manifest of a different run is not accepted; "" for a run of an older version,
            None if its manifest was lost.
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
        """Returns what a checkpoint of `recipe` records, so that it cannot be used in a different run."""
        train = self.data and f"{self.data.train.sha256} {'x'.join(map(str, self.shape))} {self.levels} levels"
        foreign = {str(one.component) for one in _choices(recipe) if one.component.is_of_package}
        return {
            "recipe": _digest(recipe),
            "plugins": sorted(self.plugins.values()),
            "images": train,
            "imported": self.imported,
            "components": sorted(foreign),  # two packages may register the same name, so the packages are recorded too
            "run": self.run,
        }

    def check(self, recipe: Recipe, checkpoints: Path, restored: Restored) -> None:
        """Raises CheckpointError if a checkpoint's recorded origin differs from that of this run with this recipe."""
        wanted, step = self.origin(recipe), checkpoints / str(restored.step)
        found = {"components": wanted["components"], "run": ""} | restored.meta  # older checkpoints do not record these
        found |= {"run": None} if self.run is None else {}
        other = [name for name in _WORDS if found.get(name, "") != wanted[name]]
        if self.imported and None in (wanted["images"], found.get("images", "")):
            other = [name for name in other if name != "images"]
        if other := [name for name in other if name != "run"] or other:  # the other keys are more informative
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
    """Returns the provenance of a run.

    Args:
        train: The training images.
        test: The test images.
        plugins: The contents of every plugin file, by file name.
        earlier: The provenance recorded by the run's earlier sessions.
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
    older = {"newest_checkpoint": max(steps_in(path.parent / "checkpoints"), default=None)}  # older versions lack it
    try:
        check_seal(read_json(path, dict[str, Any]))
        return read_json(path, Provenance, older)
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{path}: cannot be read ({error}). It records what this run was made with. "
            "Put a copy of it back, or delete it and run the recipe again."
        ) from error


def check_same_recipe(where: Path, before: Recipe, now: Recipe) -> None:
    """Raises CheckpointError if a run cannot be continued with the recipe `now`; the message lists the keys."""
    changed = [key for key in differences(before, now) if not may_change(key)]
    if changed:
        raise CheckpointError(
            f"{where}: a run of another recipe. It differs in {', '.join(changed)}. "
            "Choose another folder with --out, or the recipe of this one."
        )


def may_change(key: str) -> bool:
    """Returns whether a run may be continued with a different value of this recipe key."""
    return any(key == allowed or key.startswith(f"{allowed}.") for allowed in _MAY_CHANGE)


def _digest(recipe: Recipe) -> str:
    # The data are identified by the hash of the training images instead of their recipe keys.
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


class _Name:
    """Descriptor of a file or folder in a run folder, or in the shared one if all processes write it."""

    def __init__(self, name: str, *, by_all: bool = False):
        self.name, self.by_all = name, by_all

    def __get__(self, folder: "RunFolder", kind: type) -> Path:
        return ((self.by_all and folder.shared) or folder.path) / self.name


@dataclass(frozen=True)
class RunFolder:
    """The files of a run folder; `shared` is the original if `path` is a process's own copy."""

    path: Path
    shared: Path | None = None

    given_recipe = _Name("recipe.toml")  # as the user wrote it
    resolved_recipe = _Name("resolved.toml")  # a valid recipe with overrides and defaults; it marks a run folder
    manifest = _Name("manifest.json")  # versions, device, data identity, git state
    checkpoints = _Name("checkpoints", by_all=True)
    evaluation = _Name("evaluation.json")  # the last evaluation
    likelihoods = _Name("likelihood")  # for each measurement, a JSON file and the estimates of every image
    unfinished_likelihood = _Name("likelihood.unfinished")  # finished batches of an interrupted measurement
    schedule = _Name("schedule")  # results of the last study of schedules
    unfinished_schedule = _Name("schedule.unfinished")  # measurements of an interrupted study
    health = _Name("health.json")  # warning signs during training
    samples = _Name("samples.png")  # samples of the trained model next to real images
    plugins = _Name("plugins")  # copies of the plugin files that the run was started with
    trained_on = _Name("trained_on.npy")  # a hash and a thumbnail of every training image
    trained_levels = _Name("trained_levels.npy")  # statistics of the levels of training images

    def check(self, recipe: Recipe, plugins: Sequence[Path] = ()) -> None:
        """Raises CheckpointError if the folder belongs to a different recipe or holds other files. It changes nothing.

        Args:
            recipe: The recipe to train here.
            plugins: Plugin files that were loaded for it.
        """
        if self.path.exists() and (reason := not_a_folder(self.path)):
            raise CheckpointError(f"{self.path}: {reason}. Choose another with --out.")
        if self._recipe_is_lost():
            return  # each checkpoint records its own origin
        if self.resolved_recipe.exists():
            check_same_recipe(self.path, self._recipe_before(plugins), recipe)
        elif self.path.exists() and any(not entry.name.startswith(".") for entry in self.path.iterdir()):
            raise CheckpointError(f"{self.path}: not empty, and not a run folder. Choose another with --out.")

    def _recipe_is_lost(self) -> bool:
        """Returns whether resolved.toml is missing, or damaged according to the manifest, so it must be rewritten."""
        sha256 = self.provenance().kept.get(self.resolved_recipe.name) if self.manifest.exists() else None
        return sha256 is not None and not has_sha256(self.resolved_recipe, sha256)

    def hashes_of(self, recipe: Recipe, text: str) -> dict[str, str]:
        """Returns the SHA-256 of the files that `write_recipe` writes, by name, for the manifest."""
        texts = {self.resolved_recipe.name: dump(recipe), self.given_recipe.name: text}
        return {name: hashlib.sha256(one.encode()).hexdigest() for name, one in texts.items()}

    def check_new(self, option: str) -> None:
        """Raises CheckpointError if the folder is not empty or is a file. `option` is the option that gave it."""
        if self.path.exists() and (reason := not_a_folder(self.path)):
            raise CheckpointError(f"{self.path}: {reason}. Choose another with {option}.")
        if self.path.exists() and any(self.path.iterdir()):
            raise CheckpointError(f"{self.path}: not empty. Choose another folder with {option}.")

    def write_recipe(self, recipe: Recipe, text: str) -> None:
        """Writes `recipe` and `text`, the contents of its file, which makes this folder a run of it."""
        self.path.mkdir(parents=True, exist_ok=True)
        write_text(self.resolved_recipe, dump(recipe))  # first, so that a run killed here can be continued
        write_text(self.given_recipe, text)

    def keep_plugins(self, sources: Mapping[str, bytes]) -> None:
        """Writes copies of plugin files, given by name, and records that this user may execute them."""
        remember(sources)
        for name, source in sources.items():
            self.plugins.mkdir(exist_ok=True)
            with whole_file(self.plugins / name) as part:
                part.write_bytes(source)

    def kept_plugins(self) -> list[Path]:
        """Returns the copies of plugin files. Raises CheckpointError if one has changed since the run began."""
        kept = {self.plugins / Path(name).name: sha256 for name, sha256 in self.provenance().plugins.items()}
        for path, sha256 in kept.items():
            check_unchanged(path, sha256, "Put it back.")
        return list(kept)

    def kept(self, path: Path) -> Path | None:
        """Returns a file that is listed in the manifest or was written by an older version; None if it does not exist.

        Raises CheckpointError if the file has changed since it was written.
        """
        if sha256 := self.provenance().kept.get(path.name):
            advice = "Run the recipe again to write it; what was trained is not trained again."
            check_unchanged(path, sha256, advice)
        return path if path.is_file() else None

    def _recipe_before(self, plugins: Sequence[Path]) -> Recipe:
        return load_recipe(self.resolved_recipe, kept=copies_in(self.plugins, plugins))

    def say_new_end(self, recipe: Recipe, plugins: Sequence[Path]) -> None:
        """Prints a line on standard error if `recipe` makes the existing run longer or shorter."""
        if self._recipe_is_lost() or not self.resolved_recipe.exists():
            return
        steps_before, steps = self._recipe_before(plugins).training.steps, recipe.training.steps
        if steps_before != steps:
            print(
                f"{self.path}: training.steps was {steps_before:,}, from here on it is {steps:,}. A learning rate "
                "that decays follows the new end: a run from the start would differ.",
                file=sys.stderr,
            )

    def provenance(self) -> Provenance:
        """Reads the provenance of the run. Raises CheckpointError if its manifest is missing or damaged."""
        return read_provenance(self.manifest)

    def record(self, made: Provenance) -> None:
        """Writes the provenance of the run."""
        facts = asdict(made)
        write_json(self.manifest, facts | {"sha256": seal_of(facts)})

    def note_saved(self, step: int, logged: int) -> None:
        """Records the newest checkpoint, once it is written, and the number of lines of metrics in the manifest."""
        self.record(replace(self.provenance(), newest_checkpoint=step, logged=logged))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Locks the folder for this process. Raises CheckpointError if a different process has locked it."""
        busy = f"{self.path}: another vdmkit is writing this run. Wait for it, or choose another --out."
        with locked_folder(self.path, CheckpointError(busy)) as problem:
            if problem:
                print(f"{self.path}: {problem}. Start no other vdmkit on this run.", file=sys.stderr)
            yield
