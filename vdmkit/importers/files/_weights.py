# SPDX-License-Identifier: Apache-2.0
"""Recognises whose checkpoint a file is, and brings its parameters into dictionaries by the authors' names."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Shaped

from vdmkit.errors import CheckpointError
from vdmkit.importers.files._diffusers import new_name
from vdmkit.importers.files._limits import shown
from vdmkit.importers.files._list import flat_arrays
from vdmkit.importers.files._plain import PersistentObject
from vdmkit.importers.files._read import Content, read_checkpoint
from vdmkit.limits import MAX_COUNT

Arrays = dict[str, Shaped[np.ndarray, "..."]]
Family = Literal["vdm", "idode", "mulan", "score_sde", "score_sde_flax", "edm", "openai", "diffusers"]


@dataclass(frozen=True)
class Weights:
    """A network's parameters and buffers under the authors' names and in their layout.

    Attributes:
        family: Whose network it is.
        ema: The averaged parameters, or the only ones of a file that has one set.
        raw: The parameters of training, if the file has them too.
        step: Number of updates, if the file or its name says so.
        config: The configuration, if the file has one: of EDM's pickles `network`, `loss_fn`, `augment_pipe` and
            `dataset_kwargs`; of diffusers' folders `unet`, `scheduler` and `pipeline`.
    """

    family: Family
    ema: Arrays
    raw: Arrays | None = None
    step: int | None = None
    config: dict[str, Any] = field(default_factory=dict)


_SIGNS: dict[Family, tuple[str, ...]] = {
    "mulan": (r"score_model/conv_in/kernel", r"encoder_model/.*"),
    "vdm": (r"score_model/conv_in/kernel",),
    "score_sde": (r"all_modules\.0\.(weight|W)",),
    "score_sde_flax": (r"Conv_0/kernel", r"ResnetBlock\w+_0/.*"),
    "edm": (r"model\.map_layer0\.weight", r"model\.(enc|dec)\.\d+x\d+_.*"),
    "openai": (r"time_embed\.0\.weight", r"input_blocks\.0\.0\.weight", r"out\.2\.weight"),
    "diffusers": (r"time_embedding\.linear_1\.weight", r"conv_in\.weight", r"conv_out\.weight"),
}
"""Patterns, each of which is the name of some parameter. The first family of which all are found is the file's."""


def family_of(names: Collection[str], config: Mapping[str, Any] | None = None) -> Family | None:
    """Returns whose network has parameters of these names, or None.

    i-DODE's files have the names of VDM's: they are told apart by the authors' configuration, if it is given. OpenAI's
    improved-diffusion and guided-diffusion share all names, too: both are "openai".
    """
    for family, patterns in _SIGNS.items():
        if all(any(re.fullmatch(pattern, name) for name in names) for pattern in patterns):
            is_idode = family == "vdm" and config is not None and {"schedule", "dequantization"} <= config.keys()
            return "idode" if is_idode else family
    return None


def read_weights(path: Path, config: Mapping[str, Any] | None = None) -> Weights:
    """Reads a checkpoint and recognises its family.

    Args:
        path: The file, or diffusers' folder.
        config: The authors' configuration, if it is a file of its own.

    Raises:
        CheckpointError: as `read_checkpoint`, or the parameters are of no known family, or incomplete.
    """
    content = read_checkpoint(path)
    ema, raw, step, found = _parts(content)
    family = family_of(ema, config)
    if family is None or (raw is not None and raw.keys() != ema.keys()):
        names = ", ".join(shown(name) for name in list(ema)[:5]) or "none"
        raise CheckpointError(
            f"{path}: the parameters are of no family that is known (the first are {names}). "
            "`vdmkit import --list` shows all of them."
        )
    return Weights(family, ema, raw, None if step is None else step_in(step, path), found)


def _parts(content: Content) -> tuple[Arrays, Arrays | None, Any, dict[str, Any]]:
    """Returns the averaged and the raw parameters, the step and the configuration."""
    tree = content.tree if isinstance(content.tree, dict) else {}
    step = tree.get("step")
    if {"params", "ema_params"} <= tree.keys():
        return flat_arrays(tree["ema_params"]), flat_arrays(tree["params"]), step, {}
    if {"optimizer", "params_ema"} <= tree.keys() and isinstance(tree["optimizer"], dict):
        return flat_arrays(tree["params_ema"]), flat_arrays(tree["optimizer"].get("target")), step, {}
    if {"model", "ema"} <= tree.keys() and isinstance(tree["ema"], dict):
        raw = {name.removeprefix("module."): array for name, array in flat_arrays(tree["model"]).items()}
        if family_of(raw) == "score_sde":
            return _averaged(raw, tree["ema"].get("shadow_params"), content.path), raw, step, {}
    if isinstance(network := tree.get("ema"), PersistentObject):
        return network.state_dict(), None, None, _configuration(tree)
    if content.format == "diffusers":
        return {new_name(name): array for name, array in flat_arrays(tree).items()}, None, None, content.config
    arrays = {name.removeprefix("module."): array for name, array in flat_arrays(tree).items()}
    return arrays, None, _step_in_name(content.path), {}


def _averaged(raw: Arrays, shadow: Any, path: Path) -> Arrays:
    """Returns Score-SDE's averages by name: a list in the order of the parameters that are trained.

    Fourier frequencies and `sigmas` are not trained, so that they have no average and stay as they are.
    """
    trained = [name for name in raw if name != "sigmas" and not re.fullmatch(r"all_modules\.0\.W", name)]
    shapes = [getattr(array, "shape", None) for array in shadow] if isinstance(shadow, list) else []
    if shapes != [raw[name].shape for name in trained]:
        raise CheckpointError(
            f"{path}: its {len(shapes)} averages do not fit its {len(trained)} trained parameters in number and shape. "
            "Is it a checkpoint of score_sde_pytorch?"
        )
    return raw | dict(zip(trained, shadow, strict=True))


def _configuration(tree: dict[str, Any]) -> dict[str, Any]:
    """Returns what EDM's pickle says of its objects, without their tensors."""
    objects = {"network": tree["ema"]} | {name: tree.get(name) for name in ("loss_fn", "augment_pipe")}
    described = {name: _described(one) for name, one in objects.items() if isinstance(one, PersistentObject)}
    return described | {"dataset_kwargs": tree.get("dataset_kwargs")}


def _described(one: PersistentObject) -> dict[str, Any]:
    return {
        "class_name": one.class_name,
        "arguments": one.arguments,
        "keywords": one.keywords,
        "attributes": one.attributes,
    }


def step_in(value: Any, path: Path) -> int:
    """Returns the number of updates that a file gives as a number or as an array. Raises CheckpointError for others."""
    number = np.asarray(value if isinstance(value, int | np.integer | np.ndarray) else None)
    if number.size != 1 or number.dtype.kind not in "iu" or not 0 <= int(number.reshape(())) <= MAX_COUNT:
        raise CheckpointError(f"{path}: its step is not a number of updates. Fetch it again.")
    return int(number.reshape(()))


def _step_in_name(path: Path) -> int | None:
    """Returns the step in the names of OpenAI's files, such as ema_0.9999_500000.pt and model500000.pt."""
    found = re.fullmatch(r"(?:ema_[\d.]+_|model)(\d{6,9})\.pt", path.name)
    return int(found[1]) if found else None
