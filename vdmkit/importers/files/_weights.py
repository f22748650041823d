# SPDX-License-Identifier: Apache-2.0
"""Recognises whose checkpoint a file is, and brings its parameters into dictionaries by the authors' names."""

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from vdmkit.arguments import MAX_COUNT
from vdmkit.errors import CheckpointError
from vdmkit.importers.files._adam import Adam, Arrays, adam_of_old_flax, adam_of_torch, find_adam
from vdmkit.importers.files._diffusers import new_name
from vdmkit.importers.files._limits import shown
from vdmkit.importers.files._list import flat_arrays
from vdmkit.importers.files._plain import PersistentObject
from vdmkit.importers.files._read import Content, read_checkpoint

Family = Literal["vdm", "idode", "mulan", "score_sde", "edm", "openai", "diffusers"]


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
        adam: The optimiser's moments, if the file has them.
    """

    family: str
    ema: Arrays
    raw: Arrays | None = None
    step: int | None = None
    config: dict[str, Any] = field(default_factory=dict)
    adam: Adam | None = None


_SIGNS: tuple[tuple[Family, tuple[str, ...]], ...] = (
    ("mulan", (r"score_model/conv_in/kernel", r"encoder_model/.*")),
    ("vdm", (r"score_model/conv_in/kernel",)),
    ("score_sde", (r"all_modules\.0\.(weight|W)",)),
    ("score_sde", (r"Conv_0/kernel", r"ResnetBlock\w+_0/.*")),
    ("edm", (r"model\.map_layer0\.weight", r"model\.(enc|dec)\.\d+x\d+_.*")),
    ("openai", (r"time_embed\.0\.weight", r"input_blocks\.0\.0\.weight", r"out\.2\.weight")),
    ("diffusers", (r"time_embedding\.linear_1\.weight", r"conv_in\.weight", r"conv_out\.weight")),
)
"""Patterns, each of which is the name of some parameter. The first family of which all are found is the file's."""


def family_of(names: Collection[str], config: Mapping[str, Any] | None = None) -> Family | None:
    """Returns whose network has parameters of these names, or None.

    i-DODE's files have the names of VDM's: they are told apart by the authors' configuration, if it is given. OpenAI's
    improved-diffusion and guided-diffusion share all names, too: both are "openai".
    """
    for family, patterns in _SIGNS:
        if all(any(re.fullmatch(pattern, name) for name in names) for pattern in patterns):
            is_idode = family == "vdm" and config is not None and {"schedule", "dequantization"} <= config.keys()
            return "idode" if is_idode else family
    return None


def read_weights(
    path: Path,
    config: Mapping[str, Any] | None = None,
    recognise: Callable[[Collection[str], Mapping[str, Any] | None], str | None] = family_of,
) -> Weights:
    """Reads a checkpoint and recognises its family.

    Args:
        path: The file, or diffusers' folder.
        config: The authors' configuration, if it is a file of its own.
        recognise: Returns the family by the names of the parameters and the configuration, or None.

    Raises:
        CheckpointError: as `read_checkpoint`, or the parameters are of no known family, or incomplete.
    """
    parts = _parts(read_checkpoint(path))
    family = recognise(parts.ema, config)
    if family is None or (parts.raw is not None and parts.raw.keys() != parts.ema.keys()):
        names = ", ".join(shown(name) for name in list(parts.ema)[:5]) or "none"
        raise CheckpointError(
            f"{path}: the parameters are of no family that is known (the first are {names}). "
            "`vdmkit import --list` shows all of them."
        )
    step = None if parts.step is None else step_in(parts.step, path)
    return Weights(family, parts.ema, parts.raw, step, parts.config, parts.adam)


class _Parts(NamedTuple):
    ema: Arrays
    raw: Arrays | None = None
    step: Any = None
    config: dict[str, Any] = {}  # noqa: RUF012  (which nothing changes)
    adam: Adam | None = None


def _parts(content: Content) -> _Parts:
    tree = content.tree if isinstance(content.tree, dict) else {}
    step = tree.get("step")
    if {"params", "ema_params"} <= tree.keys():
        adam = _adam_of_flax(tree.get("opt_state"), content.path)
        return _Parts(flat_arrays(tree["ema_params"]), flat_arrays(tree["params"]), step, adam=adam)
    if {"optimizer", "params_ema"} <= tree.keys() and isinstance(tree["optimizer"], dict):
        raw = flat_arrays(tree["optimizer"].get("target"))
        return _Parts(flat_arrays(tree["params_ema"]), raw, step, adam=adam_of_old_flax(tree["optimizer"], list(raw)))
    if {"model", "ema"} <= tree.keys() and isinstance(tree["ema"], dict):
        raw = {name.removeprefix("module."): array for name, array in flat_arrays(tree["model"]).items()}
        if family_of(raw) == "score_sde":
            ema = _averaged(raw, tree["ema"].get("shadow_params"), content.path)
            return _Parts(ema, raw, step, adam=adam_of_torch(tree.get("optimizer"), _trained(raw), raw))
    if isinstance(network := tree.get("ema"), PersistentObject):
        return _Parts(network.state_dict(), config=_configuration(tree))
    if content.format == "diffusers":
        return _Parts({new_name(name): array for name, array in flat_arrays(tree).items()}, config=content.config)
    arrays = {name.removeprefix("module."): array for name, array in flat_arrays(tree).items()}
    return _Parts(arrays, step=_step_in_name(content.path))


def _adam_of_flax(opt_state: Any, path: Path) -> Adam | None:
    found = find_adam(opt_state)
    if found is None:
        return None
    return Adam(flat_arrays(found["mu"]), flat_arrays(found["nu"]), step_in(found["count"], path))


def _trained(raw: Arrays) -> list[str]:
    """Returns Score-SDE's trained parameters: neither Fourier frequencies nor `sigmas`."""
    return [name for name in raw if name != "sigmas" and not re.fullmatch(r"all_modules\.0\.W", name)]


def _averaged(raw: Arrays, shadow: Any, path: Path) -> Arrays:
    """Returns Score-SDE's averages by name: a list in the order of the parameters that are trained.

    Fourier frequencies and `sigmas` are not trained, so that they have no average and stay as they are.
    """
    trained = _trained(raw)
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
