# SPDX-License-Identifier: Apache-2.0
"""Reads checkpoint files. Detects the format by the first bytes, and the family by the names of the arrays."""

import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple

import numpy as np
from jaxtyping import Shaped

from vdmkit.arguments import MAX_COUNT
from vdmkit.errors import CheckpointError, in_one_line
from vdmkit.importers.containers import Archive, Malformed, read_flax, read_npz, read_safetensors, shown
from vdmkit.importers.pickles import MAGIC, PersistentObject, read_edm_pickle, read_torch_legacy, read_torch_zip
from vdmkit.io import not_a_file, not_a_folder, read_json

Format = Literal["torch", "torch before 1.6", "pickle", "safetensors", "flax", "npz", "diffusers"]

_KNOWN = "torch (zip or older), EDM's pickles, safetensors, Flax's msgpack, npz and diffusers' folders"


@dataclass(frozen=True)
class Content:
    """Contents of a checkpoint.

    Attributes:
        path: The file, or diffusers' folder.
        format: File format.
        tree: Nested dicts, lists and tuples of NumPy arrays, numbers and text, and EDM's `PersistentObject`.
        config: The JSON in diffusers' folders.
    """

    path: Path
    format: Format
    tree: Any
    config: dict[str, Any] = field(default_factory=dict)


def read_checkpoint(path: Path) -> Content:
    """Reads a checkpoint of a different codebase. Nothing in it is executed, and nothing is written.

    Peak memory is one copy of the arrays in the file, and a second copy of the largest one.

    Raises:
        CheckpointError: it is missing, truncated, damaged, of an unknown format, or holds anything but plain data.
    """
    if not not_a_folder(path):
        return _read_folder(path)
    if reason := not_a_file(path):
        raise CheckpointError(f"{path}: {reason}. Formats that are read: {_KNOWN}.")
    try:
        with path.open("rb") as file:
            return Content(path, *_read_file(file, os.fstat(file.fileno()).st_size))
    except _Unknown:
        advice = "Give one of these, or fetch it again."
        raise CheckpointError(f"{path}: of no format that is read ({_KNOWN}), or damaged. {advice}") from None
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror}). Give a file that can.") from error
    except Exception as error:  # damaged bytes raise errors of many types
        reason = str(error) if isinstance(error, Malformed) else in_one_line(error)
        raise CheckpointError(
            f"{path}: cannot be read as a checkpoint: {reason}. Nothing in it was executed. "
            "Fetch it again, from a source that you trust."
        ) from error


class _Unknown(Exception):
    """The file has an unsupported format."""


def _read_file(file: BinaryIO, size: int) -> tuple[Format, Any]:
    head = file.read(16)
    file.seek(0)
    if head.startswith(b"PK"):
        return _read_zip(Archive(file, size))
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 2**40:
        return "safetensors", read_safetensors(file, size)
    if head.startswith(MAGIC):
        return "torch before 1.6", read_torch_legacy(file, size)
    if head[:1] == b"\x80" and head[1:2] in (b"\2", b"\3", b"\4", b"\5"):
        return "pickle", read_edm_pickle(file, size)
    if b"\x81" <= head[:1] <= b"\x8f" or head[:1] in (b"\xde", b"\xdf"):
        return "flax", read_flax(file, size)
    raise _Unknown


def _read_zip(archive: Archive) -> tuple[Format, Any]:
    if any(name.endswith("/data.pkl") for name in archive.names):
        return "torch", read_torch_zip(archive)
    if all(name.endswith(".npy") for name in archive.names):
        return "npz", read_npz(archive)
    raise _Unknown


def _read_folder(folder: Path) -> Content:
    if not is_diffusers(folder):
        raise CheckpointError(
            f"{folder}: {not_a_file(folder)}, or a folder of diffusers with config.json. Give one of these."
        )
    config, arrays = configuration(folder), {}
    for path in weight_files(folder):
        part = read_checkpoint(path).tree
        if not isinstance(part, dict) or arrays.keys() & part.keys():
            raise CheckpointError(f"{path}: not a part of a network's weights. Fetch the folder again.")
        arrays |= part
    return Content(folder, "diffusers", arrays, config)


