# SPDX-License-Identifier: Apache-2.0
"""Converts a checkpoint of a different codebase to a recipe and a training state, with its family's importer."""

import abc
import functools
import hashlib
import json
import tempfile
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import tomli_w
from jaxtyping import PyTree

from vdmkit.errors import CheckpointError, VdmkitError, in_one_line
from vdmkit.importers.containers import shown
from vdmkit.importers.formats import Adam, Arrays, Weights, family_of, read_weights, step_in, weight_files
from vdmkit.io import MAX_JSON, TooMuch, file_sha256, not_a_file, read_at_most, writing
from vdmkit.model import DiffusionModel
from vdmkit.plugins import load_plugins
from vdmkit.recipes.build import build_objective, build_optimizer, state_like
from vdmkit.recipes.loading import load_recipe
from vdmkit.recipes.schema import Recipe
from vdmkit.registry import define_kind, registry
from vdmkit.training.optimizers import adamw
from vdmkit.training.step import TrainState

Config = Mapping[str, Any]
"""The authors' configuration, as JSON gives it."""

OF_PLUGIN = ("edm", "idode", "openai", "score_sde")
"""Families of the plugin vdmkit-importers."""


class AbstractImporter(abc.ABC):
    """Builds a recipe from the authors' configuration, and fills its model with their arrays.

    Subclasses define `recipe`, `shape` and `filled`, and `recognises` unless their files are always imported with
    `--family`.
    """

    @abc.abstractmethod
    def recipe(self, config: Config) -> dict[str, Any]:
        """Returns the tables of the recipe.

        Raises:
            CheckpointError: a field is unknown, missing, or has a value that is not supported; all are listed.
        """

    @abc.abstractmethod
    def shape(self, config: Config) -> tuple[int, int, int]:
        """Returns height, width and channels of the images."""

    @abc.abstractmethod
    def filled(self, model: DiffusionModel, arrays: Arrays, config: Config) -> DiffusionModel:
        """Returns the model with its arrays, which are `jax.ShapeDtypeStruct`, replaced by the authors' arrays.

        It may empty `arrays`, so that a large file is in memory only once.

        Raises:
            CheckpointError: paths or shapes do not match; all mismatches are listed.
        """

    def recognises(self, names: Collection[str]) -> bool:
        """Returns whether arrays of these names are of this family; not needed for the families of `family_of`."""
        return False

    def configuration(self, found: Config, given: Config | None) -> Config | None:
        """Returns the configuration, by default the given one; None if it is missing.

        Args:
            found: Configurations in the file: see `Weights`.
            given: The file of --config.
        """
        return given

    def remarks(self, config: Config) -> list[str]:
        """Returns remarks for the user of the imported model, in sentences."""
        return []


define_kind("importer", "a family of other codebases' checkpoints, which `vdmkit import` reads", AbstractImporter)


@dataclass(frozen=True)
class Imported:
    """A recipe, as text and parsed, with its training state.

    `shape` (h, w, c) and `levels` describe its images; `sha256` is the hash of the imported file. `remarks` are for the
    user. `has_raw` is whether the file has raw parameters as well as averaged ones.
    """

    recipe: Recipe
    text: str
    state: TrainState
    shape: tuple[int, int, int]
    levels: int
    sha256: str
    family: str
    has_raw: bool
    remarks: Sequence[str] = ()


