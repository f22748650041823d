# SPDX-License-Identifier: Apache-2.0
"""Memory of a training step of `vdm_cifar10` by the compiler's analysis: `uv run python benchmarks/memory.py`.

At 32 channels and 16 images of 32x32, on the backend of this machine: with all activations kept, with those inside of
stages computed again (`model.network.remat`), with one program for all stages (`model.network.scan`), with both, and
with the batch in four parts (`training.micro_batches`).
"""

from vdmkit.experiments.speed import memory_of_step
from vdmkit.recipes import find_recipe, load_recipe

SIZE = ["model.network.channels=32", "training.batch_size=16"]
REMAT, SCAN = "model.network.remat=true", "model.network.scan=true"
WAYS = {
    "as it is": [],
    "remat": [REMAT],
    "scan": [SCAN],
    "scan and remat": [SCAN, REMAT],
    "4 micro-batches": ["training.micro_batches=4"],
}


def main() -> None:
    """Print a row for each depth, in MiB besides the state."""
    print(("{:>6}" + "{:>18}" * len(WAYS)).format("blocks", *WAYS))
    for blocks in (8, 16, 32):
        recipes = (
            load_recipe(find_recipe("vdm_cifar10"), [*SIZE, f"model.network.blocks={blocks}", *way])
            for way in WAYS.values()
        )
        found = [memory_of_step(recipe, fsdp=False).working / 2**20 for recipe in recipes]
        print(("{:>6}" + "{:>18,.0f}" * len(WAYS)).format(blocks, *found), flush=True)


if __name__ == "__main__":
    main()
