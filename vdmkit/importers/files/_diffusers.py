# SPDX-License-Identifier: Apache-2.0
"""Folders that diffusers' `save_pretrained` made: of a pipeline, or of its network alone."""

import re
from pathlib import Path
from typing import Any

from vdmkit.errors import CheckpointError
from vdmkit.io import not_a_file, not_a_folder, read_json

_WEIGHTS = "diffusion_pytorch_model"
_PART = re.compile(r"[\w.-]+\.safetensors")
_LARGEST_JSON = 10_000_000
_OLD_NAMES = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
"""Attention in files of before diffusers 0.13, to which the files of the Hub's DDPMs belong."""


def weight_files(folder: Path) -> list[Path]:
    """Returns the files of the network's weights: one, or the parts that an index lists.

    Raises:
        CheckpointError: there is none, or the index cannot be read or names a file elsewhere.
    """
    network = _network(folder)
    index = network / f"{_WEIGHTS}.safetensors.index.json"
    if not not_a_file(index):
        named = _json(index).get("weight_map")
        names = list(named.values()) if isinstance(named, dict) else []
        if not (names and all(isinstance(name, str) and _PART.fullmatch(name) for name in names)):
            raise CheckpointError(f"{index}: its weight_map does not name files beside it. Fetch the folder again.")
        return [network / name for name in sorted(set(names))]
    for suffix in ("safetensors", "bin"):
        if not not_a_file(network / f"{_WEIGHTS}.{suffix}"):
            return [network / f"{_WEIGHTS}.{suffix}"]
    raise CheckpointError(f"{network}: holds no {_WEIGHTS}.safetensors, nor .bin. Fetch the whole folder.")


def configuration(folder: Path) -> dict[str, Any]:
    """Returns the JSON of the network and, where they are there, of the scheduler and the pipeline.

    Raises:
        CheckpointError: there is none of a network, or one cannot be read.
    """
    network = _network(folder)
    places = {
        "unet": network / "config.json",
        "scheduler": _beside(folder, "scheduler") / "scheduler_config.json",
        "pipeline": folder / "model_index.json",
    }
    return {name: _json(path) for name, path in places.items() if name == "unet" or not not_a_file(path)}


def new_name(name: str) -> str:
    """Returns a parameter's name as diffusers writes it now."""
    *parents, module, last = name.split(".") if "." in name else ["", name]
    is_old = module in _OLD_NAMES and any(part == "attentions" for part in parents)
    return ".".join([*parents, _OLD_NAMES[module], last]) if is_old else name


def is_diffusers(folder: Path) -> bool:
    """Returns whether a folder has the JSON of a network or of a pipeline."""
    return not (not_a_file(folder / "config.json") and not_a_file(folder / "model_index.json"))


def _network(folder: Path) -> Path:
    return _beside(folder, "unet")


def _beside(folder: Path, part: str) -> Path:
    """Returns the folder of a pipeline's part, or the folder itself, where old pipelines of one network keep it."""
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
