# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of the authors' released code (google-research/vdm)."""

from typing import Any, TypeVar

import equinox as eqx

from vdmkit.importers._importer import AbstractImporter, Config
from vdmkit.importers._vdm_config import official_recipe
from vdmkit.importers._vdm_names import parameters_of, with_official_parameters
from vdmkit.importers._vdm_state import check_fit
from vdmkit.importers.files._adam import Arrays
from vdmkit.model import DiffusionModel
from vdmkit.registry import register

Model = TypeVar("Model", bound=eqx.Module)


@register("importer", "vdm")
class VdmImporter(AbstractImporter):
    """Variational diffusion models of the paper (Kingma et al. 2021, arXiv 2107.00630)."""

    def recipe(self, config: Config) -> dict[str, Any]:
        return official_recipe(config)

    def shape(self, config: Config) -> tuple[int, int, int]:
        return 32, 32, 3

    def filled(self, model: DiffusionModel, arrays: Arrays, config: Config) -> DiffusionModel:
        return with_vdm_arrays(model, arrays)


def with_vdm_arrays(model: Model, arrays: Arrays) -> Model:
    """Returns the model with parameters by the authors' paths. Raises CheckpointError if they do not fit.

    It may be another module with the fields `schedule`, `network` and `encoder`, as MuLAN has them.
    """
    check_fit(arrays, parameters_of(model))
    return with_official_parameters(model, arrays)
