# SPDX-License-Identifier: Apache-2.0
"""Everything that the pages name exists: links, code, components, keys, commands and options."""

import re
import runpy
from dataclasses import fields
from pathlib import Path

import jax
import pytest
from markdown import markdown

import vdmkit
from vdmkit.conformance import check_network
from vdmkit.recipes import load_recipe
from vdmkit.recipes.schema import (
    EvaluationSettings,
    LikelihoodSettings,
    ObjectiveChoices,
    SamplingSettings,
    TrainingSettings,
)
from vdmkit.registry import kinds, registry
from website import build as website_build
from website import pages as website_pages
from website.build import check_spelling
from website.mathematics import Mathematics
from website.pages import PROJECT, PageError, Site

ROOT = Path(vdmkit.__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted(ROOT.glob("plugins/*/README.md"))]
TEXTS = {path.relative_to(ROOT): path.read_text() for path in PAGES}


OF_READERS = {"plain"}  # a component that a page shows how to write


@pytest.mark.parametrize("path", TEXTS, ids=str)
def test_components_named_exist(path):
    """Every component that a page names, such as "schedule `cosine`", exists."""
    named = re.findall(rf"\b({'|'.join(kinds())}) `(\w+)`", TEXTS[path])
    assert [one for one in named if one[1] not in registry(one[0]).components and one[1] not in OF_READERS] == []


def test_every_page_is_in_the_navigation():
    """Every page is part of the navigation."""
    listed = set(re.findall(r"(\w+\.md)$", (ROOT / "website/mkdocs.yml").read_text(), re.MULTILINE))
    assert listed - set(PROJECT.values()) == {path.name for path in ROOT.glob("docs/*.md")}


SETTINGS = {
    "evaluation": EvaluationSettings,
    "likelihood": LikelihoodSettings,
    "objective": ObjectiveChoices,
    "sampling": SamplingSettings,
    "training": TrainingSettings,
}


@pytest.mark.parametrize("path", TEXTS, ids=str)
def test_keys_named_exist(path):
    """Every recipe key that a page names exists."""
    ours = re.sub(r"^\| [^|]* \|", "", TEXTS[path], flags=re.MULTILINE)  # a table's first column may have others' keys
    named = re.findall(rf"`({'|'.join(SETTINGS)})\.(?!json\b)(\w+)", ours)
    assert [one for one in named if one[1] not in {field.name for field in fields(SETTINGS[one[0]])}] == []


def test_keys_are_found():
    """A known recipe key is found on its page, so the test above has cases."""
    assert "`training.ema_warmup`" in TEXTS[Path("docs/coming_from.md")]


def test_the_network_and_recipe_of_own_images_are_right(tmp_path, monkeypatch):
    """The files of the page on own images give a conforming network and a valid recipe."""
    files = re.findall(r"`(\w+\.\w+)`:\n\n```\w+\n(.*?)```", TEXTS[Path("docs/own.md")], re.DOTALL)
    assert [name for name, _ in files] == ["pngs.py", "mine.toml", "plain.py"]
    for name, code in files:
        (tmp_path / name).write_text(code)
    monkeypatch.chdir(tmp_path)
    runpy.run_path("pngs.py")
    recipe = load_recipe(tmp_path / "mine.toml", plugins=[tmp_path / "plain.py"])
    assert recipe.data.build().shape == (8, 8, 1)
    plain = registry("network").get("plain")
    check_network(lambda outputs: plain.target((8, 8, 1), outputs, jax.random.key(0)), (8, 8, 1))


@pytest.fixture
def site(tmp_path, monkeypatch) -> Site:
    """A repository with one page and one file of code, in an empty folder."""
    monkeypatch.setattr(website_pages, "ROOT", tmp_path)
    (tmp_path / "docs").mkdir()
    (tmp_path / "code.py").write_text("class A:\n    x: int = 1\n\n    def b(self): ...\n")
    (tmp_path / "README.md").write_text("# R\n\n## A part\n\nSee [code](code.py).\n\n## Another\n\nno\n")
    return Site(tmp_path / "out")


def written(site: Site, text: str) -> str:
    """Returns what the page `docs/a.md` with this text is converted to."""
    page = site.folder.parent / "docs/a.md"
    page.write_text(text)
    site.add("a.md", page)
    return (site.folder / "a.md").read_text()


def test_links_to_code_lead_to_its_line(site):
    """A link to code leads to the line of its definition."""
    assert written(site, "[b](../code.py#A.b)") == "[b](source/code.py.md#__codelineno-0-4)"
    site.write_sources()
    assert "\n    def b(self): ...\n" in (site.folder / "source/code.py.md").read_text()


def test_a_section_is_included_with_its_links(site):
    """An included section has links that are relative to the including page."""
    assert written(site, "<!-- include ../README.md#a-part -->\n") == "See [code](source/code.py.md).\n"


def test_code_is_left_alone(site):
    """Text in code that looks like a link is not changed."""
    for text in ("```\n[a](b.md)\n```\n", "`[a](b.md)` is a link"):
        assert written(site, text) == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[a](gone.md)", "docs/a.md: the link gone.md leads nowhere."),
        ("[a](../code.py#A.c)", "code.py does not define A.c, to which a page links."),
        ("<!-- include ../README.md#gone -->", "docs/a.md: ../README.md has no section #gone to include."),
    ],
)
def test_what_leads_nowhere_is_refused(site, text, message):
    """A broken link stops the build."""
    with pytest.raises(PageError, match=re.escape(message)):
        written(site, text)


def test_a_misspelling_is_refused(monkeypatch, tmp_path):
    """A misspelling stops the build."""
    monkeypatch.setattr(website_build, "ROOT", tmp_path)
    for name in ("docs", "plugins", "vdmkit", "website"):
        (tmp_path / name).mkdir()
    (tmp_path / "docs/a.md").write_text("Teh page.\n")
    with pytest.raises(PageError, match=r"docs/a\.md:1: Teh ==> The"):
        check_spelling()


def test_equations_become_mathml():
    """Equations are rendered as MathML, and dollar signs in code are kept."""
    html = markdown("so $x^2$ is\n\n$$\na < b\n$$\n\nfor `$5`", extensions=[Mathematics()])
    assert html.count("<math ") == 2
    assert '<div class="equation"><math xmlns="http://www.w3.org/1998/Math/MathML" display="block">' in html
    assert "<code>$5</code>" in html
    assert "$x" not in html
