# SPDX-License-Identifier: Apache-2.0
"""`vdmkit likelihood`: the number, its errors, what it was measured on, and when it refuses to give one."""

import json
import math
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import scipy.stats

FEW = ("--set", "likelihood.estimator.draws=4")
SEVEN = ("--set", "likelihood.images=7")  # "by sevens" compiled their batch
ADAPTIVE = ("--set", "likelihood.estimator.step_size=adaptive")
FOUR = ("--set", "likelihood.images=4")  # as many as are solved again: one compilation
FIVE = ("--steps", "5", "--grid", "gamma")
LOOSE = ("--set", "likelihood.estimator.rtol=1e-4", "--set", "likelihood.estimator.atol=1e-4")
DEVICES = "--xla_force_host_platform_device_count=4"
BY_SEVENS = ("--json", *FEW, "--set", "likelihood.batch_size=7")
NUMBERS = ("bpd", "half_width_monte_carlo", "half_width_test_set")
PILOT = 2 * 48 * 24  # network evaluations
ASKED = {
    "json": ("--json", *FEW),
    "one by one": (*FEW, "--set", "likelihood.batch_size=1"),
    "by sevens": BY_SEVENS,
    "sub-sample": (*FEW, *SEVEN),
    "precise": ("--precision", "0.05"),
    "steps": ("--steps", "4", *FEW, *SEVEN),
    "importance": ("--estimator", "importance", "--set", "likelihood.estimator.samples=2", *FIVE, *SEVEN),
    "ode": ("--estimator", "ode", "--set", "likelihood.estimator.divergence=exact", *LOOSE, *FOUR),
}


@dataclass(frozen=True)
class Measured:
    """What `vdmkit likelihood` said, and what it left in a copy of a run."""

    run: Path
    out: str
    err: str
    written: Path | None

    @property
    def facts(self) -> dict:
        return {name: value for name, value in json.loads(self.written.read_text()).items() if name != "crc32"}

    @property
    def images(self) -> dict[str, np.ndarray]:
        with np.load(self.written.with_suffix(".npz")) as file:
            return dict(file)

    def row(self, name: str) -> str:
        """What the text says of it."""
        (row,) = (line.removeprefix("  ") for line in self.out.splitlines() if line.startswith(f"  {name:12}"))
        return row.removeprefix(name).strip()


def measure(program, whole: Path, *arguments: str, code: int = 0, **options) -> Measured:
    """`vdmkit likelihood` on a copy of a run, named `run`, which may be there from before."""
    run = program.cwd / "run"
    if not run.exists():
        shutil.copytree(whole, run)
    result = program("likelihood", "--ckpt", "run", *arguments, **options)
    assert result.code == code, result.err
    return measured_by(program, run, result)


def measured_by(program, run: Path, result) -> Measured:
    """What a command said of `run`."""
    written = program.cwd / result.written if result.code == 0 else None
    return Measured(run, result.out, result.err, written)


class Measurements(dict):
    """A measurement for each entry of `ASKED` that a test asks for, each in a copy of the run. Not to be changed."""

    def __init__(self, program, whole: Path) -> None:
        self.program, self.whole = program, whole

    def __missing__(self, name: str) -> Measured:
        run = shutil.copytree(self.whole, self.program.cwd / name)
        result = self.program("likelihood", "--ckpt", name, *ASKED[name])
        assert result.code == 0, result.err
        return self.setdefault(name, measured_by(self.program, run, result))


@pytest.fixture(scope="module")
def measured(program_in, tmp_path_factory, whole) -> Measurements:
    """`measured["json"]`, and so on."""
    return Measurements(program_in(tmp_path_factory.mktemp("measured")), whole)


