# SPDX-License-Identifier: Apache-2.0
"""Training speed of the shipped recipes on this machine: `uv run python benchmarks/training.py`.

Every row is a process of its own, so that peak memory is its own. Images are random: speed does not depend on
them, and CIFAR-10 need not be here. Ratios are against the first row.
"""

import json
import resource
import subprocess
import sys
import time
from pathlib import Path

RECIPES = ("digits.toml", "digits_eps.toml", "cifar10_small.toml")
SECONDS = 10.0
HEADER = ("recipe", "batch", "parameters", "compile s", "steps/s", "images/s", "ratio", "peak MiB")


def measure(recipe_name: str) -> dict[str, float]:
    """Compile one training step, then repeat it for a while."""
    import jax
    import numpy as np

    from vdmkit.assembly import build_optimizer, build_state, build_update, count_parameters
    from vdmkit.recipe import load_recipe
    from vdmkit.training import train_step

    recipe = load_recipe(Path(__file__).parents[1] / "recipes" / recipe_name)
    source, size = recipe.data.build(), recipe.training.batch_size
    counts = np.ones((*source.shape, source.levels), np.int32)
    state = build_state(recipe, jax.numpy.asarray(counts))
    images = np.random.default_rng(0).integers(source.levels, size=(size, *source.shape), dtype=np.uint8)
    batch = jax.device_put({"image": images, "augmented": np.zeros(size, np.float32)})
    inputs = (build_update(recipe, build_optimizer(recipe)), batch, jax.random.key(0))
    start = time.monotonic()
    state, _ = jax.block_until_ready(train_step(inputs, state))
    first = time.monotonic() - start
    durations = []
    while sum(durations) < SECONDS or len(durations) < 3:
        start = time.monotonic()
        state, _ = jax.block_until_ready(train_step(inputs, state))
        durations.append(time.monotonic() - start)
    step = float(np.median(durations))
    return {
        "batch": size,
        "parameters": count_parameters(recipe, source),
        "compile": first - step,
        "steps": 1 / step,
        "images": size / step,
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def main() -> None:
    """Print the table."""
    print(("{:<20}" + "{:>12}" * 7).format(*HEADER))
    baseline = None
    for name in RECIPES:
        done = subprocess.run([sys.executable, __file__, name], check=True, capture_output=True, text=True)
        row = json.loads(done.stdout)
        baseline = baseline or row["steps"]
        ratio = row["steps"] / baseline
        print(
            f"{name:<20}{row['batch']:>12}{row['parameters']:>12,}{row['compile']:>12.1f}{row['steps']:>12.2f}"
            f"{row['images']:>12.0f}{ratio:>12.3f}{row['peak']:>12.0f}",
            flush=True,
        )


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(measure(sys.argv[1])))
    else:
        main()
