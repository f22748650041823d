# SPDX-License-Identifier: Apache-2.0
"""The page of a run: complete, self-contained, accessible, and explicit about what is missing or damaged."""

import json
import os
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from vdmkit_codec import Inspection

from vdmkit.errors import CheckpointError, DamageWarning
from vdmkit.report.blocks import Paragraph, Table
from vdmkit.report.page import differences, page, recipes_of_several
from vdmkit.report.run_contents import Result, are_comparable, difference, read_contents
from vdmkit.report.sections import coding, commands, reasons_not_to_trust
from vdmkit.training.checkpoints import write_checksums
from vdmkit.training.health import Trouble, write_troubles

_VOID = {"meta", "link", "img", "br", "wbr"}


class Read(HTMLParser):
    """The elements of a page with their attributes, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.text, self.open = "", []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def numbers_in(value: object) -> list[str]:
    """Every number in JSON, as JSON writes it."""
    if isinstance(value, dict | list):
        parts = value.values() if isinstance(value, dict) else value
        return [one for part in parts for one in numbers_in(part)]
    return [json.dumps(value)] if isinstance(value, int | float) and not isinstance(value, bool) else []


def numbers_of(folder: Path) -> set[str]:
    """Every number in the JSON files and the metrics of a run folder."""
    texts = [path.read_text() for path in folder.rglob("*.json")]
    texts += (folder / "metrics.jsonl").read_text().splitlines() if (folder / "metrics.jsonl").exists() else []
    return {number for text in texts for number in numbers_in(json.loads(text))}


@pytest.fixture(scope="module")
def read(whole, shown_of) -> Read:
    return Read(page([shown_of(whole)]).html)


def test_every_number_of_the_run_folder_is_in_the_text(read, whole):
    """Every number in the JSON files and metrics of the run is on the page, unrounded."""
    expected = numbers_of(whole)
    assert len(expected) > 60
    assert {number for number in expected if number not in read.text} == set()


def test_nothing_is_fetched_and_nothing_is_executed(read):
    """The page refers to nothing outside of itself, and markup in a recipe is shown as text."""
    assert not {"script", "iframe", "object", "embed"} & {tag for tag, _ in read.elements}
    for tag, attributes in read.elements:
        for name in ("src", "href", "srcset", "poster", "data"):
            assert attributes.get(name, "#").startswith(("#", "data:")), (tag, attributes)
        assert all(
            target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", " ".join(map(str, attributes.values())))
        )
    assert "@import" not in read.text
    assert "url(" not in read.text
    assert "<script>alert(1)</script>" in read.text  # as text
    assert "wbr" not in read.text


def test_the_elements_are_balanced_and_ids_unique(read):
    """Every element is closed, and every link of the navigation leads to one section."""
    assert read.open == []
    ids = [attributes["id"] for _, attributes in read.elements if "id" in attributes and "s-" in attributes["id"]]
    links = [attributes["href"][1:] for tag, attributes in read.elements if tag == "a"]
    assert ids == links
    assert len(set(ids)) == len(ids) > 9


def test_every_figure_has_alternative_text(read):
    """Every figure has a caption, and alternative text with numbers."""
    figures = [tag for tag, _ in read.elements if tag == "figure"]
    texts = [attributes["aria-label"] for tag, attributes in read.elements if tag == "svg"]
    texts += [attributes["alt"] for tag, attributes in read.elements if tag == "img"]
    assert len(texts) == len(figures) == sum(tag == "figcaption" for tag, _ in read.elements) > 6
    assert all(re.search(r"\d", text) and len(text) > 30 for text in texts)


def test_reasons_not_to_trust_a_number_are_shown_with_it(read, full, likelihood, shown_of):
    """Every reason not to trust the number is given, above the table of what it is of."""
    reason = "the solver did not reach its end for 1 of 6 images."
    report = replace(likelihood, trusted=False, reasons=(reason,), held_out=False, distinct_images=5)
    (full / "evaluation.json").write_text(json.dumps(report.as_json()))
    found = " ".join(reasons_not_to_trust(shown_of(full)))
    wanted = ("NOT A LIKELIHOOD", reason, "NOT A TEST LIKELIHOOD", "5 are distinct", "audit failed: the second holds")
    assert [words for words in (*wanted, "could not be loaded") if words not in found] == []
    warned = sum(attributes.get("class") == "warning" for _, attributes in read.elements)
    assert warned == 4  # not loaded, a remark, the audit next to the number and in its own section
    assert read.text.index("A remark.") < read.text.index("What the number is of")


def test_commands_are_given_for_what_is_missing(bare, shown_of):
    """The page of a run without results gives the commands that measure them."""
    text = Read(page([shown_of(bare)]).html).text
    for command in ("evaluate --ckpt", "likelihood --ckpt", "study --ckpt", "run"):
        assert f"vdmkit {command} {bare}" in text
    assert f"vdmkit likelihood --ckpt {bare} --audit" in text
    assert {number for number in numbers_of(bare) if number not in text} == set()
    assert "not to trust this number" not in text


def test_the_command_of_a_likelihood_has_its_settings(read, whole):
    """The command of a likelihood has the step and the overrides with which it was measured."""
    wanted = f"vdmkit likelihood --ckpt {whole} --checkpoint-step 12 --set likelihood.estimator.draws=8"
    assert wanted in read.text


def test_runs_are_compared_image_by_image(whole, bare, likelihood, nats, leave, shown_of):
    """The difference of two runs is paired by image, and that of a result from itself is zero."""
    recipe = bare / "resolved.toml"
    recipe.write_text(recipe.read_text().replace("seed = 1\n", "seed = 2\n"))
    leave(bare, likelihood, nats + 0.5 * np.log(2) * 64)  # 0.5 bits/dim more for every image
    runs = [shown_of(whole), shown_of(bare)]
    (table,) = (block for block in differences(runs) if isinstance(block, Table))
    (row,) = table.rows
    assert row[:3] == ["full, ema - bare, ema", "-0.5000", "± 0.0000: the first is better"]
    (table,) = recipes_of_several(runs)
    assert list(table.rows) == [("seed", "1", "2")]
    same = Result("", likelihood.as_json(), {"term_a": nats, "index": np.arange(6)})
    assert difference(same, same, 64).value == difference(same, same, 64).half_width == 0


def test_averaged_and_raw_parameters_are_shown_against_each_other(full, likelihood, nats, leave, shown_of):
    """Logged and measured differences of averaged and raw parameters are shown; without one, its command is."""
    command = f"vdmkit compare {full} {full} --second-set likelihood.weights=raw"
    assert command in Read(page([shown_of(full)]).html).text
    logged = {"step": 3, "test/ema_minus_raw": -0.0125, "test/ema_minus_raw_half_width": 0.0025}
    (full / "metrics.jsonl").write_text(json.dumps(logged) + "\n")
    leave(full, replace(likelihood, weights="raw"), nats + 0.25 * np.log(2) * 64)  # 0.25 bits/dim more
    text = Read(page([shown_of(full)]).html).text
    assert "below 0 the average is better; -0.0125 ± 0.0025 at step 3" in text
    assert "Averaged minus raw parameters at step 12: -0.2500 ± 0.0000 bits/dim on these 6 images" in text
    assert command not in text


def test_warnings_of_training_are_sentences(full, shown_of):
    """Findings in health.json are sentences, not charts; only a training that was watched is called sound."""
    watched = "The training was watched, and no sign of trouble was found."
    assert watched not in Read(page([shown_of(full)]).html).text
    lines = [{"step": 1, "train/bpd": 2.5, "train/untrained": 3.5}, {"step": 2, "train/bpd": 2.25, "health/prior": 1.0}]
    (full / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    write_troubles(full / "health.json", [Trouble("prior", 2, "raise it.")])
    read = Read(page([shown_of(full)]).html)
    assert "Warning at step 2: raise it." in read.text
    assert "Before the first update the loss was 3.5." in read.text
    curves = [attributes["aria-label"] for tag, attributes in read.elements if tag == "svg"]
    assert sum(words.startswith("Curves over training steps") for words in curves) == 1
    write_troubles(full / "health.json", [])
    (full / "metrics.jsonl").write_text(json.dumps(lines[0]) + "\n")
    read = Read(page([shown_of(full)]).html)
    assert watched in read.text
    assert "Logged at one step" in read.text
    assert not [words for words in read.elements if "Curves over" in words[1].get("aria-label", "")]


@pytest.mark.parametrize("change", [{"estimator": "ODE"}, {"sha256": "00"}, {"trusted": False}, {"distinct_images": 5}])
def test_what_does_not_compare_is_not_subtracted(likelihood, change):
    """Results of different estimators, images or trust are not comparable."""
    arrays = {"index": np.arange(6)}
    first, second = (Result("", report.as_json(), arrays) for report in (likelihood, replace(likelihood, **change)))
    assert are_comparable(first, first)
    assert not are_comparable(first, second)
    assert not are_comparable(second, first)


def test_a_folder_that_is_not_a_run_is_refused(tmp_path, full):
    """A folder that is not a run, and a damaged JSON file, raise CheckpointError with the path."""
    with pytest.raises(CheckpointError, match=r"not a run folder: it has no resolved\.toml"):
        read_contents(tmp_path)
    with pytest.raises(CheckpointError, match="no such folder"):
        read_contents(tmp_path / "nowhere")
    (tmp_path / "resolved.toml").touch()
    with pytest.raises(CheckpointError, match=r"has no manifest\.json"):
        read_contents(tmp_path)
    (full / "evaluation.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"evaluation\.json: is not JSON"):
        read_contents(full)


def test_a_file_of_another_version_hides_its_section_only(bare, likelihood, shown_of):
    """A file that lacks a key replaces its sections by a warning; the other sections are shown."""
    facts = likelihood.as_json()
    del facts["label"]
    (bare / "evaluation.json").write_text(json.dumps(facts))
    (bare / "audit.json").write_text(json.dumps({"checks": []}))
    text = Read(page([shown_of(bare)]).html).text
    assert "A file lacks 'precision': it is of another version of vdmkit." in text
    assert "The resolved recipe (resolved.toml)" in text


@pytest.mark.parametrize("facts", [[1], {"bpd": "low"}, {"bpd": None}, {"bpd": 1.0, "terms": 3}])
def test_a_value_of_another_kind_hides_its_section_only(bare, shown_of, facts):
    """A value of a wrong type replaces its sections by a warning; the other sections are shown."""
    (bare / "evaluation.json").write_text(json.dumps(facts))
    text = Read(page([shown_of(bare)]).html).text
    assert "A file" in text
    assert "The resolved recipe (resolved.toml)" in text


def test_a_picture_of_another_format_is_not_decoded(bare, shown_of):
    """Only PNG is decoded: Pillow would give PostScript to Ghostscript, which executes it."""
    (bare / "samples.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n")
    assert "samples.png: cannot be decoded as an image (it is no PNG" in Read(page([shown_of(bare)]).html).text


def test_what_is_too_large_is_named(bare, shown_of):
    """Sparse files of a terabyte are refused by name before they are read."""
    for name in ("samples.png", "metrics.jsonl", "evaluation.json"):
        (bare / name).touch()
        os.truncate(bare / name, 2**40)
    with pytest.raises(CheckpointError, match=r"evaluation\.json: it needs 1,099,511,627,776 bytes"):
        read_contents(bare)
    (bare / "evaluation.json").unlink()
    with pytest.raises(CheckpointError, match=r"metrics\.jsonl: it needs"):
        page([shown_of(bare)])
    (bare / "metrics.jsonl").unlink()
    assert "samples.png: cannot be read (it needs" in Read(page([shown_of(bare)]).html).text


def test_a_changed_file_of_a_checkpoint_is_named_and_left_out(bare, shown_of):
    """Numbers of a damaged checkpoint are not on the page, and a warning names it."""
    step = bare / "checkpoints" / "3"
    step.mkdir(parents=True)
    (step / "data.json").write_text('{"next_index": 8765}')
    write_checksums(step)
    assert "8765" in Read(page([shown_of(bare)]).html).text
    (step / "data.json").write_text('{"next_index": 8764}')
    with pytest.warns(DamageWarning, match=r"checkpoints/3: data\.json has changed"):
        text = Read(page([shown_of(bare)]).html).text
    assert "876" not in text


def test_runs_of_one_name_are_distinguished(bare, shown_of):
    """Runs whose folders have the same name are called by their paths."""
    other = shutil.copytree(bare, bare.parent / "again" / bare.name)
    read = Read(page([shown_of(bare), shown_of(other)]).html)
    assert f"{bare} and {other} have no results" in read.text
    assert "The resolved recipes are equal." in read.text
    links = {attributes["href"] for tag, attributes in read.elements if tag == "a"}
    assert {"#part-1", "#part-2", "#part-3"} < links  # the comparison and both runs


def test_runs_of_other_images_are_not_offered_a_comparison(bare, shown_of):
    """Runs with different image shapes are not offered `vdmkit compare`, which would refuse them."""
    other = shutil.copytree(bare, bare.parent / "other")
    made = json.loads((other / "manifest.json").read_text()) | {"shape": [4, 4, 1]}
    (other / "manifest.json").write_text(json.dumps(made))
    blocks = differences([shown_of(bare), shown_of(other)])
    assert Paragraph("bare and other were not tested on the same images.") in blocks


def test_an_evaluation_with_other_settings_is_rebuilt_with_them(bare, likelihood, shown_of):
    """The command of an evaluation has the settings that differ from the recipe."""
    report = replace(likelihood, seed=9, weights="raw", evaluations_per_image=4.0)
    (bare / "evaluation.json").write_text(json.dumps(report.as_json()))
    (command, _) = commands(shown_of(bare))
    wanted = "--checkpoint-step 12 --set seed=9 --set evaluation.draws=4 --set evaluation.weights=raw"
    assert command.line == f"vdmkit evaluate --ckpt {bare} {wanted}"


def test_a_compressed_file_is_shown_with_the_bound(bare, likelihood, shown_of):
    """A compressed file's bits/dim follow from its bytes, images and shape, and are shown with the bound."""
    header = {"shape": [8, 8, 1], "levels": 17, "gammas": [0.0, 1.0, 2.0], "kernel": "gaussian"}
    found = Inspection("a.vdmz", 10, 0, 1, False, header, {"head": 100, "stacks": 60})
    (bare / "a.json").write_text(json.dumps(found.as_json()))
    (bare / "evaluation.json").write_text(json.dumps(likelihood.as_json()))
    ((row,),) = (table.rows for table in coding(shown_of(bare)))
    assert row == ["a.vdmz", "10", "T = 2, gaussian", "160", "2.0000", f"1.7612, {likelihood.estimator}"]


