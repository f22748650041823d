# SPDX-License-Identifier: Apache-2.0
"""The schema of recipes: every keyword-only field here is a key of the TOML file, and no other schema exists.

It also writes a `Recipe` as plain values or TOML including all defaults, records how samples were drawn (`Drawn`),
finds keys by their last part for advice on mistyped options, and lists the keys that differ from the defaults.
"""

import inspect
from collections.abc import Iterator
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

import tomli_w
from annotated_types import Ge, Le

from vdmkit.arguments import MAX_COUNT, AtOnce, Count, Decay, EvenDraws, Minutes, Positive, Seed, Steps, StepsOrZero
from vdmkit.recipes.validation import toml_text
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

    With `evaluate_draws` (even) the evaluations during training, and an additional one at its end, use that many draws
    per image, the same each time, so that the curve is smooth. By default they use the draws of the reported bound.

    At least two checkpoints are kept, because an interruption can damage the newest. `keep_best` also keeps those with
    the lowest test bpd at `evaluate_every`; choosing among them is model selection on the test set.

    The network computes in the dtype `compute`, by default that of its parameters, float32. Matrix products use
    `matmul_precision`, by default that of the device, which is lower than float32 on a GPU or TPU. With `micro_batches`
    the gradient is accumulated over that many parts of the batch, which saves memory and changes only rounding.
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

    With a `label` it measures images conditioned on their own labels ("data") or on this one; by default the network is
    not conditioned.
    """

    estimator: Annotated[Choice, "estimator"] = Choice("estimator", "bound")
    precision: Annotated[float, Ge(0), Le(100)] = 0.0
    images: Count = 0
    label: Literal["data"] | Count | None = None
    batch_size: AtOnce = 64
    weights: Literal["ema", "raw"] = "ema"


@dataclass(frozen=True, kw_only=True)
class SamplingSettings:
    """Settings of the samples at the end of a run; `minutes` is the time limit for drawing them.

    The last of the `steps` ends at z_0, from which the observation draws levels, or with `end` = "image" at zero noise.

    With a `guidance` above 0 the samples have labels: `label`, or each in turn. 1 is the model's own conditional
    estimate; larger values amplify the effect of the label.

    The network computes in the dtype `compute`, by default that of its parameters.
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


def resolved(recipe: Recipe) -> dict[str, Any]:
    """Returns the recipe as TOML values. Keys with value None are omitted, because TOML has no null."""
    return _plain(recipe)


def dump(recipe: Recipe) -> str:
    """Returns TOML text that `load_recipe` reads back to an equal recipe."""
    return tomli_w.dumps(resolved(recipe))


def one_line(choice: Choice) -> str:
    """Returns a component and its keys on one line, such as `ddim eta=0.0`."""

    def text(value: Any) -> str:
        return f"({one_line(value)})" if isinstance(value, Choice) else toml_text(value)

    return " ".join([choice.name, *(f"{key}={text(value)}" for key, value in choice.params.items())])


def differences(a: Recipe, b: Recipe) -> list[str]:
    """Returns the dotted keys in which two recipes differ; empty if they describe the same run."""
    left, right = flat(a), flat(b)
    return [key for key in dict.fromkeys([*left, *right]) if left.get(key) != right.get(key)]


def flat(recipe: Recipe) -> dict[str, Any]:
    """Returns the recipe's values by dotted key."""
    return dict(leaves(resolved(recipe)))


def _plain(value: Any) -> Any:
    if isinstance(value, Choice):
        return _plain({"name": value.name, **value.params})
    if is_dataclass(value):
        return _plain({field.name: getattr(value, field.name) for field in fields(value)})
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items() if inner is not None}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    return str(value) if isinstance(value, Path) else value


def leaves(table: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Returns the dotted keys and values of nested tables, in order."""
    found = []
    for key, value in table.items():
        found += leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else [(prefix + key, value)]
    return found


@dataclass(frozen=True)
class Drawn:
    """A record of how samples were drawn; with guidance above 0 and no `label`, labels are used in turn."""

    sampler: str
    grid: str
    steps: int
    end: Literal["latent", "image"]
    guidance: float
    label: int | None

    @property
    def settings(self) -> str:
        """Returns the settings other than the components."""
        end = "z_0" if self.end == "latent" else "the image"
        labels = "labels in turn" if self.label is None else f"label {self.label}"
        return f"{self.steps:,} steps to {end}, guidance {self.guidance:g}, {labels if self.guidance else 'no labels'}"

    def __str__(self) -> str:
        return f"sampler {self.sampler}, grid {self.grid}, {self.settings}"


def drawn_by(recipe: Recipe) -> Drawn:
    """Returns the record of how a recipe draws samples."""
    settings = recipe.sampling
    sampler, grid = one_line(settings.sampler), one_line(settings.grid)
    return Drawn(sampler, grid, settings.steps, settings.end, settings.guidance, settings.label)


# keys that most components of a kind have
_OF_COMPONENTS = ("optimizer.learning_rate", "model.network.channels", "likelihood.estimator.draws")
_ALIASES = {"lr": "learning_rate", "width": "channels"}


def keys_called(name: str) -> list[str]:
    """Returns the dotted keys of settings and components whose last part is `name`, such as `training.steps`."""
    name = _ALIASES.get(name, name)
    return [key for key in (*_keys(Recipe, ""), *_OF_COMPONENTS) if key.rpartition(".")[2] == name]


def _keys(settings: type, prefix: str) -> Iterator[str]:
    for name, annotation in get_type_hints(settings).items():
        if is_dataclass(annotation) and isinstance(annotation, type) and annotation is not Choice:
            yield from _keys(annotation, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def changed_keys(recipe: Recipe) -> set[str]:
    """Returns the dotted keys whose values are not the defaults, including keys without a default."""
    return set(_changed(recipe, MISSING, ""))


def _changed(value: Any, default: Any, key: str) -> Iterator[str]:
    """Yields the changed keys below `key`. Components, and tables without a default, are compared field by field."""
    if isinstance(value, Choice):
        yield from _of_choice(value, default, key)
    elif is_dataclass(value):
        for one in fields(value):
            of_table = getattr(default, one.name, one.default)
            yield from _changed(getattr(value, one.name), of_table, f"{key}.{one.name}".lstrip("."))
    elif value != default:
        yield key


def _of_choice(choice: Choice, default: Any, key: str) -> Iterator[str]:
    same = isinstance(default, Choice) and default.name == choice.name
    if not same:
        yield f"{key}.name"
    given = default.params if same else {}
    for name, value in choice.params.items():
        found = choice.component.parameters[name].default
        yield from _changed(
            value, given.get(name, MISSING if found is inspect.Parameter.empty else found), f"{key}.{name}"
        )
