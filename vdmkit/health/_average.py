# SPDX-License-Identifier: Apache-2.0
"""Signs in the running average of the parameters (EMA), which is what a recipe evaluates by default."""

import math

LARGEST_SHARE = 0.01
"""Share of the initial parameters in the average: after 4.6 times 1 / (1 - decay) updates it is this much."""
FEWEST_UPDATES = 20
"""With fewer updates a recipe is tried out, and the share says nothing."""


def initial_share(decay: float, warmup: bool, steps: int) -> float:
    """Returns the weight of the initial parameters in the average after so many updates.

    It is the product of min(decay, (1 + n) / (10 + n)) over n < steps with `warmup`, and decay^steps without.
    """
    if not warmup:
        return decay**steps
    reached = math.ceil((10 * decay - 1) / (1 - decay)) if decay > 0.1 else 0  # from this n on it is the decay
    slow = min(max(reached, 0), steps)
    # prod_{n < m} (1 + n) / (10 + n) = m! 9! / (m + 9)!
    log_share = math.lgamma(slow + 1) + math.lgamma(10) - math.lgamma(slow + 10)
    log_share += (steps - slow) * math.log(decay) if steps > slow and decay else 0.0
    return math.exp(log_share) if decay or steps == slow else 0.0


def slow_average(decay: float, warmup: bool, steps: int) -> str | None:
    """Says that the average will still hold more than `LARGEST_SHARE` of the initial parameters at the last step."""
    share = initial_share(decay, warmup, steps)
    if steps < FEWEST_UPDATES or share <= LARGEST_SHARE:
        return None
    fitting = 1 - 10 / steps  # share e^-10
    return (
        f"the averaged parameters, which are evaluated, will be {share:.0%} those of the untrained model after all "
        f"{steps:,} updates. Lower training.ema, to {max(fitting, 0.5):.5g} for example, or set training.ema_warmup."
    )


def average_behind_raw(difference: float, half_width: float, step: int, steps: int, share: float) -> str | None:
    """Says that the averaged parameters do worse than the raw ones, on the same held-out images with the same noise.

    It is judged in the second half of a training, once the average has forgotten where it began: before, parameters
    move so fast that an average lags behind them by design.

    Args:
        difference: Bits/dim of the averaged minus that of the raw parameters.
        half_width: Its 95% half-width, of Monte Carlo and of the images; twice that far from 0 is beyond doubt.
        step: The step of the measurement.
        steps: The last step of the training.
        share: Share of the initial parameters in the average now.
    """
    if 2 * step < steps or share > LARGEST_SHARE or not difference > 2 * half_width:
        return None
    return (
        f"the averaged parameters, which are evaluated, are {difference:.3g} +/- {half_width:.2g} bits/dim worse than "
        "the raw ones. Lower training.ema, or set evaluation.weights to raw."
    )