def test_a_long_log_is_thinned(full, shown_of):
    """Of a long log every n-th line is shown, below a note on it."""
    lines = "".join(json.dumps({"step": step, "train/bpd": 2.5}) + "\n" for step in range(1, 9001))
    (full / "metrics.jsonl").write_text(lines)
    text = shown_of(full).metrics_text.splitlines()
    assert text[:2] == ["# every 5th of 9,000 lines", lines.partition("\n")[0]]
    assert len(text) == 1801


def test_a_changed_file_is_named_and_left_out(full, shown_of):
    """Files whose hash differs from the recorded one are named in a warning and not shown."""
    made = json.loads((full / "manifest.json").read_text())
    (full / "manifest.json").write_text(json.dumps(made | {"kept": {"recipe.toml": "00"}}))
    (full / "samples.png").write_bytes(b"\x89PNG")
    study = json.loads((full / "schedule" / "schedule.json").read_text())
    (full / "schedule" / "schedule.json").write_text(json.dumps(study | {"files": {"steps.svg": "00"}}))
    with pytest.warns(DamageWarning) as said:
        found = page([shown_of(full)]).html
    assert "as it was given" not in found
    assert "(samples.png)" not in found
    assert f"Not shown: {full / 'samples.png'}: cannot be decoded" in Read(found).text
    words = "\n".join(str(one.message) for one in said)
    for file in ("recipe.toml", "schedule/steps.svg"):
        assert f"{full / file}: " in words
