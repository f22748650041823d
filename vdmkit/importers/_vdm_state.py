# SPDX-License-Identifier: Apache-2.0
"""Reads checkpoints of the authors' code (google-research/vdm): Flax msgpack of step, params, ema_params, opt_state."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, PyTree

from vdmkit.errors import CheckpointError
from vdmkit.importers._misfits import misfits
from vdmkit.importers._vdm_names import official_parameters, parameters_of, with_official_parameters
from vdmkit.importers.files._adam import find_adam
from vdmkit.importers.files._list import flat_arrays
from vdmkit.importers.files._read import read_checkpoint
from vdmkit.importers.files._weights import step_in
from vdmkit.model import DiffusionModel


class OfficialCheckpoint(eqx.Module):
    """A checkpoint of the authors. mu and nu (Adam's moments) have the structure of the model's parameters."""

    step: int
    model: DiffusionModel
    ema: DiffusionModel
    mu: PyTree
    nu: PyTree
    count: Int[Array, ""]


def load_official(path: Path, template: DiffusionModel) -> OfficialCheckpoint:
    """Reads a `ckpt-<n>.flax` file into models like `template`.

    Args:
        path: The file.
        template: A model built from the checkpoint's config; its arrays may be `jax.ShapeDtypeStruct`.

    Raises:
        CheckpointError: the file cannot be read, or its arrays do not fit the template; the message lists every path
            and shape that differs.
    """
    content = read_checkpoint(path).tree
    content = content if isinstance(content, dict) else {}
    adam = find_adam(content.get("opt_state")) or {}
    missing = [name for name in ("step", "params", "ema_params") if name not in content]
    missing += [] if adam else ["Adam's moments in opt_state"]
    if missing:
        raise CheckpointError(
            f"{path}: without {', '.join(missing)} (found: {', '.join(map(str, content)) or 'nothing'}). "
            "A training state of the authors' code is expected."
        )
    parameters = parameters_of(template)

    def fill(tree: Mapping[str, Any], like: PyTree, where: str) -> PyTree:
        arrays = flat_arrays(tree)
        check_fit(arrays, parameters, f"{path}: {where}")
        return with_official_parameters(like, arrays)

    return OfficialCheckpoint(
        step=step_in(content["step"], path),
        model=fill(content["params"], template, "params"),
        ema=fill(content["ema_params"], template, "ema_params"),
        mu=fill(adam["mu"], parameters, "opt_state mu"),
        nu=fill(adam["nu"], parameters, "opt_state nu"),
        count=jnp.asarray(step_in(adam["count"], path), jnp.int32),
    )


def check_fit(arrays: Mapping[str, Any], parameters: PyTree, where: str = "the file") -> None:
    """Raises CheckpointError, with every path and shape that differs, unless the arrays are those of `parameters`."""
    wanted = {name: leaf.shape for name, leaf in official_parameters(parameters).items()}
    found = {name: np.shape(array) for name, array in arrays.items()}
    if differences := misfits(found, wanted, "model"):
        raise CheckpointError(
            f"{where} does not fit the model that the config describes. Check depth, width, attention, "
            f"Fourier features and gamma type. {differences}"
        )
