# SPDX-License-Identifier: Apache-2.0
"""Makes a run folder of an imported model, which can be evaluated, sampled and trained further."""

import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vdmkit.checkpoint import CheckpointStore
from vdmkit.data import Identity, Images, batches
from vdmkit.importers import Imported, read_vdm
from vdmkit.run._folder import RunFolder
from vdmkit.run._provenance import Provenance
from vdmkit.training import session


def import_official(checkpoint: Path, config: Path, folder: RunFolder, overrides: Sequence[str]) -> int:
    """Makes `folder` a run of the authors' model: see `read_vdm`. Returns its step.

    Raises:
        CheckpointError: the folder is in use, or as in `read_vdm`.
    """
    folder.check_new("-o")
    return _leave(read_vdm(checkpoint, config, overrides), folder)


def _leave(imported: Imported, folder: RunFolder) -> int:
    recipe, step = imported.recipe, int(imported.state.step)
    folder.path.mkdir(parents=True, exist_ok=True)
    settings = recipe.training
    store = CheckpointStore(folder.checkpoints, keep_last=settings.keep_last, keep_best=settings.keep_best)
    facts = (imported.shape, imported.levels, None, {}, imported.sha256)
    made = Provenance(*facts, [session(step, step)], {}, step, secrets.token_hex(8))
    store.save(step, imported.state, _data_at(step, imported), made.origin(recipe))
    folder.record(made)
    folder.write_recipe(recipe, imported.text)  # last: it marks a run folder
    return step


def _data_at(step: int, imported: Imported) -> Any:
    """Returns the stream of batches at the position after `step` updates, which does not depend on the images."""
    identity = Identity("blank", "train", 1, "", 0.0, 0.0, None)
    blank = Images(np.zeros((1, *imported.shape), np.uint8), imported.levels, identity)
    data = batches(blank, batch_size=imported.recipe.training.batch_size, seed=imported.recipe.seed)
    data.set_state(data.get_state() | {"next_index": step})
    return data
