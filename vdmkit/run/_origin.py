# SPDX-License-Identifier: Apache-2.0
"""The origin of a checkpoint, stored with it, so that a run does not continue from or report another run's."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

from vdmkit.checkpoint import Restored
from vdmkit.errors import CheckpointError
from vdmkit.recipe import Recipe, flat
from vdmkit.registry import Choice

# These may change when a run is continued, because they do not affect what was trained so far.
_MAY_CHANGE = {"data.path", "data.train", "data.test", "evaluation", "likelihood", "sampling"}
_MAY_CHANGE |= {"training.steps", "training.log_every", "training.keep_last", "training.keep_best"}


def may_change(key: str) -> bool:
    """Returns whether a run may be continued with another value of this recipe key."""
    return any(key == allowed or key.startswith(f"{allowed}.") for allowed in _MAY_CHANGE)


@dataclass(frozen=True)
class Origin:
    """The origin of a checkpoint. None means unknown (training images) or not imported.

    `components` are those from installed plugin packages, because two packages may register the same name.
    """

    recipe: str
    plugins: tuple[str, ...]
    images: str | None
    imported: str | None
    components: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"plugins": list(self.plugins), "components": list(self.components)}

    def check(self, where: Path, restored: Restored) -> None:
        """Raises CheckpointError if a checkpoint in `where` has another origin."""
        found = {"components": list(self.components)} | restored.meta  # older checkpoints do not record it
        step = f"{where / str(restored.step)}"
        other = [words for name, words in _WORDS.items() if found.get(name, "") != self.as_json()[name]]
        if self.imported and None in (self.images, found.get("images", "")):
            other = [words for words in other if words != _WORDS["images"]]
        if other:
            raise CheckpointError(
                f"{step}: this checkpoint was made with other {' and '.join(other)}. "
                "Give the run what it began with, or choose another folder."
            )
        if restored.step != int(restored.state.step):
            raise CheckpointError(
                f"{step}: holds the state of step {int(restored.state.step):,}. Give the folder its old name."
            )


_WORDS = {"recipe": "recipe settings", "plugins": "plugin files", "images": "training images"}
_WORDS |= {"imported": "imported parameters", "components": "packages of its components"}


def origin_of(recipe: Recipe, plugins: Iterable[str], images: str | None = None, imported: str | None = None) -> Origin:
    """Returns the origin: the recipe without keys that may change, and hashes; `images` replaces the recipe's data."""
    fixed = {key: value for key, value in flat(recipe).items() if not (may_change(key) or key.startswith("data."))}
    digest = hashlib.sha256(json.dumps(fixed, sort_keys=True).encode()).hexdigest()
    foreign = {str(one.component) for one in _choices(recipe) if one.component.is_of_package}
    return Origin(digest, tuple(sorted(plugins)), images, imported, tuple(sorted(foreign)))


def _choices(value: Any) -> Iterator[Choice]:
    """Yields the components that affect training."""
    if isinstance(value, Choice):
        yield from value.nested()
    elif is_dataclass(value):
        value = tuple(getattr(value, field.name) for field in fields(value) if not may_change(field.name))
    if isinstance(value, tuple):
        for part in value:
            yield from _choices(part)


def name_of_images(sha256: str, shape: Iterable[int], levels: int) -> str:
    """Returns a string that identifies a training set: the hash of its bytes, its shape and its levels."""
    return f"{sha256} {'x'.join(map(str, shape))} {levels} levels"
