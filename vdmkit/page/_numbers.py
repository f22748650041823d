# SPDX-License-Identifier: Apache-2.0
"""Every number of a run folder's JSON files, word for word."""

import re

from vdmkit.page._blocks import File, Section, Words, section
from vdmkit.page._shown import Shown

_NUMBER = re.compile(r'"(?:[^"\\]|\\.)*"|(-?\d)')


def numbers(shown: Shown) -> list[Section]:
    """Returns the section with the files that hold numbers."""
    found = [File(name, _compact(text.strip())) for name, text in shown.files.texts.items() if holds_number(text)]
    if shown.files.metrics_text:
        found.append(File("metrics.jsonl", shown.files.metrics_text))
    about = Words("The files of the run folder from which this page was made, in full; numbers above are rounded.")
    return section("All numbers", [about, *found] if found else [], printed=False)


def holds_number(text: str) -> bool:
    """Returns whether JSON holds a number, outside of strings such as hashes."""
    return any(match[1] for match in _NUMBER.finditer(text))


def _compact(text: str) -> str:
    """Returns JSON with each list of plain values on one line; strings hold no line breaks that this could change."""
    return re.sub(r"\[[^][{}]*\]", lambda found: re.sub(r"\n\s*", " ", found[0]), text)
