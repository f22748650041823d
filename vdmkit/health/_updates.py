# SPDX-License-Identifier: Apache-2.0
"""Signs in the loss and the gradient of training, whose means are taken over windows of at least 50 updates.

A batch's loss scatters by tens of percent, and its gradient by a factor of a few; means over 50 do so seven times less.
Clipping at every update is not looked for: Adam's updates do not depend on the size of gradients.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

UPDATES_OF_WINDOW = 50
RISE_OF_LOSS = 2.0
"""A model that was once, or before it was trained, half as far from perfect: learning only lowers the loss."""
JUMP_OF_GRADIENT = 10.0
"""In runs of the recipes that train, means over windows stay within a factor of three of their median."""
WINDOWS_BEFORE_JUMP = 4
FEWEST_TO_LEARN = 500
"""Updates after which a model should be better than no model."""


@dataclass(frozen=True)
class Window:
    """Means over the updates that end at step `last`."""

    last: int
    loss: float
    gradient: float


def loss_jumps(windows: Sequence[Window], untrained: float) -> str | None:
    """Says that the loss is `RISE_OF_LOSS` times what it once was.

    Args:
        windows: Windows up to now.
        untrained: Loss of the model before its first update; infinity if it is not known.
    """
    *earlier, now = windows
    lowest = min([untrained, *(window.loss for window in earlier)])
    if not now.loss > RISE_OF_LOSS * max(lowest, 0.0) or math.isinf(lowest):
        return None
    return (
        f"training diverges: the loss, {now.loss:.4g}, is more than {RISE_OF_LOSS:g} times what it was before, "
        f"{lowest:.4g}. Lower optimizer.learning_rate, or lengthen optimizer.warmup_steps."
    )


def gradient_jumps(windows: Sequence[Window]) -> str | None:
    """Says that the norm of the gradient is `JUMP_OF_GRADIENT` times the median of the windows before."""
    *earlier, now = windows
    if len(earlier) < WINDOWS_BEFORE_JUMP:
        return None
    usual = median(window.gradient for window in earlier)
    if not now.gradient > JUMP_OF_GRADIENT * usual:
        return None
    return (
        f"the gradient jumped: its norm is {now.gradient:.3g}, and was about {usual:.3g} before. "
        "Lower optimizer.learning_rate, or set optimizer.clip_norm."
    )


def nothing_learned(window: Window, levels: int, steps: int) -> str | None:
    """Says that the bound is as bad as giving every level the same probability, log2 of their number.

    It is judged in the second half of a training, and after `FEWEST_TO_LEARN` updates: predictions of the noise begin
    far above it. Within 2% counts as no better, since a collapsed schedule comes that close.

    Args:
        window: The last window, whose loss is the bound in bits/dim.
        levels: Number of levels; 0 for continuous data, of which nothing is said.
        steps: Updates of the whole training.
    """
    if not levels or window.last < max(steps / 2, FEWEST_TO_LEARN) or not window.loss > 0.98 * math.log2(levels):
        return None
    return (
        f"nothing is learned: the bound is {window.loss:.4g} bits/dim after {window.last:,} updates, and a code "
        f"without a model takes {math.log2(levels):.4g}. Change optimizer.learning_rate, or train longer."
    )
