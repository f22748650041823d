# SPDX-License-Identifier: Apache-2.0
"""Bytes of compressed files against the bound, from inspections of .vdmz files that were kept in the run folder."""

import operator
from typing import Any

from vdmkit.page._blocks import Section, Table, section
from vdmkit.page._files import values_in
from vdmkit.page._shown import Shown

_KEYS = {"file", "images", "chunks", "header", "bytes"}


def coding(shown: Shown) -> list[Section]:
    """Returns the section on compressed files; none if no inspection was kept."""
    found = [shown.files.json(name) for name in shown.files.texts]
    rows = [_row(one, shown) for one in found if isinstance(one, dict) and one.keys() >= _KEYS and one["images"]]
    columns = ("file", "images", "steps and kernel", "bytes", "bits/dim", "bound, bits/dim")
    return section(
        "Compressed files", [Table("Sizes of compressed files beside the run's bound", columns, rows)] if rows else []
    )


def _row(one: dict[str, Any], shown: Shown) -> list[str]:
    size, header, facts = sum(one["bytes"].values()), one["header"], shown.files.facts
    rate = 8 * size / (operator.index(one["images"]) * values_in(header["shape"]))
    how = f"T = {len(header['gammas']) - 1}, {header['kernel']}"
    bound = f"{facts['bpd']:.4f}, {facts['estimator']}" if facts else ""
    return [one["file"], f"{one['images']:,}", how, f"{size:,}", f"{rate:.4f}", bound]
