# SPDX-License-Identifier: Apache-2.0
"""Commands that are killed at random moments under a seed can be repeated with the same result.

Commands run in forks of a process that has loaded vdmkit: see forks.py. A case is a command, a signal, the number of a
file change, and a delay; a failure prints it.
"""

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest

TOOK = ("seconds", "work")  # from the signal to the end


def kill(forks, case, folder: Path, command: str, rng: random.Random, most: int) -> list[dict[str, Any]]:
    """Runs a command in a copy of the folder, kills it at most `most` times, and finishes it. Returns the kills."""
    place, killed, (moments, _) = shutil.copytree(forks.origin, folder), [], forks.whole(command)[0]
    arguments = case.arguments
    while len(killed) < most:
        delay = rng.choice([0, 0, rng.uniform(0, 1)])
        how = {"fault": rng.choice(["KILL", "TERM"]), "moment": rng.randint(1, moments), "amount": delay}
        found = forks(place, *arguments, **how)
        arguments = (*case.arguments, *case.more)
        if found["code"] == 0 or case.again in found["err"]:  # it ended before, or the signal came too late
            break
        killed.append({"command": command, **how, "code": found["code"]} | {key: found.get(key) for key in TOOK})
        assert found["code"] == {"KILL": -9, "TERM": 3}[how["fault"]], (killed[-1], found["err"])
        assert how["fault"] == "KILL" or found["work"] < 10, killed[-1]
        assert not forks.halves(command, place), killed
    forks.finish(command, place, arguments, killed)
    shutil.rmtree(folder)
    return killed


@pytest.mark.slow
def test_kills(forks, case, tmp_path, chosen, command):
    """A killed command can be repeated with the same result, and leaves no file that misleads other commands."""
    rng, killed, count = random.Random(f"{chosen.seed} {command}"), [], -(-chosen.cases(50) // 8)
    while len(killed) < count:
        killed += kill(forks, case, tmp_path / "killed", command, rng, most=min(3, count - len(killed)))
    slowest = [max((one[key] for one in killed if one["fault"] == "TERM"), default=0) for key in TOOK]
    print(
        f"\n{len(killed)} kills, seed {chosen.seed}; after SIGTERM at most {slowest[0]:.1f} s, {slowest[1]:.1f} of work"
    )
    for one in killed:
        print(json.dumps(one))
