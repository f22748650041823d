# SPDX-License-Identifier: Apache-2.0
"""The pages of the site."""

from pathlib import Path

import pytest

from website.build import write_pages
from website.pages import Site


@pytest.fixture(scope="session")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with all pages as Markdown."""
    site = Site(tmp_path_factory.mktemp("pages"))
    write_pages(site)
    return site.folder
