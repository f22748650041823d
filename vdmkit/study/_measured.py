# SPDX-License-Identifier: Apache-2.0
"""The measurements of a study of schedules, one gamma at a time."""

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import jax
import numpy as np
from jaxtyping import Float, PRNGKeyArray, Real

from vdmkit.devices import precisely
from vdmkit.likelihood.log_likelihood import Parts
from vdmkit.model import DiffusionModel
from vdmkit.progress import Progress, track
from vdmkit.reverse import AbstractKernel
from vdmkit.study._curve import Curve, errors_at, loss_at_ends
from vdmkit.study._pairs import steps_from

_BATCH = 64
_SPLITS = ("train", "test")


@dataclass(frozen=True)
class Measured:
    """Errors along gamma, and for each kernel the costs of steps between any two gammas, from `steps_from`."""

    curves: Mapping[str, Curve]
    steps: Mapping[str, Mapping[str, Float[np.ndarray, "2 g g _"]]]


@dataclass(frozen=True)
class Measurement:
    """A model, training and test images, the gammas, and kernels whose steps have to be measured one by one.

    `left_out` holds the reasons why steps of other kernels cannot be measured.
    """

    model: DiffusionModel
    images: Mapping[str, Real[np.ndarray, "_ h w c"]]
    gamma: Float[np.ndarray, " g"]
    kernels: Mapping[str, AbstractKernel]
    left_out: tuple[str, ...]
    key: PRNGKeyArray

    def without(self, problems: Mapping[str, str]) -> "Measurement":
        """Returns the measurement without some kernels; `problems` gives the reasons by name."""
        kernels = {name: kernel for name, kernel in self.kernels.items() if name not in problems}
        reasons = [f"kernel {name}: {problem}" for name, problem in problems.items()]
        return replace(self, kernels=kernels, left_out=(*self.left_out, *reasons))

    def evaluations(self, number: int) -> int:
        """Returns the number of evaluations of the network at one of the gammas."""
        return 2 * sum(map(len, self.images.values())) * (1 + (len(self.kernels) if number else 0))

    def measure(self, kept: Parts | None = None, progress: Progress = None) -> Measured:
        """Measures every gamma that is not in `kept`.

        The gammas are taken in random order. Steps from a high gamma cost more, so in sorted order the estimate of the
        remaining time would be wrong.
        """
        count = len(self.gamma)
        read = ((number, kept.read(number)) for number in range(count)) if kept else ()
        found = {number: part for number, part in read if part is not None}
        total, done = (sum(map(self.evaluations, numbers)) for numbers in (range(count), found))
        with track(progress, "measuring", total, done) as advance:
            for number in np.random.default_rng(0).permutation(count).tolist():
                if number not in found:
                    found[number] = self._at(number)
                    if kept:
                        kept.write(number, found[number])
                    advance(self.evaluations(number))
        return self._joined([found[number] for number in range(count)])

    def describe(self, done_before: Iterable[int] = ()) -> str:
        """Describes what is measured, and how much was done before, at the gammas with these numbers."""
        total, done = (sum(map(self.evaluations, some)) for some in (range(len(self.gamma)), done_before))
        images = " and ".join(f"{len(images):,} {split} images" for split, images in self.images.items())
        what = " and ".join(["errors", *(f"steps of kernel {name}" for name in self.kernels)])
        before = f", {done:,} of them done before" if done else ""
        return f"{what} at {len(self.gamma)} gammas on {images}: {total:,} evaluations of the network{before}"

    def _at(self, number: int) -> dict[str, np.ndarray]:
        """Measures everything at one gamma, both splits in parallel, because a loop over steps uses one core only."""
        with ThreadPoolExecutor(len(_SPLITS)) as pool:
            return {name: values for part in pool.map(self._of_split, _SPLITS, [number] * 2) for name, values in part}

    @precisely  # again, because the setting is local to a thread and `_at` starts new ones
    def _of_split(self, split: str, number: int) -> list[tuple[str, np.ndarray]]:
        images, key = self.images[split], self._key(split)
        found = [(f"{split}_errors", errors_at(self.model, images, self.gamma, number, key=key))]
        for name, kernel in self.kernels.items():
            steps = steps_from(self.model, kernel, images, self.gamma, number, batch_size=_BATCH, key=key)
            found.append((f"{split}_steps_{name}", steps))
        return found

    def _joined(self, parts: list[dict[str, np.ndarray]]) -> Measured:
        curves, steps = {}, {name: {} for name in self.kernels}
        for split in _SPLITS:
            ends = loss_at_ends(self.model, self.images[split], key=self._key(split))
            curves[split] = Curve(self.gamma, np.stack([part[f"{split}_errors"] for part in parts], axis=1), ends)
            for name in self.kernels:
                steps[name][split] = np.stack([part[f"{split}_steps_{name}"] for part in parts], axis=2)
        return Measured(curves, steps)

    def _key(self, split: str) -> PRNGKeyArray:
        return jax.random.fold_in(self.key, _SPLITS.index(split))
