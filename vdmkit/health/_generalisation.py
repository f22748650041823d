# SPDX-License-Identifier: Apache-2.0
"""Signs that the number on held-out images is not what training works for."""

from collections.abc import Sequence

LARGEST_RISE = 0.02
"""Bits/dim. The curve is of the same images and draws at each point, so that noise cancels: at the end of the digits'
trainings it moves by 0.002."""


def held_out_rises(held_out: Sequence[tuple[int, float]], losses: Sequence[tuple[int, float]]) -> str | None:
    """Says that held-out bits/dim rise above their lowest while the loss of training falls.

    Args:
        held_out: Steps and bits/dim of the held-out images, measured in the same way each time.
        losses: Steps and means of the training loss.
    """
    if len(held_out) < 2:
        return None
    best, lowest = min(held_out, key=lambda point: point[1])
    step, now = held_out[-1]
    before, after = _at(losses, best), _at(losses, step)
    if not now > lowest + LARGEST_RISE or before is None or after is None or not after < before:
        return None
    return (
        f"the model overfits: held-out images take {now:.4g} bits/dim, {lowest:.4g} at step {best:,}, while the loss "
        f"of training fell from {before:.4g} to {after:.4g}. Train less, or a smaller network, or with more images, "
        "augmentations or dropout; training.keep_best keeps the best checkpoint."
    )


def labels_untold(network: str | None) -> str | None:
    """Says that a network is told the label of each training image, and of no measured one.

    Args:
        network: Name of a network that is conditioned on every label and never drops one, or None.
    """
    if network is None:
        return None
    return (
        f"network {network} is told the label of every training image, and the test bound is that of images without "
        "labels, which it never saw. Put it without labels into network label_conditioned, which drops a share of "
        "them, or measure with `vdmkit likelihood --label data`."
    )


def _at(curve: Sequence[tuple[int, float]], step: int) -> float | None:
    """Returns the last value up to this step."""
    known = [value for at, value in curve if at <= step]
    return known[-1] if known else None