def read_imported(
    checkpoint: Path,
    config: Path | None = None,
    overrides: Sequence[str] = (),
    *,
    family: str | None = None,
    plugins: Iterable[Path] = (),
) -> Imported:
    """Returns a checkpoint as a recipe and a state: raw and averaged parameters, the optimiser's moments, and the step.

    If the file has no raw parameters, the averaged ones are used for both. Without moments the optimiser is new.

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
        _check_installed(checkpoint, family)
        registry("importer").get(family)
    given = None if config is None else _read_config(config)
    weights = read_weights(checkpoint, given, lambda names, config: _family(checkpoint, names, config, family))
    component = registry("importer").get(weights.family)
    with component.named("cannot import this file"):
        importer: AbstractImporter = component.build({})
        configuration = importer.configuration(weights.config, given)
        if configuration is None:
            raise CheckpointError(f"{checkpoint}: has no configuration. Give the authors' by --config, as JSON.")
        title = f"{checkpoint.name}, a checkpoint of family {weights.family}"
        try:
            made = described(importer, configuration, title, overrides, plugins)
        except CheckpointError as error:
            raise CheckpointError(f"{config or checkpoint}: {error}") from error
        has_raw, remarks = weights.raw is not None, list(made.remarks)
        state = state_of(checkpoint, importer, made, weights, configuration)
    if weights.step is None:
        remarks.append("The file does not contain its number of updates: reports show step 0.")
    if weights.adam is None:
        remarks.append("The file has no moments of Adam: training on starts with new ones.")
    sha256, family = _sha256(checkpoint), weights.family
    return Imported(made.recipe, made.text, state, made.shape, made.levels, sha256, family, has_raw, remarks)


def _family(checkpoint: Path, names: Collection[str], config: Config | None, wanted: str | None) -> str | None:
    """Returns the family of these names.

    Importers of plugins that recognise the names take precedence over `family_of`, and so does a wanted importer of a
    family that `family_of` does not cover.
    """
    known = registry("importer").components
    recognising = None
    for component in known.values():
        with component.named("cannot be asked for its files"):
            if recognising is None and component.origin != "vdmkit" and component.build({}).recognises(names):
                recognising = component.name
    found = recognising or family_of(names, config)
    if (wanted in known and wanted not in ("vdm", "diffusers", *OF_PLUGIN)) or {found, wanted} == {"vdm", "idode"}:
        return wanted
    if found is None:
        return None
    if wanted not in (None, found):
        raise CheckpointError(f"{checkpoint}: its parameters are of family {found!r}, not {wanted!r}. Omit --family.")
    _check_installed(checkpoint, found)
    return found


def _check_installed(checkpoint: Path, family: str) -> None:
    """Raises CheckpointError, with the package to install, if the family's importer is in a plugin that is missing."""
    if family in registry("importer").components:
        return
    if family == "mulan":
        raise CheckpointError(
            f"{checkpoint}: its parameters are those of MuLAN, whose noise has a gamma for every pixel: a run has one. "
            "`vdmkit_mulan.load` of the plugin vdmkit-mulan reads it and `vdmkit_mulan.bits_per_dim` measures it, in "
            "Python. `pip install -e plugins/vdmkit-mulan` in a checkout of vdmkit installs it."
        )
    if family in OF_PLUGIN:
        raise CheckpointError(
            f"{checkpoint}: family {family!r} is imported by the plugin vdmkit-importers, which is not installed. "
            "`pip install vdmkit[importers]` installs it; in a checkout of vdmkit, `uv sync` or "
            "`pip install -e plugins/vdmkit-importers`."
        )


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


def _sha256(checkpoint: Path) -> str:
    """Returns the hash of the file, or of the concatenated weight files of a folder."""
    if not checkpoint.is_dir():
        return file_sha256(checkpoint)
    hashes = [file_sha256(path) for path in weight_files(checkpoint)]
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()


@dataclass(frozen=True)
class Described:
    """A recipe, parsed and as text, the shape and levels of its images, and remarks for the user."""

    recipe: Recipe
    text: str
    shape: tuple[int, int, int]
    remarks: list[str]
    levels: int = 256


def described(
    importer: AbstractImporter,
    config: Config,
    source: str,
    overrides: Sequence[str] = (),
    plugins: Iterable[Path] = (),
) -> Described:
    """Returns the recipe of a configuration; its first line names the `source`.

    Raises:
        CheckpointError: the configuration cannot be built.
        RecipeError: the recipe is not valid.
    """
    try:
        tables, shape = importer.recipe(config), importer.shape(config)
    except VdmkitError:
        raise
    except Exception as error:  # the configuration may hold anything
        raise CheckpointError(f"the configuration cannot be read: {in_one_line(error)}. Correct it.") from error
    if min(shape) < 1:
        raise CheckpointError(f"the configuration describes images of {_size(shape)}. Correct its size and channels.")
    remarks = [*importer.remarks(config), *_with_data(tables, shape, {one.partition("=")[0] for one in overrides})]
    text = f"# Imported from {source}.\n" + tomli_w.dumps(tables)
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "recipe.toml"
        with writing(path):
            path.write_text(text)
        recipe = load_recipe(path, overrides, plugins)
    return Described(recipe, text, shape, remarks)


