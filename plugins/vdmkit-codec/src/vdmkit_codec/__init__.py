# SPDX-License-Identifier: Apache-2.0
"""Lossless compression by vdmkit's models.

    data = vdmkit_codec.compress(run.model, images)  # uint8 (n, h, w, c)
    images = vdmkit_codec.decompress(data, run.model)
    with vdmkit_codec.open("images.vdmz", run.model) as archive:
        archive[7], archive[10:20]  # decodes the chunks of these images only

Importing it does not load JAX: names are imported on first use.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vdmkit_codec.api import Archive, compress, decompress, open
    from vdmkit_codec.inspection import Inspection, inspect

__all__ = ["Archive", "Inspection", "compress", "decompress", "inspect", "open"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        module = "inspection" if name in ("Inspection", "inspect") else "api"
        return getattr(importlib.import_module(f"vdmkit_codec.{module}"), name)
    raise AttributeError(f"module 'vdmkit_codec' has no attribute {name!r}")
