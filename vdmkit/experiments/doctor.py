# SPDX-License-Identifier: Apache-2.0
"""Examines an installation: software, devices, arithmetic, training, folders and plugins."""

import os
import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryFile

import jax
import jax.numpy as jnp
import numpy as np

from vdmkit import __version__
from vdmkit.devices import arithmetic, missing_device, packages, precisely
from vdmkit.errors import DataError, in_one_line
from vdmkit.io import cache_folder
from vdmkit.plugins import broken_packages, load_plugins, plugin_folders
from vdmkit.recipes.build import build_optimizer, build_state, build_update
from vdmkit.recipes.loading import load_recipe
from vdmkit.training.step import train_step

_GPU = Path("/dev/nvidia0")
_ROUNDING = 1e-5  # relative error of a float32 product; TF32 has 1e-3
_SIZE = 256


@dataclass(frozen=True)
class Finding:
    """The result of one check, and advice: "" if nothing is wrong."""

    name: str
    found: str
    advice: str = ""


def examine() -> Iterator[Finding]:
    """Yields the findings one by one. Training two steps takes most of the time."""
    yield Finding("software", f"vdmkit {__version__}, Python {platform.python_version()}, {_words(packages(()))}")
    if missing := missing_device():
        yield Finding("devices", "none", missing)
    else:
        yield devices_found()
        yield product_found()
        yield training_found()
    yield cache_found()
    load_plugins()
    yield plugins_found(plugin_folders(), broken_packages())


def devices_found() -> Finding:
    """Checks for an accelerator that JAX does not use."""
    found = f"{arithmetic().device}, {jax.process_count()} process" + ("es" if jax.process_count() > 1 else "")
    if jax.default_backend() != "cpu" or not _GPU.exists():
        return Finding("devices", found)
    if platforms := os.environ.get("JAX_PLATFORMS"):
        return Finding("devices", found, f"There is an NVIDIA GPU, and JAX_PLATFORMS={platforms} hides it. Unset it.")
    return Finding("devices", found, "There is an NVIDIA GPU that JAX does not see. Install jax[cuda12].")


def product_found() -> Finding:
    """Compares a matrix product with one in float64."""
    a, b = np.random.default_rng(0).standard_normal((2, _SIZE, _SIZE)).astype(np.float32)
    exact = a.astype(np.float64) @ b.astype(np.float64)

    def error() -> float:
        return float(abs(np.asarray(jnp.asarray(a) @ jnp.asarray(b)) - exact).max() / abs(exact).max())

    as_set, highest = error(), precisely(error)()
    found = f"{arithmetic()}; a product is right to {as_set:.0e}, at the precision of measurements to {highest:.0e}"
    wrong = "Likelihoods would have this error. Do not set jax_default_matmul_precision below highest."
    return Finding("arithmetic", found, wrong if highest > _ROUNDING else "")


def training_found() -> Finding:
    """Trains the recipe `digits` for two steps on random images."""
    try:
        losses = _losses_of_two_steps()
    except Exception as error:  # any failure; the other findings may explain it
        return Finding("training", in_one_line(error), "JAX, or a component, does not work on this device.")
    found = "digits, two steps on random images: " + ", ".join(f"{loss:.3f}" for loss in losses) + " bits/dim"
    return Finding("training", found, "" if np.isfinite(losses).all() else "The device computes wrong numbers.")


def _losses_of_two_steps() -> list[float]:
    recipe = load_recipe("digits")
    source, size = recipe.data.build(), recipe.training.batch_size
    state = build_state(recipe, jnp.ones((*source.shape, source.levels), jnp.int32))
    images = np.random.default_rng(0).integers(0, source.levels, (size, *source.shape), np.uint8)
    update, batch = build_update(recipe, build_optimizer(recipe)), {"image": jnp.asarray(images)}
    losses = []
    for _ in range(2):
        state, metrics = train_step((update, batch, jax.random.key(0)), state)
        losses.append(float(metrics["bpd"][0]))
    return losses


def cache_found() -> Finding:
    """Checks whether images and compiled functions can be stored in the cache folder."""
    try:
        folder = cache_folder()
    except DataError as error:
        return Finding("cache", "none", str(error))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        advice = "Nothing is kept between commands. Set VDMKIT_CACHE to another folder."
        return Finding("cache", f"{folder} may not be written: {error.strerror}", advice)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return Finding("cache", f"{folder}, {size / 2**20:,.0f} MiB")


def plugins_found(folders: Mapping[str, Path], broken: list[str]) -> Finding:
    """Lists the installed packages with components or commands, one a line, and those that do not load."""
    lines = [f"{name} {version(name)} in {folder}" for name, folder in folders.items()]
    found = "\n".join(lines) or "no installed package brings components or commands"
    if not broken:
        return Finding("plugins", found)
    return Finding("plugins", found, f"{', '.join(broken)}: cannot be loaded, for the reason in the warning above.")


def _words(versions: dict[str, str]) -> str:
    return ", ".join(f"{name} {found}" for name, found in versions.items())
