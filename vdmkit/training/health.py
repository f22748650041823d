# SPDX-License-Identifier: Apache-2.0
"""Health checks of a training run: signs of trouble in its settings and in its logged metrics.

A sign is a function of numbers that returns a message, or None. It does not stop the training. Clipping at every update
is not a sign, because Adam's updates do not depend on the scale of the gradients.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from vdmkit.errors import CheckpointError
from vdmkit.io import are_intact, read_json, write_results

FEWEST_UPDATES = 20
"""With fewer updates a recipe is tried out, and what training does means nothing yet."""
FEWEST_IMAGES = 32
"""The loss before training is that of one batch, which is a useful estimate if it has as many images."""
LARGEST_PRIOR = 0.05
"""Bits/dim. A larger gamma_max takes it away at no cost, and published models differ by this much; recipes with
gamma_max = 5 have 0.003."""
LARGEST_NOISE = 0.5
"""Share of the distance between levels that the standard deviation at gamma_min may be: at one half, a third of the
pixels are nearest to another level than their own."""
UPDATES_OF_WINDOW = 50
"""A batch's loss scatters by tens of percent, and its gradient by a factor of a few; means over 50 do so seven times
less."""
RISE_OF_LOSS = 2.0
"""A model that was once, or before it was trained, half as far from perfect: learning only lowers the loss."""
JUMP_OF_GRADIENT = 10.0
"""In runs of the recipes that train, means over windows stay within a factor of three of their median."""
WINDOWS_BEFORE_JUMP = 4
FEWEST_TO_LEARN = 500
"""Updates after which a model should be better than no model."""
LARGEST_SHARE = 0.01
"""Share of the initial parameters in the average: after 4.6 times 1 / (1 - decay) updates it is this much."""
LARGEST_LAG = 0.01
"""Bits/dim; at the end of a decaying learning rate both are nearly the same, and so is the noise in their estimates."""
LARGEST_RISE = 0.02
"""Bits/dim. The curve is of the same images and draws at each point, so that noise cancels: at the end of the digits'
trainings it moves by 0.002."""
_UNSTABLE = {"ends", "loss", "gradient", "learning"}  # later signs are only consequences of these


@dataclass(frozen=True)
class Trouble:
    """A sign of trouble, the step at which it was found, and a one-line message with the finding and a remedy."""

    sign: str
    step: int
    message: str


@dataclass(frozen=True)
class Facts:
    """Settings on which the signs depend in addition to the metrics.

    Attributes:
        steps: The last step of the training.
        batch_size: Number of images per update.
        gamma_min: The recipe's gamma at t = 0.
        gamma_max: The recipe's gamma at t = 1.
        levels: Number of levels; 0 for continuous data.
        spacing: Distance between levels, for a decoder that uses only z_0; None for other decoders.
        mean_square: Mean square of the data's values.
        ema: Decay of the averaged parameters; None if raw ones are evaluated.
        ema_warmup: Whether the decay warms up.
        always_conditioned: Name of a network that is conditioned on the label of every training image, or None.
    """

    steps: int
    batch_size: int
    gamma_min: float
    gamma_max: float
    levels: int
    spacing: float | None
    mean_square: float
    ema: float | None
    ema_warmup: bool
    always_conditioned: str | None

    def share(self, step: int) -> float:
        """Returns the share of the initial parameters in the average."""
        return 0.0 if self.ema is None else initial_share(self.ema, self.ema_warmup, step)


class Watch:
    """Checks a training for every sign, reports each sign once, and keeps the findings in health.json."""

    def __init__(self, facts: Facts, path: Path, *, step: int, history: Iterable[tuple[int, Mapping[str, float]]]):
        """Continues to watch a training from `step`.

        Args:
            facts: The settings of the training.
            path: The health.json of the run; findings after `step` are dropped.
            step: Step of the training.
            history: Steps and metrics up to `step`, which were checked before.
        """
        self.facts, self._path = facts, path
        self.troubles = [finding for finding in read_troubles(path) if finding.step <= step]
        self._windows: list[Window] = []
        self._open: list[tuple[int, float, float]] = []  # updates, loss and gradient of lines not yet in a window
        self._untrained, self._last = math.inf, 0
        self._held_out: dict[str, list[tuple[int, float]]] = {}
        for earlier, values in history:
            self._take(earlier, values)
        self._last = step  # training of an imported model begins at a step above 0
        write_troubles(path, self.troubles)

    def check_settings(self, step: int) -> list[Trouble]:
        """Returns the signs of trouble in the settings, before the first update."""
        facts = self.facts
        found = [("prior", short_of_noise(facts.gamma_max, facts.mean_square))]
        found.append(("labels", measured_without_labels(facts.always_conditioned)))
        if facts.spacing is not None:
            found.append(("levels", open_levels(facts.gamma_min, facts.spacing)))
        if facts.ema is not None:
            found.append(("average", slow_average(facts.ema, facts.ema_warmup, facts.steps)))
        return self._new(found, step)

    def check(self, step: int, values: Mapping[str, float]) -> list[Trouble]:
        """Returns the signs of trouble in a line of metrics that were not found before."""
        grown = self._take(step, values)
        return [] if step < FEWEST_UPDATES else self._new(self._signs(step, values, grown), step)

    def stopped(self, step: int, reason: str) -> None:
        """Records the non-finite number that ended the training; the error itself is shown to the user."""
        self.troubles.append(Trouble("not_finite", step, reason))
        write_troubles(self._path, self.troubles)

    def _signs(self, step: int, values: Mapping[str, float], grown: bool) -> Iterator[tuple[str, str | None]]:
        facts = self.facts
        gamma_0, gamma_1 = (values.get(f"schedule/gamma_{end}") for end in (0, 1))
        if gamma_0 is not None and gamma_1 is not None:
            yield "ends", crossed_ends(gamma_0, gamma_1, facts.gamma_min, facts.gamma_max)
        if grown:
            if facts.levels:  # the loss of continuous data may be negative
                yield "loss", loss_jumps(self._windows, self._untrained)
            yield "gradient", gradient_jumps(self._windows)
            if "train/bpd" in values:
                yield "learning", nothing_learned(self._windows[-1], facts.levels, facts.steps)
        losses = [(window.last, window.loss) for window in self._windows]
        for name in values.keys() & self._held_out.keys():
            yield "held_out", held_out_rises(self._held_out[name], losses)
        if facts.ema is not None and "test/ema_minus_raw" in values:
            difference = values["test/ema_minus_raw"], values["test/ema_minus_raw_half_width"]
            yield "average", average_behind_raw(*difference, step, facts.steps, facts.share(step))

    def _new(self, signs: Iterable[tuple[str, str | None]], step: int) -> list[Trouble]:
        new = []
        for sign, message in signs:
            found = {finding.sign for finding in self.troubles}
            if message and sign not in found and not found & _UNSTABLE:
                new.append(Trouble(sign, step, message))
                self.troubles.append(new[-1])
        if new:
            write_troubles(self._path, self.troubles)
        return new

    def _take(self, step: int, values: Mapping[str, float]) -> bool:
        """Adds a line of metrics to the curves; returns whether it closed a window."""
        for name, value in values.items():
            if name == "test/bpd" or name.startswith("test/bpd_of_"):
                self._held_out.setdefault(name, []).append((step, value))
        loss = values.get("train/bpd", values.get("train/loss"))
        if loss is None:
            return False
        if self.facts.batch_size >= FEWEST_IMAGES:
            self._untrained = values.get("train/untrained", self._untrained)
        self._open.append((step - self._last, loss, values.get("train/gradient", 0.0)))
        self._last = step
        updates = sum(n for n, _, _ in self._open)
        if updates < UPDATES_OF_WINDOW:
            return False
        means = [sum(row[0] * row[i] for row in self._open) / updates for i in (1, 2)]
        self._windows.append(Window(step, *means))
        self._open = []
        return True


@dataclass(frozen=True)
class _Findings:
    findings: list[Trouble] = field(default_factory=list)
    crc32: int = 0


def read_troubles(path: Path) -> list[Trouble]:
    """Returns the findings of a run from its health.json, oldest first; an empty list without the file.

    Raises:
        CheckpointError: the file is damaged.
    """
    if not path.is_file():
        return []
    try:
        if not are_intact(read_json(path, dict[str, Any])):
            raise ValueError("its findings are not those that were written")
        return read_json(path, _Findings).findings
    except ValueError as error:
        raise CheckpointError(f"{path}: damaged ({error}). Delete it: training looks for signs again.") from error


def write_troubles(path: Path, findings: Sequence[Trouble]) -> None:
    """Writes health.json; an empty list means that the training was checked and nothing was found."""
    write_results(path, {"findings": [asdict(finding) for finding in findings]})


@dataclass(frozen=True)
class Window:
    """Means over the updates that end at step `last`."""

    last: int
    loss: float
    gradient: float


def prior_bpd(gamma_1: float, mean_square: float) -> float:
    """Returns the prior term in bits/dim for data whose values have this mean square.

    KL(q(z_1 | x) || p(z_1)) = 1/2 sum_j [ alpha_1^2 (x_j^2 - 1) + log(1 + e^{-gamma_1}) ]
    (Kingma et al. 2021, arXiv 2107.00630v6, eq. 11).
    """
    alpha2 = 1 / (1 + math.exp(gamma_1))
    return 0.5 * (alpha2 * (mean_square - 1) + math.log1p(math.exp(-gamma_1))) / math.log(2)


def short_of_noise(gamma_max: float, mean_square: float) -> str | None:
    """Warns that the prior term is above `LARGEST_PRIOR`: z_1 carries information that p(z_1) lacks."""
    bpd = prior_bpd(gamma_max, mean_square)
    if bpd <= LARGEST_PRIOR:
        return None
    return (
        f"the noisiest latent still carries information: with gamma_max = {gamma_max:g} the prior term is {bpd:.2g} "
        f"bits/dim, expected below {LARGEST_PRIOR:g}. Raise model.schedule.gamma_max, to 5 for example."
    )


def open_levels(gamma_min: float, spacing: float) -> str | None:
    """Warns that the noise of the cleanest latent is above `LARGEST_NOISE` spacings of the levels.

    z_0 / alpha_0 = x + e^{gamma_0 / 2} eps should determine the level of a pixel, because the categorical decoder
    treats each pixel independently.

    Args:
        gamma_min: gamma at t = 0.
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
    """Warns that a learned end has crossed the middle of the recipe's range, so it no longer reaches data or noise.

    Ends trained on the bound move by one or two in gamma; under unstable updates they move as far as Adam allows.
    """
    middle = (gamma_min + gamma_max) / 2
    if gamma_0 <= middle <= gamma_1:
        return None
    return (
        f"the learned schedule has collapsed: it began from {gamma_min:g} to {gamma_max:g}, and now goes from "
        f"{gamma_0:.3g} to {gamma_1:.3g}. Lower optimizer.learning_rate, or fix the ends."
    )


