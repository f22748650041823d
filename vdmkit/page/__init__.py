# SPDX-License-Identifier: Apache-2.0
"""The report of runs as one self-contained page: `read_files` and `look` see a run, `page` shows one or several."""

from vdmkit.page._files import Result, RunFiles, read_files
from vdmkit.page._page import Page, page
from vdmkit.page._seen import Samples, Seen, look
from vdmkit.page._shown import Shown

__all__ = ["Page", "Result", "RunFiles", "Samples", "Seen", "Shown", "look", "page", "read_files"]