@pytest.mark.costly
def test_the_json(measured):
    """A program that reads the result would miss a fact, or read one that contradicts another or the run folder."""
    whole_set = measured["json"]
    facts = whole_set.facts
    assert json.loads(whole_set.out) == facts
    assert list(facts["terms"]) == ["prior", "reconstruction", "diffusion"]
    assert facts["bpd"] == pytest.approx(sum(facts["terms"].values()), rel=1e-12)  # float64
    assert 0 < facts["half_width_monte_carlo"] < facts["bpd"]
    assert 0 <= facts["half_width_test_set"] < facts["bpd"]
    evaluation = json.loads((whole_set.run / "evaluation.json").read_text())
    same = ("dataset", "sha256", "published", "images", "test_images_trained_on", "step", "weights", "seed", "device")
    same += ("precision", "matmul_precision", "estimator")
    assert {name: facts[name] for name in same} == {name: evaluation[name] for name in same}
    assert (facts["step"], facts["weights"], facts["images_in_test_set"]) == (12, "ema", 20)
    assert facts["estimator"] == "variational bound, continuous time"
    assert facts["evaluations"] == 20 * 4  # fewer than a pilot takes, so there is none
    assert facts["evaluations_per_image"] == facts["evaluations"] / 20
    assert (facts["precision"], facts["trusted"], facts["reasons"]) == ("float32", True, [])
    assert [facts[name] for name in ("exact", "exact_bound", "discretisation")] == [None, None, None]


def test_the_file_of_images(measured):
    """The values of single images would not be those of the reported mean, or not say of which image they are."""
    whole_set = measured["json"]
    images, facts = whole_set.images, whole_set.facts
    np.testing.assert_array_equal(images["index"], np.arange(20))
    bits = 64 * math.log(2)
    assert images["nats"].shape == images["standard_error"].shape == (20,)
    assert images["nats"].mean() / bits == pytest.approx(facts["bpd"], rel=1e-12)  # float64
    error = np.sqrt((images["standard_error"] ** 2).sum()) / 20
    # Student's t, with as many degrees of freedom as images that carry the variance (Satterthwaite, Rubin & Schenker)
    shares = images["standard_error"] ** 2 / (images["standard_error"] ** 2).sum()
    degrees = np.clip(3 / (shares**2).sum() - 2, 1, 19)
    expected = scipy.stats.t.ppf(0.975, degrees) * error / bits
    assert facts["half_width_monte_carlo"] == pytest.approx(expected, rel=1e-6)
    for name, value in facts["terms"].items():
        assert images[f"term_{name}"].shape == (2, 20)  # two independent estimates
        assert images[f"term_{name}"].mean() / bits == pytest.approx(value, rel=1e-12)
    assert not images["failed"].any()


def test_the_text(measured):
    """A user would read other numbers than a program does, or not on what and with what they were measured."""
    text = measured["one by one"]
    facts = text.facts
    value, monte_carlo, test_set = (f"{facts[name]:.4f}" for name in NUMBERS)
    assert text.out.splitlines()[0].startswith(f"{value} +/- ")
    assert text.out.splitlines()[0].endswith(" bits/dim on these 20 images")
    assert text.row("Monte Carlo") == f"+/- {monte_carlo} (95%: what more draws would change)"
    assert text.row("test set").startswith(f"+/- {test_set} (95%: what other images would change")
    assert text.row("terms") == " + ".join(f"{name} {bits:.4f}" for name, bits in facts["terms"].items())
    assert text.row("estimator") == "variational bound, continuous time"
    assert (
        text.row("network")
        == f"{facts['evaluations']:,} evaluations: {facts['evaluations_per_image']:.0f} draws an image"
    )
    assert text.row("images") == "all 20 of noise/test, not the published data set"
    assert text.row("model") == f"step 12, ema weights, float32, matmul precision highest, {facts['device']}"


