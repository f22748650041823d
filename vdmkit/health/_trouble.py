# SPDX-License-Identifier: Apache-2.0
"""What was found, and the file that keeps it."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from vdmkit.errors import CheckpointError
from vdmkit.io import are_intact, read_json, write_results


@dataclass(frozen=True)
class Trouble:
    """A sign of trouble, the step at which it was found, and one line that says what was found and what to do."""

    sign: str
    step: int
    message: str


@dataclass(frozen=True)
class _Findings:
    findings: list[Trouble] = field(default_factory=list)
    crc32: int = 0


def read_troubles(path: Path) -> list[Trouble]:
    """Returns the findings of a run from its health.json, in the order in which they were made; none without the file.

    Raises:
        CheckpointError: the file is damaged.
    """
    if not path.is_file():
        return []
    try:
        if not are_intact(read_json(path, dict[str, Any])):
            raise ValueError("its findings are not those that were written")
        return read_json(path, _Findings).findings
    except ValueError as error:
        raise CheckpointError(f"{path}: damaged ({error}). Delete it: training looks for signs again.") from error


def write_troubles(path: Path, findings: Sequence[Trouble]) -> None:
    """Writes health.json; an empty list says that the training was watched and that nothing was found."""
    write_results(path, {"findings": [asdict(finding) for finding in findings]})
