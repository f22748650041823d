# SPDX-License-Identifier: Apache-2.0
"""The contents of a recipe. Every keyword-only field here is a key of the TOML file; there is no other schema."""

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
    """The training objective. `steps` is T of the discrete-time bound; 0 means continuous time.

    With `schedule_loss` "variance" the interior of a `pinned` schedule, which does not change the bound, is trained to
    minimise the variance of the bound's estimate.
    """

    time_sampler: Annotated[Choice, "time_sampler"] = Choice("time_sampler", "low_discrepancy")
    weighting: Annotated[Choice, "weighting"] = Choice("weighting", "elbo")
    steps: StepsOrZero = 0
    kernel: Annotated[Choice, "kernel"] = Choice("kernel", "gaussian")
    grid: Annotated[Choice, "grid"] = Choice("grid", "uniform")
    schedule_loss: Literal["bound", "variance"] = "bound"


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """Settings of training and of its checkpoints. Intervals are in steps; `evaluate_every` 0 means only at the end.

    With `evaluate_draws` (even) the evaluations during training, and another at its end, use that many draws per
    image, the same each time, so that the curve is smooth. By default they use the draws of the reported bound.

    At least two checkpoints are kept, because an interruption can damage the newest. `keep_best` also keeps those of
    lowest test bpd at `evaluate_every`; choosing among them is model selection on the test set.

    The network computes in the type `compute`, by default that of its parameters, float32, and multiplies with
    `matmul_precision`, by default the device's, which on a GPU or TPU is less than float32. With `micro_batches` the
    gradient of a batch is computed of so many parts, one after the other, which needs less memory and changes nothing
    but roundings.
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
    compute: Literal["bfloat16"] | None = None
    matmul_precision: Literal["default", "high", "highest"] | None = None
    micro_batches: AtOnce = 1


@dataclass(frozen=True, kw_only=True)
class EvaluationSettings:
    """Settings of the reported bound: `draws` (even) per image, `batch_size` images per dispatch, T = `steps`.

    `steps` 0 is continuous time; by default it is the bound that the model was trained on. If the pass over the test
    set takes longer than `minutes`, the run reports the images done by then, with a note.
    """

    draws: EvenDraws = 16
    batch_size: AtOnce = 128
    weights: Literal["ema", "raw"] = "ema"
    steps: StepsOrZero | None = None
    minutes: Minutes = 10.0


@dataclass(frozen=True, kw_only=True)
class LikelihoodSettings:
    """Settings of `vdmkit likelihood`: an estimator, on all test images or on `images` of them, drawn at random.

    With a `precision` above 0 (bits/dim) it continues until the 95% Monte Carlo half-width is that small.

    With a `label` it measures images given their own labels ("data"), or given this one; by default a network is told
    no label.
    """

    estimator: Annotated[Choice, "estimator"] = Choice("estimator", "bound")
    precision: Annotated[float, Ge(0), Le(100)] = 0.0
    images: Count = 0
    label: Literal["data"] | Count | None = None
    batch_size: AtOnce = 64
    weights: Literal["ema", "raw"] = "ema"


@dataclass(frozen=True, kw_only=True)
class SamplingSettings:
    """Settings of the samples at the end of a run; `minutes` is the longest that drawing them may take.

    The last of the `steps` leads to z_0, from which the observation draws levels, or with `end` = "image" to zero
    noise.

    With a `guidance` above 0 the samples have labels: `label`, or each in turn. 1 is the model's own estimate given the
    label; larger values amplify the effect of the label.

    The network computes in the type `compute`, by default that of its parameters.
    """

    sampler: Annotated[Choice, "sampler"] = Choice("sampler", "ancestral")
    grid: Annotated[Choice, "grid"] = Choice("grid", "uniform")
    steps: Steps = 250
    end: Literal["latent", "image"] = "latent"
    guidance: Annotated[float, Ge(0), Le(1000)] = 0.0
    label: Count | None = None
    count: AtOnce = 64
    minutes: Minutes = 2.0
    compute: Literal["bfloat16"] | None = None


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
        """Returns T of the reported bound; 0 is continuous time."""
        return self.objective.steps if self.evaluation.steps is None else self.evaluation.steps