def test_batches_and_devices_change_nothing(processes, whole, measured):
    """The likelihood of an image would depend on its batch, on padding, or on the number of devices."""
    four = measure(processes, whole, *FEW, "--set", "likelihood.batch_size=6", flags=DEVICES)  # 8 images at a time
    assert four.facts["device"].startswith("4 x ")
    for other in (measured["one by one"], measured["by sevens"], four):
        for name, values in ((name, values) for name, values in measured["json"].images.items() if name != "overrides"):
            # At most 300 nats, which float32 knows to 3e-5, and sums of 64 numbers in another order: 1e-4. A standard
            # error is half the difference of two of them.
            np.testing.assert_allclose(other.images[name], values, rtol=1e-7, atol=5e-4, err_msg=name)
        assert other.facts["bpd"] == pytest.approx(measured["json"].facts["bpd"], rel=2e-6)


def test_killed_it_goes_on_where_it_was(processes, whole, measured):
    """A pass of hours would begin anew, end with another number than undisturbed, or leave its parts behind."""
    last = r"os.rename likelihood\.unfinished/.*/14\.npz "
    killed = measure(processes, whole, *BY_SEVENS, faults=f"SIGKILL {last}", code=-9)
    assert killed.out == ""
    unfinished = killed.run / "likelihood.unfinished"
    assert sorted(path.name for path in unfinished.glob("*/[0-9]*")) == ["0.npz", "7.npz"]
    done = r"os.rename likelihood\.unfinished/.*/(0|7)\.npz "  # what is computed is written
    again = measure(processes, whole, *BY_SEVENS, faults=f"SIGKILL {done}")
    undisturbed = measured["by sevens"]
    assert again.out == undisturbed.out
    assert again.written.name == undisturbed.written.name
    assert again.written.read_bytes() == undisturbed.written.read_bytes()
    for name, values in undisturbed.images.items():
        np.testing.assert_array_equal(again.images[name], values, err_msg=name)
    assert not unfinished.exists()


@pytest.mark.slow
def test_results_are_named_by_what_was_measured(measured):
    """A user would not find the result of an estimator among the others, or two estimators share a file."""
    words = {
        "json": "noise-test_bound-draws-4",
        "steps": "noise-test_bound-draws-4-steps-4",
        "importance": "noise-test_importance-samples-2-steps-5-grid-gamma",
        "ode": "noise-test_ode-rtol-0.0001-atol-0.0001-divergence-exact",
    }
    assert {name: measured[name].written.stem.rpartition("_")[0] for name in words} == words
    assert len({measured[name].written.name for name in ASKED}) == len(ASKED)


def test_every_result_is_kept(program, whole):
    """Other images would overwrite the likelihood of the run's own test set; or the same, asked twice, pile up."""
    others = {path.stem for path in whole.glob("likelihood/*")}  # of other tests
    own = measure(program, whole, *FEW)
    before = own.written.read_bytes()
    images = np.random.default_rng(1).integers(0, 17, (20, 8, 8, 1)).astype(np.uint8)
    np.savez(program.cwd / "noise.npz", train=images, test=images)  # which has the name of the run's own
    other = measure(program, whole, *FEW, "--set", "data.path=noise.npz")
    assert other.facts["bpd"] != own.facts["bpd"]
    assert own.written.read_bytes() == before
    again = measure(program, whole, *FEW, "--set", "sampling.steps=3", plugins=())  # of no concern
    assert (again.written, again.written.read_bytes()) == (own.written, before)
    kept = {path.stem for path in (own.run / "likelihood").iterdir()}
    assert kept - others == {own.written.stem, other.written.stem}


IN_WORDS = {
    "steps": (
        "variational bound, T = 4 steps, kernel gaussian, grid uniform",
        ["prior", "reconstruction", "diffusion"],
    ),
    "importance": ("importance-weighted bound, 2 samples, T = 5 steps, kernel gaussian, grid gamma", ["importance"]),
    "ode": (
        "probability-flow ODE, Tsit5, rtol 1e-04, atol 1e-04, exact divergence, truncated normal dequantisation: "
        "a bound on -log P",
        ["prior", "volume", "dequantisation"],
    ),
}