@dataclass(frozen=True)
class TensorFacts:
    """Summary of a tensor of a checkpoint; `sum` is the sum of its elements in float64."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    sum: float

    @property
    def printable(self) -> str:
        """The name in printable form, truncated if it is long."""
        return shown(self.name)


def list_tensors(tree: Any) -> list[TensorFacts]:
    """Returns a summary of every tensor in the tree of a `Content`."""
    arrays = flat_arrays(tree).items()
    return [TensorFacts(name, array.shape, array.dtype.name, float(_sum(array))) for name, array in arrays]


def flat_arrays(tree: Any) -> dict[str, Shaped[np.ndarray, "..."]]:
    """Returns every array by its path: keys of dictionaries and indices of lists, joined by '/'.

    An object of EDM's pickles is replaced by its state dict, so its tensors have torch's dotted names.
    """
    return dict(_walk(tree, ""))


def _walk(tree: Any, name: str) -> Iterator[tuple[str, Shaped[np.ndarray, "..."]]]:
    if isinstance(tree, np.ndarray):
        yield name, tree
        return
    if isinstance(tree, PersistentObject):
        tree = tree.state_dict()
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list | tuple) else ()
    for key, item in items:
        yield from _walk(item, f"{name}/{key}" if name else str(key))


def _sum(array: Shaped[np.ndarray, "..."]) -> Any:
    with np.errstate(all="ignore"):  # infinities of both signs
        return np.sum(array, dtype=np.float64)


Arrays = dict[str, Shaped[np.ndarray, "..."]]


@dataclass(frozen=True)
class Adam:
    """Adam's first and second moments, by the names of the parameters, and its number of updates."""

    mu: Arrays
    nu: Arrays
    count: Any


_OF_TORCH, _OF_OLD_FLAX = ("exp_avg", "exp_avg_sq"), ("grad_ema", "grad_sq_ema")


def find_adam(tree: Any) -> Mapping[str, Any] | None:
    """Finds the map of Adam's moments, whose position in opt_state depends on the versions of Flax and optax."""
    if not isinstance(tree, dict):
        return None
    if {"count", "mu", "nu"} <= tree.keys():
        return tree
    return next((found for child in tree.values() if (found := find_adam(child))), None)


def adam_of_torch(optimizer: Any, trained: list[str], raw: Arrays) -> Adam | None:
    """Returns the state of torch's Adam, which numbers the trained parameters; None before its first update."""
    state = optimizer.get("state") if isinstance(optimizer, dict) else None
    found: list[Any] = [state.get(i) for i in range(len(trained))] if isinstance(state, dict) else []
    if not found or not all(isinstance(one, dict) for one in found):
        return None
    mu, nu = ({name: one.get(key) for name, one in zip(trained, found, strict=True)} for key in _OF_TORCH)
    return Adam(raw | mu, raw | nu, _whole(found[0].get("step")))


def _whole(step: Any) -> Any:
    """Converts torch's number of updates, a float since version 1.12, to an integer if it is whole."""
    is_float = isinstance(step, np.ndarray) and step.dtype.kind == "f" and step.size == 1
    return int(step.item()) if is_float and step.item().is_integer() else step


def adam_of_old_flax(optimizer: Any, trained: list[str]) -> Adam | None:
    """Returns the state of Adam in `flax.optim`, of before Flax 0.6; None for a different optimiser."""
    state = optimizer.get("state") if isinstance(optimizer, dict) else None
    if not isinstance(state, dict):
        return None
    found = flat_arrays(state.get("param_states"))
    if not trained or not all(f"{name}/{key}" in found for name in trained for key in _OF_OLD_FLAX):
        return None
    mu, nu = ({name: found[f"{name}/{key}"] for name in trained} for key in _OF_OLD_FLAX)
    return Adam(mu, nu, state.get("step"))


Family = Literal["vdm", "idode", "mulan", "score_sde", "edm", "openai", "diffusers"]


