# SPDX-License-Identifier: Apache-2.0
"""Training speed of the shipped recipes on this machine: `uv run python benchmarks/training.py`.

Every row is a process of its own, so that peak memory is its own. Images are random: speed does not depend on
them, and CIFAR-10 need not be here. Ratios are against the first row.

The last line is what a schedule that follows the variance costs: steps with it and without, in turns in one process, so
that drift of the machine cancels.
"""

import json
import resource
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vdmkit.recipe import Recipe

RECIPES = ("digits.toml", "digits_eps.toml", "cifar10_small.toml")
LEARNED = ("digits.toml", "digits_learned.toml")
SECONDS = 10.0
PAIRS = 500
HEADER = ("recipe", "batch", "parameters", "compile s", "steps/s", "images/s", "ratio", "peak MiB")


@dataclass
class Training:
    """A recipe's compiled step, and the state that it is at."""

    recipe: "Recipe"
    inputs: tuple[Any, ...]
    state: Any

    def step(self) -> float:
        """Make one step; seconds."""
        import jax

        from vdmkit.training import train_step

        start = time.monotonic()
        self.state, _ = jax.block_until_ready(train_step(self.inputs, self.state))
        return time.monotonic() - start


def training(recipe_name: str) -> Training:
    """Ready for its first step, on random images."""
    import jax
    import numpy as np

    from vdmkit.assembly import build_optimizer, build_state, build_update
    from vdmkit.recipe import load_recipe

    recipe = load_recipe(Path(__file__).parents[1] / "recipes" / recipe_name)
    source, size = recipe.data.build(), recipe.training.batch_size
    state = build_state(recipe, jax.numpy.asarray(np.ones((*source.shape, source.levels), np.int32)))
    images = np.random.default_rng(0).integers(source.levels, size=(size, *source.shape), dtype=np.uint8)
    batch = jax.device_put({"image": images, "augmented": np.zeros(size, np.float32)})
    return Training(recipe, (build_update(recipe, build_optimizer(recipe)), batch, jax.random.key(0)), state)


def measure(recipe_name: str) -> dict[str, float]:
    """Compile one training step, then repeat it for a while."""
    import numpy as np

    from vdmkit.assembly import count_parameters

    of = training(recipe_name)
    first, durations = of.step(), []
    while sum(durations) < SECONDS or len(durations) < 3:
        durations.append(of.step())
    step, size = float(np.median(durations)), of.recipe.training.batch_size
    return {
        "batch": size,
        "parameters": count_parameters(of.recipe, of.recipe.data.build()),
        "compile": first - step,
        "steps": 1 / step,
        "images": size / step,
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def compare(names: tuple[str, str]) -> str:
    """The time of a step of the second recipe over that of the first: the median of pairs, and its 95% interval."""
    import numpy as np

    both = [training(name) for name in names]
    for of in both:
        of.step()
    ratios = []
    for i in range(PAIRS):
        order = both if i % 2 else both[::-1]  # who comes first may find a cache warm
        seconds = {id(of): of.step() for of in order}
        ratios.append(seconds[id(both[1])] / seconds[id(both[0])])
    ranks = 0.5 + np.array([0, -1, 1]) * 0.98 / np.sqrt(PAIRS)  # whatever the distribution: a busy machine has outliers
    middle, low, high = np.quantile(ratios, ranks)
    return f"{names[1]} against {names[0]}: a step takes {middle:.3f} ({low:.3f} to {high:.3f}) times as long"


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
    print(compare(LEARNED))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(measure(sys.argv[1])))
    else:
        main()