@pytest.mark.parametrize("name", IN_WORDS)
def test_every_estimator_says_what_it_is(measured, name):
    """A number would be reported as another estimator's, or an option not reach that estimator."""
    words, terms = IN_WORDS[name]
    facts = measured[name].facts
    assert measured[name].row("estimator") == facts["estimator"] == words
    assert list(facts["terms"]) == terms
    assert facts["bpd"] == pytest.approx(sum(facts["terms"].values()), rel=1e-6)  # the ode's are float32
    assert ("  solver " in measured[name].out) == (facts["discretisation"] is not None) == (name == "ode")
    assert facts["trusted"]


def test_a_precision_is_reached(measured):
    """`--precision` would not be kept, or network evaluations of the pilot or of a pass not be counted."""
    assert measured["json"].facts["half_width_monte_carlo"] > 0.05
    precise = measured["precise"]
    assert 0 < precise.facts["half_width_monte_carlo"] <= 0.05
    draws = precise.facts["evaluations"] - PILOT
    assert draws > 20 * 4
    assert draws % 20 == 0
    assert not (precise.run / "likelihood.unfinished").exists()


def test_a_sub_sample(measured):
    """Some of the images would pass for all of them, be the first ones, or not be known."""
    seven = measured["sub-sample"]
    assert seven.row("images") == "7 (drawn at random from 20) of noise/test, not the published data set"
    assert (seven.facts["images"], seven.facts["images_in_test_set"]) == (7, 20)
    assert seven.images["index"].tolist() == sorted(np.random.default_rng(0).permutation(20)[:7])
    assert seven.images["nats"].shape == (7,)


def test_what_is_no_likelihood(processes, whole):
    """A solve that stopped halfway would be reported as a likelihood, or hours of solving be lost by the refusal."""
    fails = ("--estimator", "ode", "--set", "likelihood.estimator.max_steps=2", *FOUR)
    reason = "the solver did not reach its end for 4 of 4 images: give it more likelihood.estimator.max_steps."
    refused = measure(processes, whole, *fails, code=4)
    assert refused.out == ""
    message = f"not a likelihood: {reason} --allow-untrusted prints the number, marked as untrusted. "
    message += "What was measured is kept for that in run/likelihood.unfinished; or delete it."
    assert refused.err.splitlines()[-1] == message
    assert not (refused.run / "likelihood").exists()
    again = r"os.rename likelihood\.unfinished/.*/0\.npz "
    marked = measure(processes, whole, *fails, "--allow-untrusted", faults=f"SIGKILL {again}")
    facts = marked.facts
    assert (facts["trusted"], facts["reasons"], facts["discretisation"]) == (False, [reason], None)
    assert marked.out.splitlines()[0].startswith(f"{facts['bpd']:.4f} +/- ")
    assert marked.out.splitlines()[0].endswith(" bits/dim on these 4 images, NOT A LIKELIHOOD")
    assert marked.row("reason") == reason
    assert marked.row("solver").startswith("error not known")
    assert marked.images["failed"].all()
    assert not (marked.run / "likelihood.unfinished").exists()


REFUSED = [  # by the recipe alone
    (("--estimator", "nonsense"), "unknown estimator 'nonsense'. Known: bound, importance, ode."),
    (("--set", "likelihood.estimator.draws=3"), "likelihood.estimator.draws: expected a multiple of 2, found 3."),
    (("--set", "likelihood.estimator.draws=0"), "expected greater than or equal to 2, found 0."),
    (
        ("--set", "likelihood.estimator.samples=2"),
        "samples: unknown key. Known: draws, steps, kernel, grid.",
    ),
    (("--estimator", "ode", "--steps", "4"), "The constant steps of its solver are --solver-steps."),
    (("--estimator", "ode", "--grid", "gamma"), "The constant steps of its solver are --solver-steps."),
    (("--solver-steps", "4"), "--solver-steps: the estimator bound solves no ODE. T of a bound is --steps."),
    (("--solver-steps", "4", "--estimator", "importance"), "the estimator importance solves no ODE."),
    (
        ("--estimator", "ode", "--set", "likelihood.estimator.steps=4"),
        "likelihood.estimator.steps: was renamed: likelihood.estimator.solver_steps.",
    ),
]
REFUSED_LATER = [  # when the model is there, and was checked
    (("--precision", "0.1", "--estimator", "ode"), "Omit the precision and set likelihood.estimator.draws."),
    (("--precision", "0.1", "--estimator", "importance"), "the importance estimator cannot plan for a precision"),
    (
        ("--solver-steps", "4", "--estimator", "ode", *ADAPTIVE),
        'solver_steps = 4 with step_size = "adaptive"',
    ),
]


