# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of thu-ml/i-DODE (Zheng et al. 2023, arXiv 2305.03935), whose files and network are VDM's."""

from typing import Any

from vdmkit.importers._importer import AbstractImporter, Config
from vdmkit.importers._settings import Settings
from vdmkit.importers._vdm import with_vdm_arrays
from vdmkit.importers._vdm_config import official_recipe
from vdmkit.importers.files import Arrays
from vdmkit.model import DiffusionModel
from vdmkit.registry import register

_OWN = ("second_order", "velocity", "importance", "dequantization", "num_importance", "schedule", "seed")
_VP = {"path": {"name": "variance_preserving"}, "prediction": {"name": "v"}}
_SP = {"path": {"name": "straight_line"}, "prediction": {"name": "unit_velocity"}}


@register("importer", "idode")
class IDodeImporter(AbstractImporter):
    """i-DODE's models of velocity, variance preserving (VP) or on the straight line (SP)."""

    def recipe(self, config: Config) -> dict[str, Any]:
        settings = Settings({name: config[name] for name in _OWN if name in config}, "this configuration of i-DODE")
        is_vp = settings.only("schedule", "VP", "SP") == "VP"
        settings.only("velocity", True)
        dequantisation = settings.of("dequantization", str)
        importance = settings.of("importance", bool, True)
        settings.ignore("seed", "second_order", "num_importance")
        settings.finish()
        tables = official_recipe({name: value for name, value in config.items() if name not in _OWN})
        tables["model"] |= _VP if is_vp else _SP
        if importance:
            tables["objective"]["time_sampler"] = "signal"
        dequantisation = "truncated_normal" if dequantisation == "tn" else "uniform"
        return tables | {"likelihood": {"estimator": {"name": "ode", "dequantisation": dequantisation}}}

    def shape(self, config: Config) -> tuple[int, int, int]:
        return 32, 32, 3

    def filled(self, model: DiffusionModel, arrays: Arrays, config: Config) -> DiffusionModel:
        return with_vdm_arrays(model, arrays)

    def remarks(self, config: Config) -> list[str]:
        if not config.get("second_order"):
            return []
        return ["i-DODE's second-order loss is not here: training on uses the first-order one."]
