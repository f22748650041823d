# SPDX-License-Identifier: Apache-2.0
"""Training speed of the shipped recipes on this machine: `uv run python benchmarks/training.py`.

Every row is `vdmkit bench`, a process of its own, so that peak memory is its own. Ratios are against the first row.

The last line is what a schedule that follows the variance costs: steps with it and without, in turns in one process, so
that drift of the machine cancels.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable

import jax
import numpy as np

from vdmkit.experiments.speed import median
from vdmkit.recipes import find_recipe, load_recipe
from vdmkit.recipes.build import build_optimizer, build_state, build_update
from vdmkit.training.step import train_step

RECIPES = ("digits", "digits_eps", "cifar10_small")
LEARNED = ("digits", "digits_learned")
PAIRS = 500
HEADER = ("recipe", "batch", "parameters", "compile s", "steps/s", "images/s", "ratio", "peak MiB")


def stepping(recipe_name: str) -> Callable[[], float]:
    """A function that makes a step on random images, and returns its seconds."""
    recipe = load_recipe(find_recipe(recipe_name))
    source, size = recipe.data.build(), recipe.training.batch_size
    state = build_state(recipe, jax.numpy.asarray(np.ones((*source.shape, source.levels), np.int32)))
    images = np.random.default_rng(0).integers(source.levels, size=(size, *source.shape), dtype=np.uint8)
    batch = jax.device_put({"image": images, "augmented": np.zeros(size, np.float32)})
    inputs = build_update(recipe, build_optimizer(recipe)), batch, jax.random.key(0)

    def step() -> float:
        nonlocal state
        start = time.monotonic()
        state, _ = jax.block_until_ready(train_step(inputs, state))
        return time.monotonic() - start

    step()
    return step


def compare(names: tuple[str, str]) -> str:
    """The time of a step of the second recipe over that of the first: the median of pairs, and its 95% interval."""
    first, second = map(stepping, names)
    ratios = []
    for i in range(PAIRS):
        if i % 2:  # who comes first may find a cache warm
            of_first, of_second = first(), second()
        else:
            of_second, of_first = second(), first()
        ratios.append(of_second / of_first)
    ratio = median(np.array(ratios))
    times = f"{ratio.value:.3f} ({ratio.low:.3f} to {ratio.high:.3f}) times as long"
    return f"{names[1]} against {names[0]}: a step takes {times}"


def main() -> None:
    """Print the table."""
    print(("{:<20}" + "{:>12}" * 7).format(*HEADER))
    baseline = None
    for name in RECIPES:
        command = [sys.executable, "-m", "vdmkit", "bench", name, "--json"]
        row = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        step = row["step_seconds"]["value"]
        baseline = baseline or step
        print(
            f"{name:<20}{row['batch_size']:>12}{row['parameters']:>12,}{row['compile_seconds']:>12.1f}{1 / step:>12.2f}"
            f"{row['batch_size'] / step:>12.0f}{baseline / step:>12.3f}{row['peak_mib']:>12.0f}",
            flush=True,
        )
    print(compare(LEARNED))


if __name__ == "__main__":
    main()
