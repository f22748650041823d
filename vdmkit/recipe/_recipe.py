# SPDX-License-Identifier: Apache-2.0
"""What a recipe says. Every keyword-only field here is a key of the TOML file; there is no other schema."""

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Le

from vdmkit.limits import MAX_COUNT, AtOnce, Count, Decay, EvenDraws, Minutes, Positive, Seed, Steps, StepsOrZero
from vdmkit.registry import Choice


@dataclass(frozen=True, kw_only=True)
class ModelChoices:
    """The parts of a diffusion model."""

    schedule: Annotated[Choice, "schedule"]
    path: Annotated[Choice, "path"] = Choice("path", "variance_preserving")
    prediction: Annotated[Choice, "prediction"]
    network: Annotated[Choice, "network"]
    observation: Annotated[Choice, "observation"] = Choice("observation", "categorical")


@dataclass(frozen=True, kw_only=True)
class ObjectiveChoices:
    """What is minimised. `steps` is T of the discrete-time bound; 0 means continuous time.

    With `schedule_loss` "variance" the interior of a `pinned` schedule, which does not change the bound, is trained to
    make the estimate of the bound vary least.
    """

    time_sampler: Annotated[Choice, "time_sampler"] = Choice("time_sampler", "low_discrepancy")
    weighting: Annotated[Choice, "weighting"] = Choice("weighting", "elbo")
    steps: StepsOrZero = 0
    kernel: Annotated[Choice, "kernel"] = Choice("kernel", "gaussian")
    grid: Annotated[Choice, "grid"] = Choice("grid", "uniform")
    schedule_loss: Literal["bound", "variance"] = "bound"


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """How long, on how much, and what is kept. Intervals are in steps; `evaluate_every` 0 means only at the end.

    With `evaluate_draws` (even) the evaluations during training, and one more at its end, make a curve of so many draws
    per image: the same draws every time, so that it is smooth. Left out, they have the draws of the reported bound.

    At least two checkpoints are kept: the newest can be damaged by whatever stopped the run. `keep_best` keeps those
    of lowest test bpd at `evaluate_every` besides: a choice among them is a choice made on the test set.
    """

    steps: Positive
    batch_size: AtOnce
    ema: Decay = 0.9999
    ema_warmup: bool = False
    log_every: Positive = 100
    evaluate_every: Count = 0
    evaluate_draws: EvenDraws | None = None
    sample_every: Count = 0
    checkpoint_every: Positive = 1000
    keep_last: Annotated[int, Ge(2), Le(MAX_COUNT)] = 2
    keep_best: Count = 1
    steps_per_dispatch: StepsOrZero = 0


@dataclass(frozen=True, kw_only=True)
class EvaluationSettings:
    """The reported bound: `draws` (even) per image, `batch_size` images per dispatch, T = `steps`.

    `steps` 0 is continuous time; left out, the bound is the one that the model was trained on.

    A run whose pass over the test set takes longer than `minutes` reports the images done by then, and says so.
    """

    draws: EvenDraws = 16
    batch_size: AtOnce = 128
    weights: Literal["ema", "raw"] = "ema"
    steps: StepsOrZero | None = None
    minutes: Minutes = 10.0


@dataclass(frozen=True, kw_only=True)
class LikelihoodSettings:
    """What `vdmkit likelihood` measures: an estimator, on all test images or on `images` of them, drawn at random.

    With a `precision` (bits/dim, 0: none) it goes on until the 95% Monte Carlo half-width is that small.
    """

    estimator: Annotated[Choice, "estimator"] = Choice("estimator", "bound")
    precision: Annotated[float, Ge(0), Le(100)] = 0.0
    images: Count = 0
    batch_size: AtOnce = 64
    weights: Literal["ema", "raw"] = "ema"


@dataclass(frozen=True, kw_only=True)
class SamplingSettings:
    """The samples that a run ends with; `minutes` is the longest that drawing them may take.

    The last of the `steps` leads to z_0, from which the observation draws levels, or with `end` = "image" to no noise
    at all: the estimate from z_0.

    With a `guidance` above 0 they have labels: `label`, or each in turn. 1 is the model's own estimate given the label,
    and more exaggerates what the label changes.
    """

    sampler: Annotated[Choice, "sampler"] = Choice("sampler", "ancestral")
    grid: Annotated[Choice, "grid"] = Choice("grid", "uniform")
    steps: Steps = 250
    end: Literal["latent", "image"] = "latent"
    guidance: Annotated[float, Ge(0), Le(1000)] = 0.0
    label: Count | None = None
    count: AtOnce = 64
    minutes: Minutes = 2.0


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A checked recipe: everything that a run needs, with all defaults filled in."""

    seed: Seed = 0
    data: Annotated[Choice, "data"]
    augmentations: tuple[Annotated[Choice, "augmentation"], ...] = ()
    model: ModelChoices
    objective: ObjectiveChoices = ObjectiveChoices()
    optimizer: Annotated[Choice, "optimizer"]
    training: TrainingSettings
    evaluation: EvaluationSettings = EvaluationSettings()
    likelihood: LikelihoodSettings = LikelihoodSettings()
    sampling: SamplingSettings = SamplingSettings()

    @property
    def evaluation_steps(self) -> int:
        """T of the reported bound; 0 is continuous time."""
        return self.objective.steps if self.evaluation.steps is None else self.evaluation.steps
