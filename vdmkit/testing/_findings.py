# SPDX-License-Identifier: Apache-2.0
"""Runs checks of components, and collects what they find."""

import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

from vdmkit.devices import precisely
from vdmkit.errors import ConformanceError, RecipeError, UntrustedError
from vdmkit.registry import Component

_TURN = 0.1  # seconds
Checked = tuple[Component, Callable[[], object]]
"""A component and its check, which raises, or returns False if the sum of probabilities could not be checked."""


@dataclass(frozen=True)
class Findings:
    """Problems of components, and remarks to print beside a number, in sentences."""

    problems: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()

    def refuse(self) -> "Findings":
        """Returns the findings. Raises UntrustedError if there are problems."""
        if self.problems:
            raise UntrustedError(
                f"no number of this model can be trusted: {' '.join(self.problems)} "
                "Correct the component, or choose another."
            )
        return self

    def __add__(self, other: "Findings") -> "Findings":
        """Joins two findings, each sentence once."""
        pairs = (self.problems, other.problems), (self.remarks, other.remarks)
        return Findings(*(tuple(dict.fromkeys(mine + others)) for mine, others in pairs))


@contextmanager
def threads(count: int) -> Iterator[ThreadPoolExecutor]:
    """Yields threads that seldom take turns: while one compiles another traces, but two that trace slow each other.

    Ctrl-C does not wait for them.
    """
    before = sys.getswitchinterval()
    sys.setswitchinterval(_TURN)
    pool, wait = ThreadPoolExecutor(count), True
    try:
        yield pool
    except KeyboardInterrupt:
        wait = False
        raise
    finally:
        pool.shutdown(wait=wait, cancel_futures=True)
        sys.setswitchinterval(before)


def run_checks(checks: Iterable[Checked]) -> Findings:
    """Returns what the checks find; they run in two threads."""
    with threads(2) as pool:
        return sum(pool.map(lambda checked: findings_of(*checked), checks), Findings())


@precisely  # in the threads of `run_checks`
def findings_of(component: Component, check: Callable[[], object]) -> Findings:
    """Returns the problems of a component. A mistake in the recipe is raised instead.

    Raises:
        RecipeError: a component of vdmkit refuses the recipe's values.
        PluginError: a plugin fails.
    """
    try:
        with component.named("cannot be checked"):
            if check() is False:  # only the check of an observation returns False
                return Findings(remarks=(f"It was not checked whether the probabilities of {component} sum to 1.",))
    except ConformanceError as error:
        return Findings((f"{component}: {error}",))
    except RecipeError as error:
        if component.origin == "vdmkit":
            raise
        return Findings((str(error),))
    return Findings()
