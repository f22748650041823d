# SPDX-License-Identifier: Apache-2.0
"""What a checkpoint came from, noted with it, so that a folder never goes on with, or reports, another run's."""

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

# These may change when a run is continued: they do not touch what was trained so far.
_MAY_CHANGE = {"data.path", "data.train", "data.test", "evaluation", "likelihood", "sampling"}
_MAY_CHANGE |= {"training.steps", "training.log_every", "training.keep_last", "training.keep_best"}


def may_change(key: str) -> bool:
    """Whether a run may be continued with another value of this recipe key."""
    return any(key == allowed or key.startswith(f"{allowed}.") for allowed in _MAY_CHANGE)


@dataclass(frozen=True)
class Origin:
    """What a checkpoint was made with. None: not known (training images), or not the case (imported file).

    `components` are those of installed plugin packages: two packages may hold one name, and only one of them load.
    """

    recipe: str
    plugins: tuple[str, ...]
    images: str | None
    imported: str | None
    components: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"plugins": list(self.plugins), "components": list(self.components)}

    def check(self, where: Path, restored: Restored) -> None:
        """Raises CheckpointError if a checkpoint in `where` is not of this origin."""
        found = {"components": list(self.components)} | restored.meta  # older checkpoints do not say
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
    """From the recipe without what may change, and hashes of the rest; `images` stands for the recipe's data."""
    fixed = {key: value for key, value in flat(recipe).items() if not (may_change(key) or key.startswith("data."))}
    digest = hashlib.sha256(json.dumps(fixed, sort_keys=True).encode()).hexdigest()
    foreign = {str(one.component) for one in _choices(recipe) if one.component.is_of_package}
    return Origin(digest, tuple(sorted(plugins)), images, imported, tuple(sorted(foreign)))


def _choices(value: Any) -> Iterator[Choice]:
    """Of what was trained: all but what may change."""
    if isinstance(value, Choice):
        yield from value.nested()
    elif is_dataclass(value):
        value = tuple(getattr(value, field.name) for field in fields(value) if not may_change(field.name))
    if isinstance(value, tuple):
        for part in value:
            yield from _choices(part)


def name_of_images(sha256: str, shape: Iterable[int], levels: int) -> str:
    """What tells training sets apart: the bytes, and how they are read."""
    return f"{sha256} {'x'.join(map(str, shape))} {levels} levels"
