# SPDX-License-Identifier: Apache-2.0
r"""Signs in the ends of the schedule, which no network can make up for.

The latent z_1 should carry next to no information on the image, since the prior p(z_1) knows none:

    KL(q(z_1 | x) || p(z_1)) = 1/2 sum_j [ alpha_1^2 (x_j^2 - 1) + log(1 + e^{-gamma_1}) ]

(Kingma et al. 2021, arXiv 2107.00630v6, eq. 11).

The latent z_0 / alpha_0 = x + e^{gamma_0 / 2} eps should leave no doubt about the level of a pixel, since the
categorical decoder reads each pixel by itself.
"""

import math

LARGEST_PRIOR = 0.05
"""Bits/dim. A larger gamma_max takes it away at no cost, and published models differ by this much; recipes with
gamma_max = 5 have 0.003."""
LARGEST_NOISE = 0.5
"""Share of the distance between levels that the standard deviation at gamma_min may be: at one half, a third of the
pixels are nearest to another level than their own."""


def prior_bpd(gamma_1: float, mean_square: float) -> float:
    """Returns the prior term in bits/dim for data whose values have this mean square."""
    alpha2 = 1 / (1 + math.exp(gamma_1))
    return 0.5 * (alpha2 * (mean_square - 1) + math.log1p(math.exp(-gamma_1))) / math.log(2)


def short_of_noise(gamma_max: float, mean_square: float) -> str | None:
    """Says that the noisiest latent still shows the image: the prior term is above `LARGEST_PRIOR`."""
    bpd = prior_bpd(gamma_max, mean_square)
    if bpd <= LARGEST_PRIOR:
        return None
    return (
        f"the noisiest latent still carries information: with gamma_max = {gamma_max:g} the prior term is {bpd:.2g} "
        f"bits/dim, expected below {LARGEST_PRIOR:g}. Raise model.schedule.gamma_max, to 5 for example."
    )


def open_levels(gamma_min: float, spacing: float) -> str | None:
    """Says that the cleanest latent leaves the level of a pixel open: its noise is above `LARGEST_NOISE` spacings.

    Args:
        gamma_min: The end of the schedule at the data.
        spacing: Distance between the data of neighbouring levels.
    """
    noise = math.exp(gamma_min / 2) / spacing
    if noise <= LARGEST_NOISE:
        return None
    wrong = math.erfc(0.5 / noise / math.sqrt(2))
    highest = 2 * math.log(LARGEST_NOISE * spacing)
    return (
        f"the cleanest latent does not pin the levels: with gamma_min = {gamma_min:g} its noise is {noise:.2g} times "
        f"their spacing, and {wrong:.0%} of pixels are nearest to another level. The decoder pays for it in the "
        f"reconstruction term. Lower model.schedule.gamma_min, below {highest:.1f}."
    )


def crossed_ends(gamma_0: float, gamma_1: float, gamma_min: float, gamma_max: float) -> str | None:
    """Says that a learned end has crossed the middle of the recipe's range, from where it has lost data or noise.

    Ends that learn the bound move by one or two in gamma; those of unstable updates move by as much as Adam lets them.
    """
    middle = (gamma_min + gamma_max) / 2
    if gamma_0 <= middle <= gamma_1:
        return None
    return (
        f"the learned schedule has collapsed: it began from {gamma_min:g} to {gamma_max:g}, and now goes from "
        f"{gamma_0:.3g} to {gamma_1:.3g}. Lower optimizer.learning_rate, or fix the ends."
    )
