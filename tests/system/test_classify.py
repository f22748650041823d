# SPDX-License-Identifier: Apache-2.0
"""Likelihoods given labels and `vdmkit classify`: what they print and keep, and when they refuse."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

import vdmkit

RECIPE = Path(vdmkit.__file__).parents[1] / "recipes" / "oracle_labels.toml"
QUICK = ("--set", "evaluation.draws=2", "--set", "sampling.steps=1", "--set", "sampling.count=4")
FEW = ("--set", "likelihood.images=40", "--set", "likelihood.batch_size=40")


@pytest.fixture(scope="module")
def oracle(tmp_path_factory, program_in) -> Path:
    """A run of the exact denoiser of a mixture given its components. Not to be changed but for its results."""
    folder = tmp_path_factory.mktemp("labels")
    trained = program_in(folder)("run", str(RECIPE), "--out", "run", *QUICK)
    assert trained.code == 0, trained.err
    return folder / "run"


def test_a_likelihood_says_which_labels_it_is_given(program, oracle):
    """A number given labels would be taken for one without, or overwrite it, or not be near its exact value."""
    own = program("likelihood", "--ckpt", str(oracle), "--label", "data")
    assert "\n  labels        each image's own: log P(image | label)\n" in own.out
    facts = json.loads(own.written.read_text())
    assert facts["label"] == "data"
    assert "_label-data_" in own.written.name
    assert abs(facts["bpd"] - facts["exact"]) < 2 * facts["half_width_monte_carlo"] < 0.1
    one = program("likelihood", "--ckpt", str(oracle), "--label", "1", "--json", *FEW)
    given = json.loads(one.out)
    assert (given["label"], given["impossible_below"]) == (1, None)
    assert abs(given["bpd"] - given["exact"]) < 2 * given["half_width_monte_carlo"]
    assert given["exact"] > facts["exact"] + 0.1
    assert "_label-1_" in one.written.name


def test_a_classification_is_bayes_rule_within_its_errors(processes, oracle):
    """A score would be off by more than is said, or a number that is printed not be kept."""
    words = ("classify", "--ckpt", str(oracle), "--passes", "2", "--logistic-regression", *FEW)
    result = processes(*words, plugins=())
    assert result.code == 0, result.err
    written = Path(result.err.splitlines()[-1].removeprefix("written to ").partition(",")[0])
    facts = json.loads(written.read_text())
    scores, exact, baseline = (facts[name] for name in ("scores", "reference", "baseline"))
    assert scores["accuracy_least"] <= exact["accuracy"] <= scores["accuracy_most"]
    off = scores["log_score"] - scores["monte_carlo_bias"] - exact["log_score"]
    assert abs(off) < 2 * scores["half_width_monte_carlo"]
    assert exact["other_decisions"] <= scores["undecided"] < 20
    assert baseline["accuracy"] < exact["accuracy"]
    assert (facts["labels"], sum(facts["class_counts"]), facts["estimates"]) == (3, 1000, 4)
    with np.load(written.with_suffix(".npz")) as arrays:
        np.testing.assert_allclose(np.exp(arrays["log_posterior"]).sum(1), 1, rtol=1e-6)
        assert int(arrays["undecided"].sum()) == scores["undecided"]
    assert result.out.startswith(f"accuracy {scores['accuracy']:.4f} ({scores['accuracy_low']:.4f} to ")
    for row in ("Monte Carlo", "log score", "calibration", "reference", "baseline", "estimator", "probability"):
        assert f"\n  {row}  " in result.out


def test_the_python_shown_runs(oracle):
    """The lines of docs/classification.md would end in a traceback, or in other images than the command's."""
    page = (RECIPE.parents[1] / "docs" / "classification.md").read_text()
    (lines,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    run = vdmkit.load(oracle, overrides=["data.test_count=40"])
    shown = lines.replace('run = vdmkit.load("runs/classifier_free")\n', "")
    assert shown != lines
    names = {"run": run}
    exec(shown, names)
    assert names["scores"].images == len(names["found"].predicted) == 40
    assert names["scores"].accuracy_least <= 1
    assert (
        names["given"].log_prob.mean()
        > vdmkit.log_likelihood(run.model, names["test"].pixels, key=run.key).log_prob.mean()
    )


def test_labels_and_classes_that_are_not_there_are_refused(program, oracle, whole):
    """A user's mistake would become a number of something else, or a traceback."""
    for words, message in {
        ("likelihood", "--label", "3"): "--label 3: expected data, or 0 to 2.",
        ("likelihood", "--label", "all"): "--label all: likelihood.label: expected 'data' or an integer, found the "
        'string "all".',
        ("likelihood", "--label", "data", "--audit"): "--audit runs its own estimators: omit the estimator, its steps, "
        "--precision, --label.",
        ("classify", "--set", "likelihood.label=1"): "likelihood.label = 1: classify conditions on every label in "
        "turn. Remove this key.",
        (
            "classify",
            "--set",
            "likelihood.precision=0.1",
        ): "likelihood.precision: classify does not use it. Omit it, and give more --passes.",
    }.items():
        refused = program(*words, "--ckpt", str(oracle))
        assert (refused.out, refused.err) == ("", f"{message}\n")
        assert refused.code in (1, 2)
    advice = "Train one that does, such as network label_conditioned."
    for words in (("likelihood", "--label", "data"), ("classify",)):
        refused = program(*words, "--ckpt", str(whole))
        assert refused.err == f"{' '.join(words[1:]) or 'classify'}: network 'tiny' does not use labels. {advice}\n"
