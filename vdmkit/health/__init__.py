# SPDX-License-Identifier: Apache-2.0
"""Health of a training: signs of trouble in its settings and in the numbers that it logs.

A sign is a function of numbers, which returns a message, or None. It does not stop a training.
"""

from vdmkit.health._average import average_behind_raw, initial_share, slow_average
from vdmkit.health._generalisation import held_out_rises, labels_untold
from vdmkit.health._schedule import crossed_ends, open_levels, prior_bpd, short_of_noise
from vdmkit.health._trouble import Trouble, read_troubles
from vdmkit.health._updates import Window, gradient_jumps, loss_jumps, nothing_learned
from vdmkit.health._watch import Facts, Watch

__all__ = [
    "Facts",
    "Trouble",
    "Watch",
    "Window",
    "average_behind_raw",
    "crossed_ends",
    "gradient_jumps",
    "held_out_rises",
    "initial_share",
    "labels_untold",
    "loss_jumps",
    "nothing_learned",
    "open_levels",
    "prior_bpd",
    "read_troubles",
    "short_of_noise",
    "slow_average",
]
