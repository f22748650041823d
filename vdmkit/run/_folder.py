# SPDX-License-Identifier: Apache-2.0
"""The folder of a run, with everything that a later command needs."""

import hashlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from vdmkit.checkpoint import check_unchanged
from vdmkit.errors import CheckpointError
from vdmkit.files import has_sha256, locked_folder, seal_of, whole_file, write_json, write_text
from vdmkit.paths import not_a_folder
from vdmkit.recipe import Recipe, dump, load_recipe
from vdmkit.registry import copies_in, remember
from vdmkit.run._provenance import Provenance, check_same_recipe, read_provenance


class _Name:
    """A file or folder of this name in a run folder; in the shared one, if all processes write it."""

    def __init__(self, name: str, *, by_all: bool = False):
        self.name, self.by_all = name, by_all

    def __get__(self, folder: "RunFolder", kind: type) -> Path:
        return ((self.by_all and folder.shared) or folder.path) / self.name


@dataclass(frozen=True)
class RunFolder:
    """The files of a run folder; `shared` is the one of which `path` is a process's own copy, if it is one."""

    path: Path
    shared: Path | None = None

    given_recipe = _Name("recipe.toml")  # as the user wrote it
    resolved_recipe = _Name("resolved.toml")  # with overrides and defaults, a valid recipe; it marks a run folder
    manifest = _Name("manifest.json")  # versions, device, data identity, git state
    checkpoints = _Name("checkpoints", by_all=True)
    evaluation = _Name("evaluation.json")  # the last evaluation
    likelihoods = _Name("likelihood")  # a JSON file and every image's estimates for each measured one
    unfinished_likelihood = _Name("likelihood.unfinished")  # finished batches of an interrupted one
    schedule = _Name("schedule")  # results of the last study of schedules
    unfinished_schedule = _Name("schedule.unfinished")  # measurements of an interrupted study
    health = _Name("health.json")  # signs of trouble that training showed
    samples = _Name("samples.png")  # of the trained model, beside real images
    plugins = _Name("plugins")  # copies of the plugin files that the run was started with
    trained_on = _Name("trained_on.npy")  # a hash and a sketch of every training image
    trained_levels = _Name("trained_levels.npy")  # statistics of the levels of training images

    def check(self, recipe: Recipe, plugins: Sequence[Path] = ()) -> None:
        """Raises CheckpointError if this is another recipe's folder, or holds something else. It changes nothing.

        Args:
            recipe: The recipe to train here.
            plugins: Plugin files that were loaded for it.
        """
        if self.path.exists() and (reason := not_a_folder(self.path)):
            raise CheckpointError(f"{self.path}: {reason}. Choose another with --out.")
        if self._recipe_is_lost():
            return  # its checkpoints tell whose they are
        if self.resolved_recipe.exists():
            check_same_recipe(self.path, self._recipe_before(plugins), recipe)
        elif self.path.exists() and any(not entry.name.startswith(".") for entry in self.path.iterdir()):
            raise CheckpointError(f"{self.path}: not empty, and not a run folder. Choose another with --out.")

    def _recipe_is_lost(self) -> bool:
        """Returns whether resolved.toml is missing or damaged by the manifest, so that it is written anew."""
        sha256 = self.provenance().kept.get(self.resolved_recipe.name) if self.manifest.exists() else None
        return sha256 is not None and not has_sha256(self.resolved_recipe, sha256)

    def hashes_of(self, recipe: Recipe, text: str) -> dict[str, str]:
        """Returns the SHA-256 of the files that `write_recipe` writes by their names, for the manifest."""
        texts = {self.resolved_recipe.name: dump(recipe), self.given_recipe.name: text}
        return {name: hashlib.sha256(one.encode()).hexdigest() for name, one in texts.items()}

    def check_new(self, option: str) -> None:
        """Raises CheckpointError if the folder is not empty, or is a file. `option` is the option that names it."""
        if self.path.exists() and (reason := not_a_folder(self.path)):
            raise CheckpointError(f"{self.path}: {reason}. Choose another with {option}.")
        if self.path.exists() and any(self.path.iterdir()):
            raise CheckpointError(f"{self.path}: not empty. Choose another folder with {option}.")

    def write_recipe(self, recipe: Recipe, text: str) -> None:
        """Makes this the folder of `recipe`, whose file has the contents `text`."""
        self.path.mkdir(parents=True, exist_ok=True)
        write_text(self.resolved_recipe, dump(recipe))  # first: a run killed here can be continued
        write_text(self.given_recipe, text)

    def keep_plugins(self, sources: Mapping[str, bytes]) -> None:
        """Writes copies of plugin files, given by name, which later commands of this user execute."""
        remember(sources)
        for name, source in sources.items():
            self.plugins.mkdir(exist_ok=True)
            with whole_file(self.plugins / name) as part:
                part.write_bytes(source)

    def kept_plugins(self) -> list[Path]:
        """Returns the copies. Raises CheckpointError if one has changed since the run began."""
        kept = {self.plugins / Path(name).name: sha256 for name, sha256 in self.provenance().plugins.items()}
        for path, sha256 in kept.items():
            check_unchanged(path, sha256, "Put it back.")
        return list(kept)

    def kept(self, path: Path) -> Path | None:
        """Returns a file whose SHA-256 is in the manifest, or that an older run wrote; None if it does not exist.

        Raises CheckpointError if the file has changed since it was written.
        """
        if sha256 := self.provenance().kept.get(path.name):
            advice = "Run the recipe again, which writes it anew; what was trained is not trained again."
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
        """Returns what the run was made from. Raises CheckpointError if its manifest is missing or damaged."""
        return read_provenance(self.manifest)

    def record(self, made: Provenance) -> None:
        """Writes what the run was made from."""
        facts = asdict(made)
        write_json(self.manifest, facts | {"sha256": seal_of(facts)})

    def note_saved(self, step: int, logged: int) -> None:
        """Records in the manifest the newest checkpoint, after it was written, and the number of lines of metrics."""
        self.record(replace(self.provenance(), newest_checkpoint=step, logged=logged))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Locks the folder for this process. Raises CheckpointError if another process has locked it."""
        busy = f"{self.path}: another vdmkit is writing this run. Wait for it, or choose another --out."
        with locked_folder(self.path, CheckpointError(busy)) as problem:
            if problem:
                print(f"{self.path}: {problem}. Start no other vdmkit on this run.", file=sys.stderr)
            yield
