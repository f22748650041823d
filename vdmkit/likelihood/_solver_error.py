# SPDX-License-Identifier: Apache-2.0
"""How far an ODE's likelihood is off by the steps of its solver."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.special import stdtrit

_LARGEST = 0.01  # bits/dim, the last figure of what papers report


@dataclass(frozen=True)
class SolverError:
    """Bits/dim that a finer solve takes off the values of a few images, NaN where one failed, and what that took."""

    differences: Float[np.ndarray, " n"]
    evaluations: int

    @property
    def value(self) -> float:
        """The mean."""
        return float(self.differences.mean())

    @property
    def half_width(self) -> float:
        """What the mean of all images may be off by (95%), from so few; infinite if nothing is known."""
        n = len(self.differences)
        spread = float(self.differences.std(ddof=1)) / math.sqrt(n) if n > 1 else 0.0
        width = abs(self.value) + float(stdtrit(max(n - 1, 1), 0.975)) * spread
        return width if math.isfinite(width) else math.inf

    def reasons(self) -> list[str]:
        """Why the value is then no likelihood."""
        if not math.isfinite(self.value):
            return [
                "the error of the solver is not known: it, or a finer solve, did not reach its end on a few images."
            ]
        if self.half_width <= _LARGEST:
            return []
        return [
            f"the solver has not converged: a finer solve differs by {self.value:+.4f}, on all images perhaps by "
            f"{self.half_width:.4f} bits/dim. Make its steps finer by the keys of likelihood.estimator, such as lower "
            "rtol and atol, or more steps."
        ]