@dataclass(frozen=True)
class Weights:
    """A network's parameters and buffers under the authors' names and in their layout.

    Attributes:
        family: Name of the family that the network belongs to.
        ema: The averaged parameters, or the only set of parameters in the file.
        raw: The raw (not averaged) parameters, if the file has both.
        step: Number of updates, if the file or its name gives it.
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
"""Each pattern matches the name of some parameter. The first family with all of them found is the file's."""


def family_of(names: Collection[str], config: Mapping[str, Any] | None = None) -> Family | None:
    """Returns the family with parameters of these names, or None.

    i-DODE's files have the names of VDM's: only the authors' configuration, if given, distinguishes them. OpenAI's
    improved-diffusion and guided-diffusion also share all names: both are "openai".
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
        config: The authors' configuration, if it is a separate file.
        recognise: Maps the names of the parameters and the configuration to a family, or None.

    Raises:
        CheckpointError: as in `read_checkpoint`; or the family of the parameters is unknown, or they are incomplete.
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

    Fourier frequencies and `sigmas` are not trained, so they have no average and are kept unchanged.
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
    """Returns the arguments and attributes of the objects in EDM's pickle, without their tensors."""
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


_WEIGHTS = "diffusion_pytorch_model"
_PART = re.compile(r"[\w.-]+\.safetensors")
_LARGEST_JSON = 10_000_000
_OLD_NAMES = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
"""Attention in files of before diffusers 0.13, to which the files of the Hub's DDPMs belong."""


def weight_files(folder: Path) -> list[Path]:
    """Returns the files of the network's weights: one, or the parts that an index lists.

    Raises:
        CheckpointError: there are no weights, or the index cannot be read or names a file outside the folder.
    """
    network = _network(folder)
    index = network / f"{_WEIGHTS}.safetensors.index.json"
    if not not_a_file(index):
        named = _json(index).get("weight_map")
        names = list(named.values()) if isinstance(named, dict) else []
        if not (names and all(isinstance(name, str) and _PART.fullmatch(name) for name in names)):
            raise CheckpointError(
                f"{index}: its weight_map does not name files of this folder. Fetch the folder again."
            )
        return [network / name for name in sorted(set(names))]
    for suffix in ("safetensors", "bin"):
        if not not_a_file(network / f"{_WEIGHTS}.{suffix}"):
            return [network / f"{_WEIGHTS}.{suffix}"]
    raise CheckpointError(f"{network}: holds no {_WEIGHTS}.safetensors, nor .bin. Fetch the whole folder.")


def configuration(folder: Path) -> dict[str, Any]:
    """Returns the JSON of the network and, where they exist, of the scheduler and the pipeline.

    Raises:
        CheckpointError: the configuration of the network is missing, or a file cannot be read.
    """
    network = _network(folder)
    places = {
        "unet": network / "config.json",
        "scheduler": _part(folder, "scheduler") / "scheduler_config.json",
        "pipeline": folder / "model_index.json",
    }
    return {name: _json(path) for name, path in places.items() if name == "unet" or not not_a_file(path)}


def new_name(name: str) -> str:
    """Returns a parameter's name in current versions of diffusers."""
    *parents, module, last = name.split(".") if "." in name else ["", name]
    is_old = module in _OLD_NAMES and any(part == "attentions" for part in parents)
    return ".".join([*parents, _OLD_NAMES[module], last]) if is_old else name


def is_diffusers(folder: Path) -> bool:
    """Returns whether a folder has the JSON of a network or of a pipeline."""
    return not (not_a_file(folder / "config.json") and not_a_file(folder / "model_index.json"))


def _network(folder: Path) -> Path:
    return _part(folder, "unet")


def _part(folder: Path, part: str) -> Path:
    """Returns the folder of a pipeline's part, or the folder itself, which old pipelines of one network use."""
    return folder if not_a_folder(folder / part) else folder / part


def _json(path: Path) -> dict[str, Any]:
    if reason := not_a_file(path):
        raise CheckpointError(f"{path}: {reason}. Fetch the whole folder.")
    try:
        if path.stat().st_size > _LARGEST_JSON:
            raise ValueError(f"larger than {_LARGEST_JSON:,} bytes")
        return read_json(path, dict[str, Any])
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be read as a JSON object: {error}. Fetch the folder again.") from error
