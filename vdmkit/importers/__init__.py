# SPDX-License-Identifier: Apache-2.0
"""Importers of checkpoints of other codebases: a module for each family, and the interface for more of them.

An importer translates the authors' configuration into a recipe (`Settings`, `published`) and puts their arrays, by
their names, into its model (`WeightSource`, `with_arrays`).
"""

import vdmkit.importers.diffusers
import vdmkit.importers.vdm  # noqa: F401
from vdmkit.importers.formats import Arrays, read_weights
from vdmkit.importers.loader import AbstractImporter, Config
from vdmkit.importers.translation import (
    Settings,
    WeightSource,
    discrete_model,
    fused_attention,
    published,
    sources_under,
    with_arrays,
    with_unet,
)

__all__ = [
    "AbstractImporter",
    "Arrays",
    "Config",
    "Settings",
    "WeightSource",
    "discrete_model",
    "fused_attention",
    "published",
    "read_weights",
    "sources_under",
    "with_arrays",
    "with_unet",
]
