# SPDX-License-Identifier: Apache-2.0
"""Training speed of the literature's networks for their arithmetic: `uv run python benchmarks/backbones.py [--cpu]`.

Each row is the gradient of a squared error at 8 images of 32x32, at a small width. The compiler counts the arithmetic.
The ratio is the time of a floating-point operation over that of `vdm_unet`: the median of steps in turns with it, which
cancels drift of the machine. With `--cpu`, times are CPU seconds of all threads, which other work disturbs less.
"""

import sys
import time
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import numpy as np

from vdmkit.experiments.speed import median
from vdmkit.registry import registry

SHAPE, IMAGES, PAIRS = (32, 32, 3), 8, 8
NETWORKS: dict[str, dict[str, Any]] = {
    "vdm_unet": {"channels": 32, "blocks": 6},
    "ddpm_unet": {"channels": 32},
    "ddpmpp": {"channels": 32},
    "ncsnpp": {"channels": 32},
    "iddpm_unet": {"channels": 32},
    "adm_unet": {"channels": 32, "head_channels": 32, "attention": (16, 8)},
}
clock = time.process_time if "--cpu" in sys.argv else time.monotonic
HEADER = ("network", "parameters", "GFLOP a step", "s a step", "GFLOP/s", "ratio")


def stepping(name: str) -> tuple[Callable[[], float], float, int]:
    """Returns a function that computes a gradient and returns its seconds, its operations, and its parameters."""
    context = {"shape": SHAPE, "outputs": 1, "gamma_range": (-13.3, 5.0), "classes": 10, "key": jax.random.key(0)}
    network = registry("network").get(name).build(context, **NETWORKS[name])
    z, target = np.random.default_rng(0).standard_normal((2, IMAGES, *SHAPE), np.float32)
    gamma, keys = np.linspace(-8, 4, IMAGES, dtype=np.float32), jax.random.split(jax.random.key(1), IMAGES)

    @eqx.filter_jit
    @eqx.filter_grad
    def gradient(network: Any, z: Any, gamma: Any, target: Any, keys: Any) -> Any:
        output = jax.vmap(lambda z, gamma, key: network(z, gamma, {}, key=key))(z, gamma, keys)
        return ((output[..., 0] - target) ** 2).mean()

    compiled: Any = gradient.lower(network, z, gamma, target, keys).compile()

    def step() -> float:
        start = clock()
        jax.block_until_ready(jax.tree.leaves(eqx.filter(compiled(network, z, gamma, target, keys), eqx.is_array)))
        return clock() - start

    step()
    parameters = sum(leaf.size for leaf in jax.tree.leaves(eqx.filter(network, eqx.is_inexact_array)))
    found = compiled.compiled.cost_analysis()
    return step, float((found[0] if isinstance(found, list) else found)["flops"]), parameters


def main() -> None:
    """Print the table."""
    print(("{:<12}" + "{:>14}" * 5).format(*HEADER))
    first = None
    for name in NETWORKS:
        step, flops, parameters = stepping(name)
        first = first or (step, flops)
        turns = [(first[0](), step()) if i % 2 else (step(), first[0]())[::-1] for i in range(PAIRS)]
        pairs = np.array(turns)  # who comes first may find a cache warm
        seconds, ratio = median(pairs[:, 1]).value, median(pairs[:, 1] / pairs[:, 0] * first[1] / flops).value
        figures = f"{flops / 1e9:>14.1f}{seconds:>14.3f}{flops / seconds / 1e9:>14.1f}{ratio:>14.3f}"
        print(f"{name:<12}{parameters:>14,}{figures}", flush=True)


if __name__ == "__main__":
    main()
