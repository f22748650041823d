# SPDX-License-Identifier: Apache-2.0
"""Reads a checkpoint of another codebase, by the importer of its family."""

import hashlib
import json
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

from vdmkit.errors import CheckpointError
from vdmkit.importers._described import described
from vdmkit.importers._imported import Imported
from vdmkit.importers._importer import AbstractImporter, Config
from vdmkit.importers._state import state_of
from vdmkit.importers.files._diffusers import weight_files
from vdmkit.importers.files._weights import Weights, family_of, read_weights
from vdmkit.io import MAX_JSON, TooMuch, file_sha256, not_a_file, read_at_most
from vdmkit.plugins import load_plugins
from vdmkit.registry import Component, registry


def read_imported(
    checkpoint: Path,
    config: Path | None = None,
    overrides: Sequence[str] = (),
    *,
    family: str | None = None,
    plugins: Iterable[Path] = (),
) -> Imported:
    """Returns a checkpoint as a recipe and a state: raw and averaged parameters, the optimiser's moments, and the step.

    A file without raw parameters gives its averaged ones for both, and one without moments a new optimiser.

    Args:
        checkpoint: The file, or diffusers' folder.
        config: The JSON of the authors' configuration; not needed if the file has it.
        overrides: Recipe keys in the form of `--set`.
        family: The importer. By default it is recognised by the names of the file's arrays.
        plugins: Python files that register components, such as importers.

    Raises:
        CheckpointError: a file cannot be read, or the configuration does not fit the checkpoint.
        RegistryError: there is no importer of this name.
    """
    load_plugins(plugins)
    if family is not None:
        registry("importer").get(family)
    given = None if config is None else _read_config(config)
    source = config or checkpoint
    weights = read_weights(checkpoint, given, lambda names, config: _family(checkpoint, names, config, family))
    component = registry("importer").get(weights.family)
    with component.named("cannot import this file"):
        return _imported(checkpoint, source, component.build({}), weights, given, overrides, plugins)


def _imported(
    checkpoint: Path,
    source: Path,
    importer: AbstractImporter,
    weights: Weights,
    given: Config | None,
    overrides: Sequence[str],
    plugins: Iterable[Path],
) -> Imported:
    config = importer.configuration(weights.config, given)
    if config is None:
        raise CheckpointError(f"{checkpoint}: has no configuration. Give the authors' by --config, as JSON.")
    title = f"{checkpoint.name}, a checkpoint of family {weights.family}"
    try:
        made = described(importer, config, title, overrides, plugins)
    except CheckpointError as error:
        raise CheckpointError(f"{source}: {error}") from error
    state = state_of(checkpoint, importer, made, weights, config)
    facts = (made.shape, made.levels, _sha256(checkpoint), weights.family, weights.raw is not None)
    return Imported(made.recipe, made.text, state, *facts, [*made.remarks, *_remarks(weights)])


def _family(checkpoint: Path, names: Collection[str], config: Config | None, wanted: str | None) -> str | None:
    """Returns the family of these names. A plugin's importer takes precedence, as does the one that is wanted."""
    foreign = [one for one in registry("importer").components.values() if one.origin != "vdmkit"]
    found = next((one.name for one in foreign if _recognises(one, names)), None) or family_of(names, config)
    if wanted in {one.name for one in foreign} or {found, wanted} == {"vdm", "idode"}:
        return wanted
    if found is None or wanted is None:
        return _with_importer(checkpoint, found)
    if found != wanted:
        raise CheckpointError(f"{checkpoint}: its parameters are of family {found!r}, not {wanted!r}. Omit --family.")
    return found


def _recognises(component: Component, names: Collection[str]) -> bool:
    with component.named("cannot be asked for its files"):
        return component.build({}).recognises(names)


def _with_importer(checkpoint: Path, family: str | None) -> str | None:
    known = registry("importer").components
    if family == "mulan" and family not in known:
        raise CheckpointError(
            f"{checkpoint}: its parameters are those of MuLAN, whose noise has a gamma for every pixel: a run has one. "
            "`vdmkit_mulan.load` of the plugin vdmkit-mulan reads it and `vdmkit_mulan.bits_per_dim` measures it, in "
            "Python. `pip install -e plugins/vdmkit-mulan` in a checkout of vdmkit installs it."
        )
    if family is not None and family not in known:
        raise CheckpointError(
            f"{checkpoint}: its parameters are of family {family!r}, which cannot be imported yet. "
            f"Known: {', '.join(sorted(known))}."
        )
    return family


def _read_config(path: Path) -> dict[str, Any]:
    if reason := not_a_file(path):
        raise CheckpointError(f"{path}: {reason}. Give the authors' configuration as JSON.")
    try:
        config = json.loads(read_at_most(path, MAX_JSON))
    except (OSError, ValueError, RecursionError, TooMuch) as error:
        raise CheckpointError(f"{path}: cannot be read as JSON: {error}.") from error
    if not isinstance(config, dict):
        raise CheckpointError(f"{path}: expected a JSON object with the fields of the authors' configuration.")
    return config


def _remarks(weights: Weights) -> list[str]:
    remarks = []
    if weights.step is None:
        remarks.append("The file does not say after how many updates it was saved: reports say step 0.")
    if weights.adam is None:
        remarks.append("The file has no moments of Adam: training on starts with new ones.")
    return remarks


def _sha256(checkpoint: Path) -> str:
    """Returns the hash of the file, or of a folder's files of weights one after the other."""
    if not checkpoint.is_dir():
        return file_sha256(checkpoint)
    hashes = [file_sha256(path) for path in weight_files(checkpoint)]
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()
