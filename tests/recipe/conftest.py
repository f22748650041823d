# SPDX-License-Identifier: Apache-2.0
"""Stub components, so that tests of recipes do not depend on the components of a release."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import pytest
from annotated_types import Gt

from vdmkit import plugins, registry


@pytest.fixture(autouse=True)
def stub_components(monkeypatch):
    """Replaces the registry by stubs: no package of vdmkit is imported and no installed plugin is loaded."""
    monkeypatch.setattr(registry, "_registries", {})
    monkeypatch.setattr(registry, "_MODULES", ())
    monkeypatch.setattr(plugins.importlib.metadata, "entry_points", lambda **_: [])
    registry.define_kind("schedule", "schedules", None, ("key",))
    for kind in (
        "data",
        "path",
        "prediction",
        "network",
        "observation",
        "time_sampler",
        "weighting",
        "sampler",
        "grid",
        "kernel",
        "estimator",
    ):
        registry.define_kind(kind, f"of kind {kind}", None, ("shape",))
    registry.define_kind("augmentation", "augmentations", None)
    registry.define_kind("optimizer", "optimizers", None, ("steps",))
    _register_stubs()


def _register_stubs() -> None:
    def bare(kind: str, name: str) -> None:
        registry.register(kind, name)(dataclass(frozen=True)(type(name, (), {"__doc__": f"Stub {name}."})))

    for kind, name in [
        ("path", "variance_preserving"),
        ("prediction", "eps"),
        ("observation", "categorical"),
        ("time_sampler", "low_discrepancy"),
        ("time_sampler", "independent"),
        ("weighting", "elbo"),
        ("grid", "uniform"),
        ("kernel", "gaussian"),
        ("estimator", "importance"),
        ("augmentation", "flip"),
    ]:
        bare(kind, name)

    @registry.register("schedule", "linear")
    @dataclass(frozen=True, kw_only=True)
    class Linear:
        """Straight line."""

        gamma_min: float = -13.3
        gamma_max: float = 5.0

    @registry.register("schedule", "learned_linear")
    class LearnedLinear:
        """Straight line with learned ends."""

        def __init__(self, key: int, *, gamma_min: float, gamma_max: float = 5.0, ends: tuple[float, ...] = (0.0, 1.0)):
            self.key, self.gamma_min, self.gamma_max, self.ends = key, gamma_min, gamma_max, ends

    @registry.register("data", "files")
    @dataclass(frozen=True, kw_only=True)
    class Files:
        """Images in files."""

        path: Path
        split: Literal["train", "test"] = "train"
        limit: int | None = None

    @registry.register("network", "unet")
    @dataclass(frozen=True, kw_only=True)
    class UNet:
        """A stub of a network."""

        channels: Annotated[int, Gt(0)] = 128
        attention: bool = False
        copy: str = "a name that pydantic models already use"

    @registry.register("augmentation", "rotate")
    @dataclass(frozen=True, kw_only=True)
    class Rotate:
        """A stub of an augmentation."""

        degrees: int = 90

    @registry.register("estimator", "bound")
    @dataclass(frozen=True, kw_only=True)
    class Bound:
        """A stub of the default estimator, with the key of estimators of an ODE."""

        solver_steps: int = 1

    @registry.register("sampler", "ancestral")
    @dataclass(frozen=True, kw_only=True)
    class Ancestral:
        """A stub of the default sampler, with the key of samplers of an ODE."""

        solver_steps: int = 1

    @registry.register("optimizer", "adamw")
    @dataclass(frozen=True, kw_only=True)
    class AdamW:
        """A stub of an optimizer."""

        learning_rate: float = 2e-4


GOOD = """\
seed = 3
augmentations = ["flip", {name = "rotate", degrees = 180}]

[data]
name = "files"
path = "images"

[model.schedule]
name = "learned_linear"
gamma_min = -13

[model]
prediction = "eps"

[model.network]
name = "unet"
channels = 64

[optimizer]
name = "adamw"

[training]
steps = 1_000
batch_size = 8
"""


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes a recipe file, by default a valid one with `old` text replaced by `new`. Returns its relative path."""
    monkeypatch.chdir(tmp_path)

    def write(*edits: tuple[str, str], text: str = GOOD, name: str = "a.toml") -> Path:
        for old, new in edits:
            assert old in text
            text = text.replace(old, new)
        Path(name).write_text(text)
        return Path(name)

    return write
