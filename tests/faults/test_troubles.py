# SPDX-License-Identifier: Apache-2.0
"""Full disks, broken or slow data, and plugins that raise, at random moments under a seed, in every command.

The command reports the cause or works without, and can then be repeated. See forks.py for the faults. A case is a
command, a fault, the number of a file change or of a plugin's operation, and an amount; a failure prints it.
"""

import json
import random
import shutil
from pathlib import Path

import pytest

WORDS = {
    "FULL": "No space left on device",
    "LIMIT": "File too large",  # the system's words for a file over the limit
    "EIO": "Input/output error",
    "ERROR": "RuntimeError: trouble",
}
OF_FILES = ("FULL", "LIMIT")


def chosen_fault(rng: random.Random, moments: list[int]) -> dict:
    """Returns a random fault for a command with these numbers of file changes and plugin operations."""
    fault = rng.choice([*OF_FILES, "EIO", "ERROR", "DELAY"] if moments[1] else OF_FILES)
    amount = {"LIMIT": rng.choice([0, rng.randint(1, 20_000)]), "DELAY": rng.uniform(0, 2)}.get(fault, 0)
    return {"fault": fault, "moment": rng.randint(1, moments[fault not in OF_FILES]), "amount": amount}


def told(found: dict, fault: str, place: Path) -> bool:
    """Returns whether the error gives the reason, and a file in the folder or the line of the plugin or its hook."""
    places = (place.name, "new", "run/") if fault in OF_FILES else ("forks.py:", "troubled.py:", "tiny.py:")
    return any(WORDS[fault] in line and name in line for line in found["err"].splitlines() for name in places)


@pytest.mark.slow
def test_troubles(forks, case, tmp_path, chosen, command):
    """A full disk, a broken plugin or slow data ends in success or in one error with a reason."""
    rng, moments = random.Random(f"{chosen.seed} {command}"), forks.whole(command)[0]
    ended, count = 0, -(-chosen.cases(80) // 8)
    for number in range(count):
        how, place = chosen_fault(rng, moments), tmp_path / f"troubled{number}"
        shutil.copytree(forks.origin, place)
        found = forks(place, *case.arguments, **how)
        print(json.dumps({"command": command, **how, "code": found["code"], "err": found["err"][-300:]}), flush=True)
        assert found["code"] in (0, 1), found
        assert how["fault"] != "DELAY" or found["code"] == 0, (how, found)
        ended += found["code"]
        if found["code"]:
            assert told(found, how["fault"], place), (how, found)
            assert not forks.halves(command, place), how
        forks.finish(command, place, (*case.arguments, *case.more) if found["code"] else case.arguments, how)
        shutil.rmtree(place)
    print(f"{ended} of {count} ended with a message, seed {chosen.seed}")
