# SPDX-License-Identifier: Apache-2.0
"""Looks for signs of trouble in the settings of a training, and in each line of its metrics."""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from vdmkit.health._average import average_behind_raw, initial_share, slow_average
from vdmkit.health._generalisation import held_out_rises, labels_untold
from vdmkit.health._schedule import crossed_ends, open_levels, short_of_noise
from vdmkit.health._trouble import Trouble, read_troubles, write_troubles
from vdmkit.health._updates import UPDATES_OF_WINDOW, Window, gradient_jumps, loss_jumps, nothing_learned

FEWEST_UPDATES = 20
"""Before so many updates nothing is said of what training does."""
FEWEST_IMAGES = 32
"""The loss before training is that of one batch, which says something if it has as many images."""
_UNSTABLE = {"ends", "loss", "gradient", "learning"}  # after one of these, the rest only follows from it
Signs = Iterator[tuple[str, str | None]]


@dataclass(frozen=True)
class Facts:
    """What the signs depend on beside the metrics.

    Attributes:
        steps: The last step of the training.
        batch_size: Images of an update.
        gamma_min: The recipe's end of the schedule at the data.
        gamma_max: The recipe's end at the noise.
        levels: Number of levels; 0 for continuous data.
        spacing: Distance between levels, for a decoder that reads z_0 alone; None for others.
        mean_square: Mean square of the data's values.
        ema: Decay of the averaged parameters; None if raw ones are evaluated.
        ema_warmup: Whether the decay warms up.
        told: Name of a network that is told the label of every training image, or None.
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
    told: str | None

    def share(self, step: int) -> float:
        """Returns the share of the initial parameters in the average."""
        return 0.0 if self.ema is None else initial_share(self.ema, self.ema_warmup, step)


class Watch:
    """Finds each sign once, and keeps the findings in health.json."""

    def __init__(self, facts: Facts, path: Path, *, step: int, history: Iterable[tuple[int, Mapping[str, float]]]):
        """Continues the watch over a training at `step`.

        Args:
            facts: What is known before.
            path: The health.json of the run; findings after `step` are dropped.
            step: Step of the training.
            history: Steps and metrics up to `step`, which were looked at before.
        """
        self.facts, self._path = facts, path
        self.troubles = [finding for finding in read_troubles(path) if finding.step <= step]
        self._windows: list[Window] = []
        self._open: list[tuple[int, float, float]] = []  # updates, loss and gradient of lines not yet in a window
        self._untrained, self._last = math.inf, 0
        self._held_out: dict[str, list[tuple[int, float]]] = {}
        for earlier, values in history:
            self._take(earlier, values)
        self._last = step  # an imported model begins at a later one than 0
        write_troubles(path, self.troubles)

    def begin(self, step: int) -> list[Trouble]:
        """Returns what the settings show, before the first update."""
        facts = self.facts
        found = [("prior", short_of_noise(facts.gamma_max, facts.mean_square)), ("labels", labels_untold(facts.told))]
        if facts.spacing is not None:
            found.append(("levels", open_levels(facts.gamma_min, facts.spacing)))
        if facts.ema is not None:
            found.append(("average", slow_average(facts.ema, facts.ema_warmup, facts.steps)))
        return self._new(iter(found), step)

    def see(self, step: int, values: Mapping[str, float]) -> list[Trouble]:
        """Returns what a line of metrics shows that was not found before."""
        grown = self._take(step, values)
        return [] if step < FEWEST_UPDATES else self._new(self._signs(step, values, grown), step)

    def stopped(self, step: int, reason: str) -> None:
        """Keeps the reason why a number that is not finite ended the training; the error itself is what users see."""
        self.troubles.append(Trouble("not_finite", step, reason))
        write_troubles(self._path, self.troubles)

    def _signs(self, step: int, values: Mapping[str, float], grown: bool) -> Signs:
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

    def _new(self, signs: Signs, step: int) -> list[Trouble]:
        new = []
        for sign, message in signs:
            known = {finding.sign for finding in self.troubles}
            if message and sign not in known and not known & _UNSTABLE:
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