def loss_jumps(windows: Sequence[Window], untrained: float) -> str | None:
    """Warns that the loss is more than `RISE_OF_LOSS` times its lowest earlier value.

    Args:
        windows: Windows up to now, whose losses are positive.
        untrained: Loss of the model before its first update; infinity if unknown.
    """
    *earlier, now = windows
    lowest = min([untrained, *(window.loss for window in earlier)])
    if not now.loss > RISE_OF_LOSS * lowest:
        return None
    return (
        f"training diverges: the loss, {now.loss:.4g}, is more than {RISE_OF_LOSS:g} times what it was before, "
        f"{lowest:.4g}. Lower optimizer.learning_rate, or lengthen optimizer.warmup_steps."
    )


def gradient_jumps(windows: Sequence[Window]) -> str | None:
    """Warns that the gradient norm is `JUMP_OF_GRADIENT` times the median of the earlier windows."""
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
    """Warns that the bound does not improve on log2(levels), that of a uniform distribution over the levels.

    It is checked in the second half of a training, and after `FEWEST_TO_LEARN` updates, because noise predictions start
    far above it. Within 2% counts as no better, because a collapsed schedule comes that close.

    Args:
        window: The last window, whose loss is the bound in bits/dim.
        levels: Number of levels; 0 for continuous data, to which this does not apply.
        steps: Updates of the whole training.
    """
    if not levels or window.last < max(steps / 2, FEWEST_TO_LEARN) or not window.loss > 0.98 * math.log2(levels):
        return None
    return (
        f"nothing is learned: the bound is {window.loss:.4g} bits/dim after {window.last:,} updates, and a code "
        f"without a model takes {math.log2(levels):.4g}. Change optimizer.learning_rate, or train longer."
    )


