# SPDX-License-Identifier: Apache-2.0
"""The folder of a run, with everything that a later command needs."""

import fcntl
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from vdmkit.errors import CheckpointError
from vdmkit.files import file_sha256, whole_file, write_json, write_text
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
        if self.resolved_recipe.exists():
            check_same_recipe(self.path, self._recipe_before(plugins), recipe)
        elif self.path.exists() and any(not entry.name.startswith(".") for entry in self.path.iterdir()):
            raise CheckpointError(f"{self.path}: not empty, and not a run folder. Choose another with --out.")

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
            _check_unchanged(path, sha256, "Put it back.")
        return list(kept)

    def kept(self, path: Path) -> Path | None:
        """Returns a file whose SHA-256 is in the manifest, or that an older run wrote; None if it does not exist.

        Raises CheckpointError if the file has changed since it was written.
        """
        if sha256 := self.provenance().kept.get(path.name):
            advice = "Run the recipe again, which writes it anew; what was trained is not trained again."
            _check_unchanged(path, sha256, advice)
        return path if path.is_file() else None

    def _recipe_before(self, plugins: Sequence[Path]) -> Recipe:
        return load_recipe(self.resolved_recipe, kept=copies_in(self.plugins, plugins))

    def say_new_end(self, recipe: Recipe, plugins: Sequence[Path]) -> None:
        """Prints a line on standard error if `recipe` makes the existing run longer or shorter."""
        if not self.resolved_recipe.exists():
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
        write_json(self.manifest, asdict(made))

    def note_saved(self, step: int) -> None:
        """Records in the manifest that the checkpoint of `step` is the newest, after it was written."""
        self.record(replace(self.provenance(), newest_checkpoint=step))

    def missing_checkpoint(self) -> int | None:
        """Returns the step of the newest checkpoint by the manifest, if its folder is missing."""
        step = self.provenance().newest_checkpoint if self.manifest.exists() else None
        return None if step is None or (self.checkpoints / str(step)).is_dir() else step

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Locks the folder for this process; the system releases the lock however the process ends."""
        made = not self.path.exists()
        self.path.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.path, os.O_RDONLY)
        try:
            self._lock(descriptor)
            yield
        finally:
            os.close(descriptor)
            if made and not any(self.path.iterdir()):
                self.path.rmdir()  # refused before anything was written

    def _lock(self, descriptor: int) -> None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CheckpointError(
                f"{self.path}: another vdmkit is writing this run. Wait for it, or choose another --out."
            ) from None
        except OSError as error:  # NFS, for example, locks no folders
            note = f"{self.path}: this file system has no locks ({error.strerror}). Start no other vdmkit on this run."
            print(note, file=sys.stderr)


def _check_unchanged(path: Path, sha256: str, advice: str) -> None:
    """Raises CheckpointError if a file is missing, or has another SHA-256 than when the run wrote it."""
    if not path.is_file():
        raise CheckpointError(f"{path}: missing. {advice}")
    if file_sha256(path) != sha256:
        raise CheckpointError(f"{path}: changed since the run wrote it. {advice}")
