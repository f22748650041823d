# SPDX-License-Identifier: Apache-2.0
"""Collects the pages, and lets Zensical make the site of them."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

from website.components import write_commands, write_components, write_recipes
from website.names import write_names
from website.pages import PROJECT, ROOT, PageError, Site
from website.tour import run_tour

HERE = Path(__file__).parent
TITLES = {"reference/commands.md": "Commands", "reference/recipes.md": "Recipes"}


def build(folder: Path, *, execute: bool = True) -> Path:
    """Builds the site in `folder`/site, and returns it.

    Args:
        folder: An empty or earlier folder; what was built there is replaced.
        execute: Whether to run the tour, which takes minutes; without it the page has no results.

    Raises:
        PageError: a link, a spelling or a page is wrong.
    """
    check_spelling()
    shutil.rmtree(folder / "pages", ignore_errors=True)
    site = Site(folder / "pages")
    navigation = write_pages(site)
    if execute:
        run_tour(site)
    settings = yaml.safe_load((HERE / "mkdocs.yml").read_text())
    settings["nav"].insert(-1, {"Reference": navigation})
    (folder / "mkdocs.yml").write_text(yaml.safe_dump(settings, sort_keys=False))
    make_html(folder / "mkdocs.yml")
    return folder / "site"


def write_pages(site: Site) -> list[dict[str, object]]:
    """Writes all pages as Markdown; returns the navigation of the reference."""
    for path in sorted((ROOT / "docs").glob("*.md")):
        site.add(path.name, path)
    for name, page in PROJECT.items():
        site.add(page, ROOT / name)
    for path in [*(ROOT / "docs").glob("*.svg"), HERE / "site.css"]:
        shutil.copy(path, site.folder)
    single: list[dict[str, object]] = [{TITLES[page]: page} for page in (write_commands(site), write_recipes(site))]
    components = [{Path(page).parent.name: page} for page in write_components(site)]
    names = [{Path(page).stem: page} for page in write_names(site)]
    site.write_sources()
    return [*single, {"Components": components}, {"Python": names}]


def check_spelling() -> None:
    """Raises PageError if a page or a docstring has a misspelled word."""
    texts = [*PROJECT, "docs", "plugins", "vdmkit", "website"]
    options = ["--skip", "*.svg,*.npz", "--ignore-words", str(HERE / "names.txt")]
    command = [sys.executable, "-m", "codespell_lib", *options, *texts]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise PageError(f"misspelled:\n{done.stdout}{done.stderr}")


def make_html(settings: Path) -> None:
    """Makes HTML of pages by Zensical. Raises PageError if a link leads to a page or heading that is not there."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "zensical", "build", "--clean", "--strict", "--config-file", str(settings)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise PageError(f"zensical:\n{done.stdout}{done.stderr}")