def initial_share(decay: float, warmup: bool, steps: int) -> float:
    """Returns the weight of the initial parameters in the average after `steps` updates.

    It is the product of min(decay, (1 + n) / (10 + n)) over n < steps with `warmup`, and decay^steps without.
    """
    if not warmup:
        return decay**steps
    reached = math.ceil((10 * decay - 1) / (1 - decay)) if decay > 0.1 else 0  # from this n on the minimum is `decay`
    slow = min(max(reached, 0), steps)
    # prod_{n < m} (1 + n) / (10 + n) = m! 9! / (m + 9)!
    log_share = math.lgamma(slow + 1) + math.lgamma(10) - math.lgamma(slow + 10)
    log_share += (steps - slow) * math.log(decay) if steps > slow and decay else 0.0
    return math.exp(log_share) if decay or steps == slow else 0.0


def slow_average(decay: float, warmup: bool, steps: int) -> str | None:
    """Warns that the average will still hold more than `LARGEST_SHARE` of the initial parameters at the last step."""
    share = initial_share(decay, warmup, steps)
    if steps < FEWEST_UPDATES or share <= LARGEST_SHARE:
        return None
    fitting = 1 - 10 / steps  # share e^-10
    return (
        f"the averaged parameters, which are evaluated, will be {share:.0%} those of the untrained model after all "
        f"{steps:,} updates. Lower training.ema, to {max(fitting, 0.5):.5g} for example, or set training.ema_warmup."
    )


