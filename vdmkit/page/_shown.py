# SPDX-License-Identifier: Apache-2.0
"""A run as the sections of a page see it."""

from dataclasses import dataclass
from typing import Any

from vdmkit.page._files import RunFiles
from vdmkit.page._seen import Seen


@dataclass(frozen=True)
class Shown:
    """The files of a run, and what its model shows; None, with a reason, if the model could not be loaded."""

    files: RunFiles
    seen: Seen | None = None
    reason: str = ""

    @property
    def name(self) -> str:
        """Returns the name of the run's folder."""
        return self.files.name

    def command(self, *words: str) -> list[str]:
        """Returns a command of vdmkit; "RUN" stands for the run folder."""
        return ["vdmkit", *(str(self.files.path) if word == "RUN" else word for word in words)]


def plus_minus(facts: dict[str, Any]) -> str:
    """Returns bits/dim with the error of Monte Carlo and of the solver, from a report's JSON."""
    return f"{facts['bpd']:.4f} ± {(facts['bpd_high'] - facts['bpd_low']) / 2:.4f}"


def test_set_of(facts: dict[str, Any]) -> str:
    """Returns the error of the finite test set, from a report's JSON."""
    width = facts["half_width_test_set"]
    return "hidden by Monte Carlo" if width is None else f"± {width:.4f}"