def _with_data(tables: dict[str, Any], shape: tuple[int, int, int], given: Collection[str]) -> list[str]:
    """Replaces CIFAR-10 by an .npz file if the model is of other images. Returns remarks on what the user must do."""
    labels = tables["model"]["network"].get("labels", 0)
    if tables["data"] != {"name": "cifar10"} or (shape == (32, 32, 3) and labels in (0, 10)):
        return []
    tables["data"] = {"name": "npz", "path": "images.npz"}
    size = _size(shape) + (f", of {labels} classes" if labels else "")
    remarks = []
    if not {"data", "data.path", "data.name"} & set(given):
        remarks += [f"Its images are {size}, not CIFAR-10: put them into images.npz, or --set data.path or data.name."]
    if labels and not {"data", "data.classes"} & set(given):
        wanted = f"import it with --set data.classes={labels} and arrays train_labels and test_labels in the file"
        remarks += [f"To train on, or measure images given their labels, {wanted}."]
    return remarks


def _size(shape: tuple[int, int, int]) -> str:
    return " x ".join(map(str, shape))


def state_of(path: Path, importer: AbstractImporter, made: Described, weights: Weights, config: Config) -> TrainState:
    """Returns the state of the recipe with the arrays of `weights`.

    Raises:
        CheckpointError: they do not fit the model or are not finite, or the model has parameters that the file lacks.
    """
    recipe, template = made.recipe, state_like(made.recipe, made.shape, made.levels).model

    def fill(arrays: Arrays) -> DiffusionModel:
        broken = [name for name, array in arrays.items() if not _is_finite(array)]
        try:
            model = importer.filled(template, arrays, config)
            _check_whole(model)
            _check_finite(model, broken)
        except CheckpointError as error:
            raise CheckpointError(f"{path}: {error}") from error
        return model

    ema = fill(weights.ema)
    model = ema if weights.raw is None else fill(weights.raw)
    opt_state = _opt_state(recipe, model, weights.adam, fill, path)
    step = jnp.asarray(weights.step or 0, jnp.int32)
    return TrainState(model, _parameters(ema), opt_state, step, build_objective(recipe))


def _opt_state(
    recipe: Recipe, model: DiffusionModel, adam: Adam | None, fill: Callable[[Arrays], DiffusionModel], path: Path
) -> PyTree:
    """Returns the optimiser's state; of AdamW with the moments in the file, if it has them."""
    init = build_optimizer(recipe).init
    if recipe.optimizer.component.target is not adamw:
        return init(_parameters(model))
    zeros = functools.cache(jnp.zeros)  # zeros of the same shape are shared, since the state is only saved
    shapes = eqx.filter_eval_shape(init, _parameters(model))
    fresh = jax.tree.map(lambda leaf: zeros(leaf.shape, leaf.dtype), shapes)
    if adam is None:
        return fresh
    mu, nu = (_parameters(fill(moments)) for moments in (adam.mu, adam.nu))
    count = jnp.asarray(step_in(adam.count, path), jnp.int32)
    return optax.tree_utils.tree_set(fresh, mu=mu, nu=nu, count=count)


def _parameters(model: DiffusionModel) -> Any:
    return eqx.filter(model, eqx.is_inexact_array)


def _is_finite(array: Any) -> bool:
    return not jnp.issubdtype(array.dtype, jnp.inexact) or bool(np.isfinite(array).all())


def _check_finite(model: DiffusionModel, broken: Sequence[str]) -> None:
    """Raises CheckpointError if the model has a non-finite number; `broken` names the file's non-finite arrays.

    Constants that the model does not use are exempt.
    """
    if all(map(_is_finite, jax.tree.leaves(_parameters(model)))):
        return
    named = ", ".join(map(shown, broken[:5])) + (", ..." if len(broken) > 5 else "")
    what = f"NaN or infinite numbers are in {named}" if broken else "numbers are too large for float32"
    raise CheckpointError(f"{what}: training had diverged, or the file is damaged. Fetch it again, or an earlier one.")


def _check_whole(model: DiffusionModel) -> None:
    """Raises CheckpointError if the model has arrays that the file did not give it."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(model)
    missing = [
        jax.tree_util.keystr(path, simple=True, separator="/")
        for path, leaf in leaves
        if isinstance(leaf, jax.ShapeDtypeStruct)
    ]
    if missing:
        raise CheckpointError(
            f"the recipe's model has parameters that are not in the file: {', '.join(missing[:5])}. "
            "Omit the --set that adds them."
        )
