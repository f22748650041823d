# SPDX-License-Identifier: Apache-2.0
"""Where the seconds before the first training step go: `uv run python benchmarks/start.py RECIPE [--set KEY=VALUE]...`.

Runs `vdmkit run` up to its first step three times, each time in a new process and run folder, with a cache folder that
is empty at first. Prints the wall-clock and CPU seconds (of all threads) of each part. The second start has what the
first one compiled; the third shows how much the machine's other work disturbs both.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

PARTS = {  # functions by the module that calls them, and what their time is that of
    "vdmkit.experiments.run": {
        "check_before_training": "images, checks without the model",
        "check_comparable": "comparison with the test set",
        "begin": "model and optimiser",
        "check_model_of_recipe": "checks of the model",
    },
}
STARTS = 3


def main() -> None:
    """Print a table of the starts, or in a process of its own (with `--child`) the parts of one."""
    if sys.argv[1] == "--child":
        return child(sys.argv[2:])
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"VDMKIT_CACHE": f"{folder}/cache"}
        for number in range(STARTS):
            print(f"start {number + 1:<32}{'wall':>8}{'CPU':>8}", flush=True)
            own = [sys.executable, __file__, "--child", *sys.argv[1:], "--out", f"{folder}/{number}"]
            subprocess.run(own, env=environment, check=True, stderr=subprocess.DEVNULL)


def child(arguments: list[str]) -> None:
    """Run the command up to the end of its first step, and print when each part ends."""
    marks = [(time.monotonic(), time.process_time())]

    def mark(name: str) -> None:
        now = time.monotonic(), time.process_time()
        print(f"{name:<38}{now[0] - marks[-1][0]:8.2f}{now[1] - marks[-1][1]:8.2f}", flush=True)
        marks.append(now)

    from vdmkit.cli.app import main as program
    from vdmkit.cli.app import use_compilation_cache

    use_compilation_cache()  # before JAX is loaded

    mark("imports")
    for module, functions in PARTS.items():
        for function, name in functions.items():
            after(sys.modules[module], function, lambda name=name: mark(name))
    loop: Any = sys.modules["vdmkit.experiments.run"].Loop
    updates = loop.updates

    def first(*args: Any) -> Iterator[Any]:
        import jax

        jax.block_until_ready(next(updates(*args))[2])
        mark("first step")
        total = (now - begun for now, begun in zip(marks[-1], marks[0], strict=True))
        print("{:<38}{:8.2f}{:8.2f}".format("total", *total), flush=True)
        os._exit(0)
        yield

    loop.updates = first
    sys.argv = ["vdmkit", "run", *arguments]
    program()


def after(module: Any, name: str, then: Callable[[], None]) -> None:
    """Have `then` called after each call of a module's function."""
    function = getattr(module, name)

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        found = function(*args, **kwargs)
        then()
        return found

    setattr(module, name, wrapped)


if __name__ == "__main__":
    main()
