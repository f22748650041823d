# SPDX-License-Identifier: Apache-2.0
"""The exact denoiser of data whose distribution is known."""

import equinox as eqx
from jaxtyping import Array, Float

from vdmkit.denoiser import AbstractPrediction, Estimate
from vdmkit.distribution._distribution import AbstractDistribution
from vdmkit.noise import AbstractPath
from vdmkit.registry import register
from vdmkit.typing import Image, Scalar


@register("prediction", "exact")
class Exact(AbstractPrediction):
    """The exact posterior, for data whose distribution is known; the network's output is ignored.

    The difference of a likelihood estimate from -log P is then the estimator's own error: discretisation, the ends of
    the schedule, Monte Carlo.
    """

    distribution: AbstractDistribution = eqx.field(static=True)
    outputs: int = eqx.field(static=True, default=1, init=False)

    def __call__(self, output: Float[Array, "h w c 1"], z: Image, gamma: Scalar, path: AbstractPath) -> Estimate:
        return self.distribution.estimate(z, gamma, path)
