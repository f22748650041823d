# SPDX-License-Identifier: Apache-2.0
"""`vdmkit convert`: the same model by other numbers, in a run folder like any other."""

import json

import pytest

TO = """extends = "{tiny}"

[model.path]
name = "{path}"

[model.prediction]
name = "{prediction}"
"""


def recipe(program, tiny: str, path: str, prediction: str) -> str:
    name = f"{path}_{prediction}.toml"
    (program.cwd / name).write_text(TO.format(tiny=tiny, path=path, prediction=prediction))
    return name


@pytest.mark.slow
def test_a_converted_run_has_the_same_bound_and_goes_on(program, tiny):
    """A conversion would change the model, lose what it was trained on, or make a folder that no command reads."""
    eps = recipe(program, tiny, "variance_preserving", "eps")
    assert program("run", eps, "--out", "run").code == 0
    flow = recipe(program, tiny, "straight_line", "velocity")
    converted = program("convert", "--ckpt", "run", "--to", flow, "-o", "new")
    assert converted.code == 0, converted.err
    before, after = (float(converted.out.split(word)[1].split()[0].strip(",")) for word in ("before", "after"))
    assert abs(before - after) < 1e-4  # float32
    evaluated = program("evaluate", "--ckpt", "new", "--json")
    assert evaluated.code == 0, evaluated.err
    same = json.loads(program("evaluate", "--ckpt", "run", "--json").out)
    found = json.loads(evaluated.out)
    assert abs(found["bpd"] - same["bpd"]) < 1e-4
    assert (found["step"], found["test_images_trained_on"]) == (same["step"], same["test_images_trained_on"])
    more = program("run", "new/resolved.toml", "--out", "new", "--set", "training.steps=14")
    assert more.code == 0, more.err
    assert "continuing new from step 12" in more.err
    labelled = program("sample", "--ckpt", "new", "--set", "sampling.guidance=2")
    assert labelled.code == 2
    assert labelled.err.startswith("sampling.guidance = 2: network 'translated' does not use labels.")
    back = program("convert", "--ckpt", "run", "--to", tiny, "-o", "levels")
    assert (back.code, back.out) == (2, "")
    assert back.err.startswith(f"--to {tiny}: prediction 'categorical' has 17 outputs a pixel and channel; convert")
    assert not (program.cwd / "levels").exists()


def test_levels_are_not_converted_to_a_direction(program, tiny, whole):
    """A distribution over levels would be thrown away in silence, or the folder be left half made."""
    to = recipe(program, tiny, "variance_preserving", "v")
    refused = program("convert", "--ckpt", str(whole), "--to", to, "-o", "new")
    assert (refused.code, refused.out) == (2, "")
    known = "convert needs one of edm, eps, eps_and_range, score, unit_velocity, v, velocity, with_range, x."
    assert refused.err == f"--ckpt {whole}: prediction 'categorical' has 17 outputs a pixel and channel; {known}\n"
    assert not (program.cwd / "new").exists()