def average_behind_raw(difference: float, half_width: float, step: int, steps: int, share: float) -> str | None:
    """Warns that the averaged parameters do worse than the raw ones, on the same held-out images with the same noise.

    It is checked in the second half of a training, once the initial parameters have little weight in the average:
    earlier, parameters move so fast that an average lags behind by design.

    Args:
        difference: Bits/dim of the averaged minus that of the raw parameters.
        half_width: Its 95% half-width (Monte Carlo and finite test set). A difference of twice this is significant.
        step: The step of the measurement.
        steps: The last step of the training.
        share: Share of the initial parameters in the average now.
    """
    if 2 * step < steps or share > LARGEST_SHARE or not difference > max(2 * half_width, LARGEST_LAG):
        return None
    return (
        f"the averaged parameters, which are evaluated, are {difference:.3g} +/- {half_width:.2g} bits/dim worse than "
        "the raw ones. Lower training.ema, or set evaluation.weights to raw."
    )


def held_out_rises(held_out: Sequence[tuple[int, float]], losses: Sequence[tuple[int, float]]) -> str | None:
    """Warns that held-out bits/dim rise above their lowest while the loss of training falls.

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


def measured_without_labels(network: str | None) -> str | None:
    """Warns that a network is conditioned on the label of every training image, but measured without labels.

    Args:
        network: Name of a network that is conditioned on all labels, without label dropout, or None.
    """
    if network is None:
        return None
    return (
        f"network {network} is conditioned on the label of every training image, and the test bound is that of images "
        "without labels, which it was never trained on. Put it without labels into network label_conditioned, which "
        "drops a share of them, or measure with `vdmkit likelihood --label data`."
    )


def _at(curve: Sequence[tuple[int, float]], step: int) -> float | None:
    """Returns the last value at or before `step`."""
    values = [value for at, value in curve if at <= step]
    return values[-1] if values else None
