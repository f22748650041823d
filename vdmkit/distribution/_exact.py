# SPDX-License-Identifier: Apache-2.0
"""The denoiser of data whose distribution is known: no network makes a better one."""

import equinox as eqx
from jaxtyping import Array, Float

from vdmkit.denoiser import AbstractPrediction, Estimate
from vdmkit.distribution._distribution import AbstractDistribution
from vdmkit.noise import AbstractPath
from vdmkit.registry import register


@register("prediction", "exact")
class Exact(AbstractPrediction):
    """The exact posterior of the data's distribution, for data that knows it; the network's output is ignored.

    What a likelihood estimator then misses -log P by is its own: discretisation, ends of the schedule, Monte Carlo.
    """

    distribution: AbstractDistribution = eqx.field(static=True)
    outputs: int = eqx.field(static=True, default=1, init=False)

    def __call__(
        self, output: Float[Array, "h w c 1"], z: Float[Array, "h w c"], gamma: Float[Array, ""], path: AbstractPath
    ) -> Estimate:
        return self.distribution.estimate(z, gamma, path)
