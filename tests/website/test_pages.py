# SPDX-License-Identifier: Apache-2.0
"""What the pages name is there: links, code, components, keys, commands and their options."""

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
    """A reader would look for a component that is not there: "schedule `cosine`" names one."""
    named = re.findall(rf"\b({'|'.join(kinds())}) `(\w+)`", TEXTS[path])
    assert [one for one in named if one[1] not in registry(one[0]).components and one[1] not in OF_READERS] == []


def test_every_page_is_in_the_navigation():
    """A page would be found by those only who know that it is there."""
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
    """A reader would be told of a recipe key that is not there."""
    ours = re.sub(r"^\| [^|]* \|", "", TEXTS[path], flags=re.MULTILINE)  # a table's first column may have others' keys
    named = re.findall(rf"`({'|'.join(SETTINGS)})\.(?!json\b)(\w+)", ours)
    assert [one for one in named if one[1] not in {field.name for field in fields(SETTINGS[one[0]])}] == []


def test_keys_are_found():
    """False if the test above had nothing to look at."""
    assert "`training.ema_warmup`" in TEXTS[Path("docs/coming_from.md")]


def test_the_network_and_recipe_of_own_images_are_right(tmp_path, monkeypatch):
    """A reader who copies the page's files would get a wrong network, or an error of the recipe."""
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
    """A repository of one page and one file of code, in an empty folder."""
    monkeypatch.setattr(website_pages, "ROOT", tmp_path)
    (tmp_path / "docs").mkdir()
    (tmp_path / "code.py").write_text("class A:\n    x: int = 1\n\n    def b(self): ...\n")
    (tmp_path / "README.md").write_text("# R\n\n## A part\n\nSee [code](code.py).\n\n## Another\n\nno\n")
    return Site(tmp_path / "out")


def written(site: Site, text: str) -> str:
    """What the page `docs/a.md` with this text becomes."""
    page = site.folder.parent / "docs/a.md"
    page.write_text(text)
    site.add("a.md", page)
    return (site.folder / "a.md").read_text()


def test_links_to_code_lead_to_its_line(site):
    """A link of the theory would lead elsewhere than to its equation."""
    assert written(site, "[b](../code.py#A.b)") == "[b](source/code.py.md#__codelineno-0-4)"
    site.write_sources()
    assert "\n    def b(self): ...\n" in (site.folder / "source/code.py.md").read_text()


def test_a_section_is_included_with_its_links(site):
    """A text that is written once would be missing, or have links that are right only where it stands."""
    assert written(site, "<!-- include ../README.md#a-part -->\n") == "See [code](source/code.py.md).\n"


def test_code_is_left_alone(site):
    """What looks like a link in code would be changed."""
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
    """The site would be built with a link that a reader follows in vain."""
    with pytest.raises(PageError, match=re.escape(message)):
        written(site, text)


def test_a_misspelling_is_refused(monkeypatch, tmp_path):
    """The site would be built with it."""
    monkeypatch.setattr(website_build, "ROOT", tmp_path)
    for name in ("docs", "plugins", "vdmkit", "website"):
        (tmp_path / name).mkdir()
    (tmp_path / "docs/a.md").write_text("Teh page.\n")
    with pytest.raises(PageError, match=r"docs/a\.md:1: Teh ==> The"):
        check_spelling()


def test_equations_become_mathml():
    """A page would need a script, or show dollar signs."""
    html = markdown("so $x^2$ is\n\n$$\na < b\n$$\n\nfor `$5`", extensions=[Mathematics()])
    assert html.count("<math ") == 2
    assert '<div class="equation"><math xmlns="http://www.w3.org/1998/Math/MathML" display="block">' in html
    assert "<code>$5</code>" in html
    assert "$x" not in html
