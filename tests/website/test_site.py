# SPDX-License-Identifier: Apache-2.0
"""The built site is complete, loads nothing from other servers, and has no broken links."""

import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

import vdmkit
from website.build import build, make_html
from website.pages import PageError

ROOT = Path(vdmkit.__file__).parents[1]


class Loaded(HTMLParser):
    """The files that a browser loads for a page."""

    def __init__(self, page: Path):
        super().__init__()
        self.found: list[str] = []
        self.feed(page.read_text())

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        if tag in {"script", "img", "iframe"} and given.get("src"):
            self.found.append(given["src"])
        if tag == "link" and given.get("rel") != "canonical" and given.get("href"):
            self.found.append(given["href"])


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The site, without the results of the tour."""
    return build(tmp_path_factory.mktemp("site"), execute=False)


@pytest.mark.costly
def test_pages_load_nothing_from_elsewhere(site):
    """Pages load nothing from other servers and contain equations as MathML."""
    for name in ("index", "theory", "tour", "reference/python/vdmkit.schedules", "source/vdmkit/model.py"):
        page = site / f"{name}.html"
        loaded = Loaded(page).found
        assert any(one.endswith(".css") for one in loaded)
        assert [one for one in loaded if not (page.parent / one.partition("?")[0]).exists()] == []
    theory = (site / "theory.html").read_text()
    assert theory.count('display="block"') > 15
    assert "$" not in re.sub(r"<script.*?</script>|<style.*?</style>", "", theory, flags=re.DOTALL)
    assert not re.search(r"@import|url\((?!data:)[\"']?https?:", "".join(p.read_text() for p in site.rglob("*.css")))


@pytest.mark.costly
def test_every_name_can_be_searched(site):
    """Public names and components are part of the search index."""
    found = {item["location"] for item in json.loads((site / "search.json").read_text())["items"]}
    for name in (
        "python/vdmkit.html#train",
        "python/vdmkit.schedules.html#cosine",
        "schedule/cosine.html",
        "commands.html#run",
    ):
        assert f"reference/{name}" in found
    assert not [one for one in found if one.startswith("source/vdmkit/")]


def test_a_broken_link_is_refused(tmp_path):
    """A broken link stops the build."""
    (tmp_path / "pages").mkdir()
    (tmp_path / "pages" / "index.md").write_text("# A\n\n[gone](#gone)\n")
    (tmp_path / "mkdocs.yml").write_text("site_name: a\ndocs_dir: pages\nsite_dir: site\n")
    with pytest.raises(PageError, match="anchor does not exist"):
        make_html(tmp_path / "mkdocs.yml")


@pytest.mark.slow
def test_the_documented_command_builds_it_from_a_clone(tmp_path):
    """The command of CONTRIBUTING.md builds the site from a fresh clone."""
    subprocess.run(["git", "clone", "--quiet", str(ROOT), "clone"], cwd=tmp_path, check=True)
    clone = tmp_path / "clone"
    plugins = os.pathsep.join(map(str, sorted(clone.glob("plugins/*/src"))))  # and not those of this checkout
    done = subprocess.run(
        [sys.executable, "-m", "website"],
        cwd=clone,
        env=os.environ | {"PYTHONPATH": plugins},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    site = clone / "build" / "site"
    assert done.stdout == f"built {site / 'index.html'}\n"
    assert (site / "tour.html").read_text().count('alt="drawn by the code above"') == 3
    outputs = [cell.get("outputs") for cell in json.loads((site / "tour.ipynb").read_text())["cells"]]
    assert sum(bool(one) for one in outputs) > 8