@pytest.mark.parametrize("refused", [REFUSED, REFUSED_LATER], ids=["", "later"])
def test_refusals(program, whole, snapshot, refused):
    """A mistyped estimator or setting would be passed over in silence, or end without the names that are known."""
    run = shutil.copytree(whole, program.cwd / "run")
    before = snapshot(run)
    results = program.together(*(("likelihood", "--ckpt", "run", *arguments) for arguments, _ in refused))
    for (arguments, message), result in zip(refused, results, strict=True):
        assert (result.code, result.out) == (2, ""), arguments
        assert message in result.err, arguments
        assert len(result.err.splitlines()) == 1, result.err
    assert snapshot(run) == before


@pytest.mark.costly
def test_data_of_another_scale(program, whole):
    """Images of 0 and 1 could be measured by a model of 17 levels, without a word."""
    shutil.copytree(whole, program.cwd / "run")
    binary = np.random.default_rng(0).integers(0, 2, (4, 8, 8, 1)).astype(np.uint8)
    np.savez(program.cwd / "binary.npz", train=binary, test=binary)
    likelihood = ("likelihood", "--ckpt", "run", *FEW, "--set", "data.path=binary.npz")
    reason = "values of the test images go from 0 to 1, and those that the model was trained on from 0 to 16: "
    reason += "they are of another scale."
    refused, evaluated = program.together(likelihood, ("evaluate", "--ckpt", "run", "--set", "data.path=binary.npz"))
    assert (refused.code, refused.out) == (4, "")
    assert f"not a likelihood: {reason}" in refused.err
    assert (evaluated.code, evaluated.out, evaluated.err) == (1, "", f"binary: {reason}\n")
    marked = program(*likelihood, "--allow-untrusted")
    assert "NOT A LIKELIHOOD" in marked.out
    facts = json.loads((program.cwd / marked.written).read_text())
    assert (facts["trusted"], facts["reasons"]) == (False, [reason])


def test_data_that_do_not_fit(program, whole, tiny, snapshot):
    """The likelihood of images of another size or number of levels would be compared with that of the run's."""
    run = shutil.copytree(whole, program.cwd / "run")
    before = snapshot(run)
    larger = np.zeros((2, 8, 9, 1), np.uint8)
    np.savez(program.cwd / "larger.npz", train=larger, test=larger)
    likelihood = ("likelihood", "--ckpt", "run", "--set")
    commands = [(*likelihood, change) for change in ("data.path=larger.npz", "data.levels=18", "likelihood.images=1")]
    shape, levels, single = program.together(*commands)
    fits = "the model was trained on (8, 8, 1, 17). The model has no likelihood for them.\n"
    images = "images of (height, width, channels, levels)"
    assert (shape.code, shape.out, shape.err) == (1, "", f"larger: {images} (8, 9, 1, 17); {fits}")
    assert (levels.code, levels.out, levels.err) == (1, "", f"noise: {images} (8, 8, 1, 18); {fits}")
    message = "1 image(s) to test on: an interval needs at least 2. Give more.\n"
    assert (single.code, single.out, single.err) == (1, "", message)
    assert snapshot(run) == before
