# SPDX-License-Identifier: Apache-2.0
"""Advice in error messages: renamed options, and overrides without `--set`."""

import shlex

import pytest

READERS = ("evaluate", "likelihood", "sample", "study", "quality", "convert")
STEP = "No such option: --step. It is now called --checkpoint-step."
REFUSED = [
    (("score", "--ckpt", "run"), "No such command 'score'. It is now called 'quality'."),
    (("schedule", "--help"), "No such command 'schedule'. It is now called 'study'."),
    (("evaluate", "--step=9"), STEP),
    *(((name, "--ckpt", "run", "--step", "9"), STEP) for name in READERS),
]


@pytest.mark.parametrize(("arguments", "message"), REFUSED, ids=lambda value: " ".join(value[:1]))
def test_an_old_name_is_refused_with_the_new_one(run, arguments, message):
    """An old name of a command or option is refused, and the error gives the new one."""
    refused = run(*arguments)
    assert (refused.code, refused.out) == (2, "")
    assert refused.err.splitlines()[-1] == f"Error: {message}"


@pytest.mark.parametrize("name", READERS)
def test_help_shows_the_new_names_alone(run, name):
    """The help shows new names only."""
    assert not {"score", "schedule"} & {line.strip().partition(" ")[0] for line in run("--help").out.splitlines()}
    words = run(name, "--help").out.split()
    assert "--checkpoint-step" in words
    assert "--step" not in words


@pytest.mark.parametrize("extra", [("training.steps=20",), ("training.steps=20", "seed=3")])
def test_an_override_without_its_option_is_told_of_it(run, extra):
    """An override without `--set` is refused with the advice to use `--set`."""
    refused = run("run", "digits", *extra)
    assert (refused.code, refused.out) == (2, "")
    assert refused.err.endswith("). To override a key of the recipe: --set training.steps=20\n")


KEYS = [
    (("sample", "--ckpt", "run", "--sampler", "heun"), "--sampler", "sampling.sampler=heun"),
    (("sample", "--ckpt", "run", "--guidance=3"), "--guidance", "sampling.guidance=3"),
    (("likelihood", "--ckpt", "run", "--draws", "64"), "--draws", "likelihood.estimator.draws=64"),
    (("evaluate", "--ckpt", "run", "--weights", "raw"), "--weights", "evaluation.weights=raw"),
    (("run", "digits", "--lr", "1e-3"), "--lr", "optimizer.learning_rate=1e-3"),
    (("run", "digits", "--batch-size", "8"), "--batch-size", "training.batch_size=8 (or evaluation.batch_size)"),
    (("run", "digits", "--network"), "--network", "model.network=VALUE"),
]


@pytest.mark.parametrize(("arguments", "option", "key"), KEYS, ids=lambda value: str(value))
def test_an_option_that_is_a_key_of_the_recipe_is_told_it(run, arguments, option, key):
    """An unknown option that is a recipe key is refused with the `--set` to use instead."""
    refused = run(*arguments)
    assert (refused.code, refused.out) == (2, "")
    assert refused.err.endswith(f"Error: No such option: {option}. It is a key of the recipe: --set {key}\n")


def test_a_key_that_a_command_does_not_use_is_not_advised(run):
    """A recipe key that has no effect on a command is not suggested."""
    assert run("sample", "--ckpt", "run", "--batch-size", "8").err.endswith("Error: No such option: --batch-size\n")


@pytest.mark.parametrize("name", ["evaluate", "likelihood", "sample", "convert"])
def test_a_run_without_its_option_is_told_of_it(run, name):
    """A run folder given without `--ckpt` is refused with the advice to use `--ckpt`."""
    refused = run(name, "runs/digits")
    assert (refused.code, refused.out) == (2, "")
    assert refused.err.endswith("Error: Missing option '--ckpt'. Did you mean --ckpt runs/digits?\n")


def test_advice_can_be_pasted_into_a_shell(run):
    """Suggested paths and values are quoted for the shell."""
    assert run("evaluate", "my runs/digits").err.endswith("Did you mean --ckpt 'my runs/digits'?\n")
    refused = run("sample", "--ckpt", "run", "--sampler", "{name = 'heun'}")
    assert shlex.split(refused.err.rpartition("It is a key of the recipe: ")[2]) == [
        "--set",
        "sampling.sampler={name = 'heun'}",
    ]


def test_a_name_that_was_never_one_is_only_unknown(run):
    """An option that this command never had is reported as unknown, not as renamed."""
    refused = run("check", "a.toml", "--step", "9")
    assert "No such option: --step" in refused.err
    assert "now called" not in refused.err
