# SPDX-License-Identifier: Apache-2.0
"""Fixtures for all tests: a model that compiles in a second, and the program in this process."""

import io
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

import vdmkit
from vdmkit.cli.app import main
from vdmkit.data import Images
from vdmkit.data.sources import identified
from vdmkit.decoders import CategoricalObservation
from vdmkit.model import DiffusionModel
from vdmkit.networks import AbstractNetwork
from vdmkit.plugins import load_plugins
from vdmkit.predictions import Eps
from vdmkit.process import VariancePreserving
from vdmkit.registry import kinds, registry
from vdmkit.schedules import LearnedLinear

# Shares compiled functions between runs of the tests, workers and modules.
CACHE = Path(__file__).parents[1] / ".pytest_cache" / "jax"
jax.config.update("jax_compilation_cache_dir", os.environ.get("JAX_COMPILATION_CACHE_DIR", str(CACHE)))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)

# Before any module is collected, so that tests parametrised over a registry include plugins, whichever files are run.
load_plugins()

SHAPE, LEVELS = (4, 4, 1), 5


class _Tiny(AbstractNetwork):
    """One dense layer on the whole image, gamma and the augmentation flag, with dropout on its input in training."""

    kernel: Array
    bias: Array

    def __call__(self, z, gamma, condition, *, key=None):
        inputs = jnp.append(z, gamma + condition.get("augmented", 0.0))
        kept = 1.0 if key is None else jax.random.bernoulli(key, 0.9, inputs.shape)
        return (jnp.tanh(kept * inputs @ self.kernel) + self.bias).reshape(*z.shape, 1)


@pytest.fixture(autouse=True, scope="module")
def forget_compiled() -> Iterator[None]:
    """Clears compiled functions after each module; all of them together take 5 GB."""
    yield
    jax.clear_caches()


@pytest.fixture(autouse=True, scope="module")
def forget_registered() -> Iterator[None]:
    """Removes the components that a module registers, so that they do not affect the next one."""
    with _registries_as_they_were():
        yield


@pytest.fixture(scope="session")
def tiny_model() -> DiffusionModel:
    """A model with a learned linear schedule and eps prediction for 4x4 images of 5 levels; no parameter is zero."""
    rng = np.random.default_rng(0)
    pixels = int(np.prod(SHAPE))
    kernel, bias = rng.normal(size=(pixels + 1, pixels)), rng.normal(size=pixels)
    network = _Tiny(jnp.asarray(kernel / 8, jnp.float32), jnp.asarray(bias, jnp.float32))
    schedule = LearnedLinear(gamma_min=-6.0, gamma_max=5.0)
    return DiffusionModel(
        schedule=schedule,
        path=VariancePreserving(),
        prediction=Eps(),
        network=network,
        observation=CategoricalObservation(LEVELS),
        shape=SHAPE,
    )


@pytest.fixture(scope="session")
def tiny_images() -> Images:
    """Twelve images that fit the tiny model."""
    pixels = np.random.default_rng(1).integers(0, LEVELS, (12, *SHAPE)).astype(np.uint8)
    return identified(pixels, LEVELS, name="tiny", split="test")


@pytest.fixture(scope="session")
def digits_toml() -> Path:
    """The default recipe: categorical prediction, small U-Net, gamma from -8 to 5, 8x8 images of 17 levels."""
    return Path(vdmkit.__file__).parents[1] / "recipes" / "digits.toml"


@pytest.fixture(scope="session")
def as_float64():
    """Returns a function that converts the float32 arrays of a pytree to float64, inside `jax.enable_x64`."""
    return lambda tree: jax.tree.map(
        lambda leaf: leaf.astype(jnp.float64) if eqx.is_inexact_array(leaf) else leaf, tree
    )


@dataclass(frozen=True)
class Result:
    """Exit code and output of a finished command."""

    code: int
    out: str
    err: str

    @property
    def written(self) -> Path:
        """Path of the result that `vdmkit likelihood` reports. The results per image are in the .npz next to it."""
        (line,) = (line for line in self.err.splitlines() if line.startswith("written to "))
        path = Path(line.removeprefix("written to ").partition(",")[0])
        assert line == f"written to {path}, every image's to {path.with_suffix('.npz')}"
        return path


@dataclass(frozen=True)
class Program:
    """Runs `vdmkit` in a folder, in this process, so that compiled functions and imports are shared.

    Tests that need a process of its own are in tests/system.
    """

    cwd: Path
    plugins: tuple[str, ...] = ()

    def __call__(self, *arguments: str, plugins: tuple[str, ...] | None = None) -> Result:
        """Runs a command to its end, and asserts that it printed no traceback."""
        plugins = () if arguments[0] == "import" else self.plugins if plugins is None else plugins
        out, err = io.StringIO(), io.StringIO()
        with _as_it_was(), pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
            patch.chdir(self.cwd)
            patch.setattr(sys, "argv", ["vdmkit", *arguments, *plugins])
            patch.delenv("UV_RUN_RECURSION_DEPTH", raising=False)  # it makes commands "uv run ..."
            with pytest.raises(SystemExit) as exited:
                main()
        assert "Traceback" not in err.getvalue(), err.getvalue()
        return Result(int(exited.value.code or 0), out.getvalue(), err.getvalue())

    def together(self, *commands: tuple[str, ...], **options) -> list[Result]:
        """Runs several commands to their ends."""
        return [self(*command, **options) for command in commands]


@contextmanager
def _as_it_was() -> Iterator[None]:
    """Restores what a command changes in its process: registered components and signal handlers."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with _registries_as_they_were():
            yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


@contextmanager
def _registries_as_they_were() -> Iterator[None]:
    """Removes the components that are registered inside the block."""
    before = {kind: dict(registry(kind).components) for kind in kinds()}
    try:
        yield
    finally:
        for kind, components in before.items():
            known = registry(kind).components
            known.clear()
            known.update(components)


@pytest.fixture(scope="session")
def result_of() -> type[Result]:
    """`result_of(code, out, err)` makes a result."""
    return Result


@pytest.fixture(scope="session")
def vdmkit_in() -> Callable[..., Program]:
    """`vdmkit_in(folder)("check", "a.toml")` runs a command. `vdmkit_in(folder, plugins)` adds plugin arguments."""
    return Program
