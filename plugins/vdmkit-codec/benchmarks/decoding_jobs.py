# SPDX-License-Identifier: Apache-2.0
"""Chunks that are decoded concurrently: `uv run python decoding_jobs.py RUN`, in this folder.

Compresses 512 images of a run's data in four chunks, and prints what decoding takes: by one thread, by threads, and by
processes that decode half of the chunks each. "first" is what a process takes before it can begin: it starts, reads the
run and compiles; later ones are after a first decoding. CPU is the time of all cores.
"""

import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import vdmkit_codec

import vdmkit

IMAGES, CHUNK, JOBS = 512, 128, 2


def decoded(folder: Path, data: bytes, start: int, stop: int) -> tuple[float, float]:
    """Decodes some images twice. Returns the seconds of all cores of the first time, with what came before, and of the
    second.
    """
    model = vdmkit.load(folder).model
    with vdmkit_codec.open(data, model) as archive:
        archive.read(start, stop)
        first = time.process_time()
        archive.read(start, stop)
    return first, time.process_time() - first


def line(what: str, wall: float, cpu: float) -> str:
    return f"{what:34}{1e3 * wall / IMAGES:9.2f}{1e3 * cpu / IMAGES:9.2f}"


def by_threads(data: bytes, model: vdmkit.DiffusionModel, jobs: int) -> None:
    start, cpu = time.perf_counter(), time.process_time()
    vdmkit_codec.decompress(data, model, jobs=jobs)
    print(line(f"{jobs} thread{'s' * (jobs > 1)}", time.perf_counter() - start, time.process_time() - cpu), flush=True)


def by_processes(folder: Path, data: bytes) -> None:
    part, start = IMAGES // JOBS, time.perf_counter()
    with ProcessPoolExecutor(JOBS, mp_context=get_context("spawn")) as pool:
        tasks = [pool.submit(decoded, folder, data, part * i, part * (i + 1)) for i in range(JOBS)]
        found = np.sum([task.result() for task in tasks], axis=0)
    print(line(f"{JOBS} processes, first and second", time.perf_counter() - start, found.sum()))
    print(f"{f'{JOBS} processes, second':34}{'':9}{1e3 * found[1] / IMAGES:9.2f}")


def main() -> None:
    """Print the table."""
    folder = Path(sys.argv[1])
    run = vdmkit.load(folder)
    images = np.concatenate([run.data(split).pixels for split in ("test", "train")])[:IMAGES]
    data = vdmkit_codec.compress(run.model, images, chunk=CHUNK, verify=False)
    vdmkit_codec.decompress(data, run.model)
    print(f"{f'{IMAGES} images, ms an image':34}{'wall':>9}{'CPU':>9}")
    for jobs in (1, JOBS, 1, JOBS):
        by_threads(data, run.model, jobs)
    by_processes(folder, data)


if __name__ == "__main__":
    main()
