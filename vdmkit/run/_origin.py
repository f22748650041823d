# SPDX-License-Identifier: Apache-2.0
"""What a checkpoint came from, noted with it, so that a folder never goes on with, or reports, another run's."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from vdmkit.checkpoint import Restored
from vdmkit.errors import CheckpointError
from vdmkit.recipe import Recipe, flat

# These may change when a run is continued: they do not touch what was trained so far.
_MAY_CHANGE = {"data.path", "data.train", "data.test", "evaluation", "sampling"}
_MAY_CHANGE |= {"training.steps", "training.log_every", "training.keep_last", "training.keep_best"}


def may_change(key: str) -> bool:
    """Whether a run may be continued with another value of this recipe key."""
    return any(key == allowed or key.startswith(f"{allowed}.") for allowed in _MAY_CHANGE)


def origin(recipe: Recipe, training_images: str | None, plugins: Iterable[str]) -> dict[str, Any]:
    """The recipe without what may change, and the SHA-256 of the training images (None: unknown) and plugin files.

    The data's own keys are left out: its images say what it is.
    """
    fixed = {key: value for key, value in flat(recipe).items() if not (may_change(key) or key.startswith("data."))}
    text = json.dumps(fixed, sort_keys=True)
    return {
        "recipe settings": hashlib.sha256(text.encode()).hexdigest(),
        "training images": training_images,
        "plugin files": sorted(plugins),
    }


def check_origin(where: Path, restored: Restored, expected: dict[str, Any]) -> None:
    """Raises CheckpointError if a checkpoint in `where` is not of the origin that is expected there."""
    found = restored.meta
    other = [name for name, value in expected.items() if value is not None and found.get(name, "") not in (None, value)]
    if other:
        raise CheckpointError(
            f"{where / str(restored.step)}: this checkpoint was made with other {' and '.join(other)}. "
            "Give the run what it began with, or choose another folder."
        )
    if restored.step != int(restored.state.step):
        raise CheckpointError(
            f"{where / str(restored.step)}: holds the state of step {int(restored.state.step):,}. "
            "Give the folder its old name."
        )
