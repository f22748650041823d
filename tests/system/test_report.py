# SPDX-License-Identifier: Apache-2.0
"""`vdmkit report`: the page of a trained run, from the program, from Python, and in a browser."""

import json
import re
import shutil
import subprocess
from html import unescape

import pytest

import vdmkit

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="module")
def reported(vdmkit_in, tmp_path_factory, whole):
    """A copy of the whole run, and its page. Not to be changed."""
    program = vdmkit_in(tmp_path_factory.mktemp("reported"))  # the run has copies of its plugin files
    run = shutil.copytree(whole, program.cwd / "run")
    result = program("report", "run", "-o", "page.html")
    assert result.code == 0, result.err
    page = program.cwd / "page.html"
    assert result.out == f"page.html: {len(page.read_bytes()) / 1024:,.0f} KiB, of run\n"
    return run, page


def test_the_page_holds_the_run(reported, monkeypatch):
    """The page has every number of the run folder, its samples, chain and schedule, in less than a megabyte."""
    run, page = reported
    html = unescape(page.read_text())
    texts = [path.read_text() for path in run.rglob("*.json")] + (run / "metrics.jsonl").read_text().splitlines()
    values = [number for text in texts for number in re.findall(r"[-\d.e]+(?=[,\n}\]])", re.sub(r'"[^"]*"', "", text))]
    assert len(values) > 100
    assert [value for value in values if value not in html] == []
    for words in ("The schedule: gamma from", "nearest training image", "The chain of the first sample", "samples.png"):
        assert words in html
    assert "could not be loaded" not in html
    assert len(html) < 1e6
    monkeypatch.chdir(run.parent)
    assert vdmkit.load("run").report().html == page.read_text()


def test_a_browser_has_nothing_to_complain_of(reported):
    """Without a network, Chromium shows the page and logs nothing to its console."""
    if BROWSER is None:
        pytest.skip("no Chromium")
    options = ("--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--dump-dom")
    offline = "--host-resolver-rules=MAP * ~NOTFOUND"
    done = subprocess.run(
        [BROWSER, *options, offline, reported[1].as_uri()], capture_output=True, text=True, check=True
    )
    assert "<h1>run</h1>" in done.stdout
    assert done.stdout.rstrip().endswith("</html>")
    assert [line for line in done.stderr.splitlines() if "CONSOLE" in line] == []


def test_a_run_without_its_checkpoint_is_shown_with_the_reason(whole, vdmkit_in, tmp_path):
    """A run whose checkpoint is gone is shown with its numbers and the reason."""
    shutil.copytree(whole, tmp_path / "run", ignore=shutil.ignore_patterns("checkpoints"))
    assert vdmkit_in(tmp_path)("report", "run").code == 0
    html = unescape((tmp_path / "report.html").read_text())
    assert "This run could not be loaded, so its schedule and samples are missing here: run/checkpoints" in html
    assert json.loads((whole / "evaluation.json").read_text())["sha256"] in html


def test_what_cannot_be_reported_is_refused(whole, vdmkit_in, tmp_path):
    """What cannot be reported is refused in one sentence."""
    program = vdmkit_in(tmp_path)
    (tmp_path / "empty").mkdir()
    refused = program("report", "empty")
    assert (refused.code, refused.err) == (1, "empty: not a run folder: it has no resolved.toml.\n")
    assert not (tmp_path / "report.html").exists()
    assert program("report", str(whole), "-o", "page.pdf").code == 2
    assert "there is no folder nowhere" in program("report", str(whole), "-o", "nowhere/page.html").err
