# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of thu-ml/i-DODE (Zheng et al. 2023, arXiv 2305.03935), whose files and network are VDM's."""

from typing import Any

from vdmkit.importers import AbstractImporter, Arrays, Config, Settings
from vdmkit.importers.vdm import official_recipe, with_vdm_arrays
from vdmkit.model import DiffusionModel
from vdmkit.registry import register

_OWN = ("second_order", "velocity", "importance", "dequantization", "num_importance", "schedule", "seed")
"""Fields that i-DODE's configuration has in addition to VDM's."""

_MODELS = {
    "VP": {"path": {"name": "variance_preserving"}, "prediction": {"name": "v"}},
    "SP": {"path": {"name": "straight_line"}, "prediction": {"name": "unit_velocity"}},
}
_DEQUANTISATIONS = {"tn": "truncated_normal", "u": "uniform", "v": "truncated_normal"}
_REMARKS = {
    "u": "i-DODE starts the ODE of uniform dequantization at gamma = -11.8, and vdmkit at model.schedule.gamma_min.",
    "v": "i-DODE's variational dequantization is not here: likelihoods use the truncated normal.",
}


@register("importer", "idode")
class IDodeImporter(AbstractImporter):
    """i-DODE's models of velocity, variance preserving (VP) or on the straight line (SP)."""

    def recipe(self, config: Config) -> dict[str, Any]:
        own = {name: config[name] for name in _OWN if name in config}
        with Settings(own, "this configuration of i-DODE") as settings:
            model = _MODELS[settings.only("schedule", *_MODELS)]
            settings.only("velocity", True)
            dequantisation = _DEQUANTISATIONS[settings.only("dequantization", *_DEQUANTISATIONS)]
            importance = settings.of("importance", bool, True)
            settings.ignore("seed", "second_order", "num_importance")
        tables = official_recipe({name: value for name, value in config.items() if name not in _OWN})
        tables["objective"]["steps"] = 0  # the authors never read sm_n_timesteps
        tables["model"] |= model
        if importance:
            tables["objective"]["time_sampler"] = "signal"
        return tables | {"likelihood": {"estimator": {"name": "ode", "dequantisation": dequantisation}}}

    def shape(self, config: Config) -> tuple[int, int, int]:
        return 32, 32, 3

    def filled(self, model: DiffusionModel, arrays: Arrays, config: Config) -> DiffusionModel:
        return with_vdm_arrays(model, arrays)

    def remarks(self, config: Config) -> list[str]:
        second = "i-DODE's second-order loss is not here: training on uses the first-order one."
        remarks = [second if config.get("second_order") else "", _REMARKS.get(config.get("dequantization", "tn"), "")]
        return [remark for remark in remarks if remark]
