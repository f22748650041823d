# SPDX-License-Identifier: Apache-2.0
"""Makes a run folder of an imported model, which can be evaluated, sampled and trained further."""

import secrets
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from vdmkit.data.batches import batches
from vdmkit.data.sources import Identity, Images
from vdmkit.experiments.folder import Provenance, RunFolder
from vdmkit.importers.loader import Imported, read_imported
from vdmkit.io import whole_folder
from vdmkit.plugins import plugin_sources
from vdmkit.training.checkpoints import CheckpointStore
from vdmkit.training.loop import session


def import_checkpoint(checkpoint: Path, folder: RunFolder, plugins: Sequence[Path] = (), **how: Any) -> Imported:
    """Makes `folder` a run of the model in a checkpoint; keyword arguments are passed to `read_imported`.

    Raises:
        CheckpointError: the folder is in use, or as in `read_imported`.
    """
    folder.check_new("-o")
    imported = read_imported(checkpoint, plugins=plugins, **how)
    with whole_folder(folder.path) as part:
        _save(imported, RunFolder(part), plugins)
    return imported


def _save(imported: Imported, folder: RunFolder, plugins: Sequence[Path]) -> None:
    recipe, step = imported.recipe, int(imported.state.step)
    hashes = {name: sha256(source).hexdigest() for name, source in plugin_sources(plugins).items()}
    store = CheckpointStore(folder.checkpoints, keep_last=1, keep_best=0, frugal=True)
    kept, name = folder.hashes_of(recipe, imported.text), secrets.token_hex(8)
    began = None, hashes, imported.sha256, [session(step, step)], kept, step, 0, name
    made = Provenance(imported.shape, imported.levels, *began)
    store.save(step, imported.state, _data_at(step, imported), made.origin(recipe))
    folder.record(made)
    folder.keep_plugins(plugin_sources(plugins))
    folder.write_recipe(recipe, imported.text)


def _data_at(step: int, imported: Imported) -> Any:
    """Returns the state of the batch iterator after `step` updates, which does not depend on the images."""
    identity = Identity("blank", "train", 1, "", 0.0, 0.0, None)
    blank = Images(np.zeros((1, *imported.shape), np.uint8), imported.levels, identity)
    data = batches(blank, batch_size=imported.recipe.training.batch_size, seed=imported.recipe.seed)
    data.set_state(data.get_state() | {"next_index": step})
    return data
