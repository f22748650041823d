# SPDX-License-Identifier: Apache-2.0
"""The discretisation error of a likelihood by an ODE solver."""

import math
from dataclasses import dataclass

import numpy as np
import scipy
from jaxtyping import Float

_LARGEST = 0.01  # bits/dim, the last digit of published figures


@dataclass(frozen=True)
class SolverError:
    """The values of a few images minus those of a finer solve, in bits/dim (NaN if one failed), and the evaluations."""

    differences: Float[np.ndarray, " n"]
    evaluations: int

    @property
    def value(self) -> float:
        """Returns the mean error."""
        return float(self.differences.mean())

    @property
    def half_width(self) -> float:
        """Returns the 95% half-width of the mean error over all images; infinite if a solve failed."""
        n = len(self.differences)
        spread = float(self.differences.std(ddof=1)) / math.sqrt(n) if n > 1 else 0.0
        width = abs(self.value) + float(scipy.special.stdtrit(max(n - 1, 1), 0.975)) * spread
        return width if math.isfinite(width) else math.inf

    def reasons(self) -> list[str]:
        """Returns reasons why the value is not a likelihood."""
        if not math.isfinite(self.value):
            return [
                "the error of the solver is not known: it, or a finer solve, did not reach its end on a few images."
            ]
        if self.half_width <= _LARGEST:
            return []
        return [
            f"the solver has not converged: a finer solve differs by {self.value:+.4f}, on all images perhaps by "
            f"{self.half_width:.4f} bits/dim, and {_LARGEST:g} is allowed. Give it more --solver-steps, or, without "
            "them, lower likelihood.estimator.rtol and atol; below 1e-6, with JAX_ENABLE_X64=1."
        ]
