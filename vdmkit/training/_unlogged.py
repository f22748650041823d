# SPDX-License-Identifier: Apache-2.0
"""Metrics since the last line of the log, which the checkpoint of a stopped run keeps.

Lines are means over the steps between them: without these the line after a stop would be one over fewer.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from vdmkit.errors import CheckpointError
from vdmkit.training._gradient import Metrics

_NAME = "unlogged"


class Unlogged(NamedTuple):
    """Metrics of updates, and the seconds that these took."""

    metrics: list[Metrics]
    seconds: float

    def as_json(self) -> dict[str, Any]:
        """Returns an entry of a checkpoint's metadata, or {} if there are no metrics."""
        joined = {
            name: np.concatenate([np.asarray(one[name]) for one in self.metrics]).tolist()
            for name in (self.metrics[0] if self.metrics else ())
        }
        return {_NAME: {"seconds": self.seconds, "metrics": joined}} if joined else {}


def unlogged_in(meta: Mapping[str, Any], where: Path) -> Unlogged:
    """Returns what `as_json` left in a checkpoint's metadata. Raises CheckpointError if it cannot have left this."""
    found = meta.get(_NAME)
    if found is None:
        return Unlogged([], 0.0)
    try:
        metrics = {name: jnp.asarray(np.asarray(values, float)) for name, values in found["metrics"].items()}
        if {(one.ndim, one.shape) for one in metrics.values()} != {(1, metrics["bpd"].shape)}:
            raise ValueError("they are not of the same updates")
        return Unlogged([metrics], float(found["seconds"]))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        advice = "Give the run another copy of it, or delete it."
        raise CheckpointError(f"{where}: its metrics cannot be read ({error}). {advice}") from error
