# SPDX-License-Identifier: Apache-2.0
"""Fuzzing guided by coverage: atheris changes a file's bytes, and keeps changes that reach new lines of vdmkit.

`uv run --python 3.11 --with atheris python tests/faults/guided.py KIND --seconds 60` reads files of a kind of kinds.py
(`--list` shows them) by the rules of fuzzed.py: only VdmkitError may be raised, and no file may take five seconds or a
gigabyte. It ends with the first file that breaks a rule, which stays in the folder that it prints.
"""

import argparse
import os
import signal
import sys
import tempfile
from pathlib import Path

import atheris

READERS = ["data", "importers", "recipes", "io", "training.checkpoints", "report", "progress"]

with atheris.instrument_imports(
    include=[*(f"vdmkit.{room}" for room in READERS), "vdmkit_codec.container", "vdmkit_codec.payload"]
):
    from fuzzed import BYTES, SECONDS, watch, wrong_with
    from kinds import KINDS

LARGEST = 1 << 16  # bytes; libFuzzer's own default is the largest of the given files


def corpus(kind: str, folder: Path) -> Path:
    """Returns a folder that contains a genuine file."""
    made = folder / "corpus"
    made.mkdir()
    (made / "genuine").write_bytes(KINDS[kind].genuine())
    return made


def main() -> None:
    """Fuzzes one kind for a while."""
    given = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    given.add_argument("kind", choices=KINDS, metavar="KIND", nargs="?")
    given.add_argument("--seconds", type=int, default=60)
    given.add_argument("--seed", type=int, default=1)
    given.add_argument("--list", action="store_true")
    asked = given.parse_args()
    if asked.list or asked.kind is None:
        print("\n".join(KINDS))
        return
    folder = Path(tempfile.mkdtemp(prefix="guided-"))
    read = folder / "read"
    read.mkdir()
    path, kind = read / KINDS[asked.kind].file, KINDS[asked.kind]

    def test(data: bytes) -> None:
        _, words = wrong_with(asked.kind, path, kind.wrap(data))
        if words:
            print(f"{path}: {words}\nseed {asked.seed}", flush=True)
            os._exit(1)

    sys.addaudithook(watch)
    options = [f"-max_total_time={asked.seconds}", f"-seed={asked.seed}", f"-max_len={LARGEST}", "-print_final_stats=1"]
    limits = [f"-timeout={12 * SECONDS}", f"-rss_limit_mb={4 * BYTES // 10**6}", f"-artifact_prefix={folder}/"]
    atheris.Setup([sys.argv[0], *options, *limits, str(corpus(asked.kind, folder))], test)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    print(f"{asked.kind}: files in {read}", flush=True)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
