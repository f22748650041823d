# SPDX-License-Identifier: Apache-2.0
"""The Python API returns the numbers of the commands to the last digit, and neither prints nor writes."""

import io
import json
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vdmkit
from vdmkit.errors import DataError, RecipeError
from vdmkit.experiments.measure import fingerprint_of
from vdmkit.model import DiffusionModel

QUICK = {
    "training.steps": 2,
    "training.batch_size": 8,
    "data.train_count": 20,
    "data.test_count": 12,
    "evaluation.draws": 4,
    "sampling.steps": 3,
    "sampling.count": 2,
}
COSTLY = {"ode", "importance"}
ESTIMATORS = {
    "bound": lambda: vdmkit.likelihood.bound.VariationalBound(),
    "ode": lambda: vdmkit.likelihood.ode.ProbabilityFlow(),
    "importance": lambda: vdmkit.likelihood.importance.ImportanceWeighted(steps=5),
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[vdmkit.Run, str]:
    """Returns a run, and what its training printed."""
    printed = io.StringIO()
    with redirect_stdout(printed), redirect_stderr(printed):
        run = vdmkit.train("oracle_gaussian", out=tmp_path_factory.mktemp("runs") / "oracle", overrides=QUICK)
    return run, printed.getvalue()


@pytest.fixture(scope="module")
def run(trained) -> vdmkit.Run:
    return trained[0]


def test_a_run_is_what_the_folder_holds(run):
    """A loaded run gives access to its model, recipe, step, metrics and images."""
    again = vdmkit.load(str(run.folder.path))
    assert eqx.tree_equal(again.model, run.model)
    assert (again.step, again.recipe.training.steps) == (2, 2)
    steps, values = again.metrics()["test/bpd"]
    assert (steps.tolist(), len(values)) == ([2], 1)
    assert again.data("test").pixels.shape == (12, *again.model.shape)
    assert repr(again) == f"Run({str(run.folder.path)!r}, step 2, ema weights)"


def test_measurements_of_other_parameters_have_another_name(run, tiny_model):
    """The fingerprint of a measurement changes with the parameters, not with the model object."""

    def of_run_with(model):
        parts = model, eqx.filter(model, eqx.is_inexact_array)
        state = eqx.tree_at(lambda state: (state.model, state.ema), run.state, parts)
        return fingerprint_of(replace(run, state=state), run.data("test"))

    trained_anew = eqx.tree_at(lambda model: model.network.bias, tiny_model, tiny_model.network.bias + 1)
    assert of_run_with(tiny_model) == of_run_with(tiny_model) != of_run_with(trained_anew)


def test_other_weights_are_refused(tmp_path):
    """A misspelt name of the weights is refused with the two valid names."""
    with pytest.raises(RecipeError, match="weights: expected 'ema' or 'raw', found 'emaa'"):
        vdmkit.load.__wrapped__(tmp_path, weights="emaa")  # a user has no run-time type checks


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.costly) if name in COSTLY else name for name in ESTIMATORS]
)
def test_likelihoods_are_those_of_the_command(run, vdmkit_in, tmp_path, name):
    """`vdmkit.log_likelihood` returns the numbers that `vdmkit likelihood --json` reports."""
    options = ("--steps", "5") if name == "importance" else ()
    command = ("likelihood", "--ckpt", str(run.folder.path), "--estimator", name, *options, "--json")
    facts = json.loads(vdmkit_in(tmp_path)(*command).out)
    found = vdmkit.log_likelihood(run.model, run.data("test").pixels, key=run.key, estimator=ESTIMATORS[name]())
    assert facts["bpd"] == found.bits_per_dim.value
    assert facts["half_width_monte_carlo"] == found.bits_per_dim.half_width_monte_carlo
    assert facts["evaluations"] == found.total_evaluations
    assert list(facts["terms"]) == sorted(found.terms, key=list(facts["terms"]).index)


def test_the_defaults_are_the_commands(run, vdmkit_in, tmp_path):
    """By default, `vdmkit.log_likelihood` returns the number that `vdmkit likelihood` prints."""
    printed = vdmkit_in(tmp_path)("likelihood", "--ckpt", str(run.folder.path)).out.split()[0]
    found = vdmkit.log_likelihood(run.model, run.data("test").pixels, key=run.key)
    assert printed == f"{found.bits_per_dim.value:.4f}"


def test_samples_are_those_of_the_command(run, vdmkit_in, tmp_path):
    """`vdmkit.sample` draws the samples of `vdmkit sample`, with or without a trajectory."""
    vdmkit_in(tmp_path)("sample", "--ckpt", str(run.folder.path), "-n", "3", "-o", "a.npy")
    drawn = vdmkit.sample(run.model, count=3, steps=3, key=run.key)
    np.testing.assert_array_equal(drawn, np.load(tmp_path / "a.npy"))
    again, x_hats = vdmkit.sample(run.model, count=3, steps=3, key=run.key, trajectory=True)
    np.testing.assert_array_equal(again, drawn)
    assert x_hats.shape == (3, *drawn.shape)


def test_nothing_is_printed_or_written(run, capsys, monkeypatch, tmp_path):
    """Measuring and sampling from Python print nothing and write no file."""
    monkeypatch.chdir(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in run.folder.path.rglob("*")}
    vdmkit.log_likelihood(run.model, run.data("test").pixels, key=run.key)
    vdmkit.sample(run.model, count=1, steps=2, key=run.key)
    assert capsys.readouterr() == ("", "")
    assert {path: path.stat().st_mtime_ns for path in run.folder.path.rglob("*")} == before
    assert not list(tmp_path.iterdir())


def test_training_prints_nothing(trained):
    """`vdmkit.train` prints nothing."""
    assert trained[1] == ""


WORDS = [
    ({"training": {"steps": -3}}, "overrides: training.steps: expected greater than 0, found -3."),
    ({"training.steps": -3}, "overrides: training.steps: expected greater than 0, found -3."),
    (["training.steps=-3"], "overrides, 'training.steps=-3': training.steps: expected greater than 0, found -3."),
]


@pytest.mark.parametrize(("overrides", "message"), WORDS)
def test_overrides_are_refused_in_the_callers_words(tmp_path, overrides, message):
    """An invalid override passed from Python is reported without mentioning `--set`."""
    with pytest.raises(RecipeError) as refused:
        vdmkit.train("digits", out=tmp_path / "run", overrides=overrides)
    assert str(refused.value) == message


def test_a_dict_is_refused_in_the_callers_words(run, tmp_path):
    """An error in a recipe passed as a dict is reported by its key, without a file name."""
    with pytest.raises(RecipeError, match=r"^recipe: training\.steps: expected greater than 0, found -3\.$"):
        vdmkit.train({"extends": "digits", "training": {"steps": -3}}, out=tmp_path / "run")
    with pytest.raises(RecipeError, match=r"^training\.steps: cannot be changed after training\."):
        vdmkit.load(run.folder.path, overrides={"training": {"steps": 3}})


def test_images_may_be_numpy_arrays(tiny_model):
    """`vdmkit.loss` and `DiffusionModel.diffuse` accept NumPy arrays."""
    images, key = np.ones((3, *tiny_model.shape), np.uint8), jax.random.key(0)
    loss, bound = vdmkit.loss(tiny_model, images, key=key)
    assert float(loss) == pytest.approx(
        vdmkit.losses.bound.bits_per_dim(float(bound.total.mean()), tiny_model.dimensions)
    )
    z, _ = tiny_model.diffuse(images[0], jnp.asarray(0.0), key=key)
    assert z.shape == tiny_model.shape


def test_models_are_compared_on_the_same_images(run):
    """`vdmkit.compare` pairs the estimates by image, and refuses estimates of different images."""
    pixels = run.data("test").pixels
    first, second, other = (
        vdmkit.log_likelihood(run.model, images, key=jax.random.key(seed))
        for images, seed in ((pixels, 0), (pixels, 1), (pixels[::-1], 0))
    )
    assert vdmkit.compare(first, first).value == vdmkit.compare(first, first).half_width == 0.0
    found = vdmkit.compare(first, second)
    assert found.value == pytest.approx(first.bits_per_dim.value - second.bits_per_dim.value, rel=1e-9)
    with pytest.raises(DataError, match="of other images"):
        vdmkit.compare(first, other)


class Zero(eqx.Module):
    """A network that is not derived from vdmkit's classes and predicts no noise."""

    def __call__(self, z, gamma, condition, *, key=None):
        return jnp.zeros_like(z)[..., None]


@pytest.mark.costly
def test_a_model_without_a_recipe():
    """A model with a user's own network can be measured, sampled and trained without a recipe."""
    model = vdmkit.DiffusionModel(
        schedule=vdmkit.schedules.LearnedLinear(gamma_min=-8.0, gamma_max=5.0),
        network=Zero(),
        prediction=vdmkit.predictions.V(),
        shape=(4, 4, 1),
        levels=5,
    )
    images = np.random.default_rng(0).integers(0, 5, (6, 4, 4, 1)).astype(np.uint8)
    z, eps = model.diffuse(jnp.asarray(images[0]), jnp.asarray(0.0), key=jax.random.key(0))
    estimate = model.denoise(z, jnp.asarray(0.0))
    assert estimate.x_hat.shape == eps.shape == (4, 4, 1)
    (loss, bound), gradient = eqx.filter_value_and_grad(vdmkit.loss, has_aux=True)(
        model, jnp.asarray(images), key=jax.random.key(0)
    )
    assert float(loss) == pytest.approx(float(bound.total.mean()) / (16 * np.log(2)), rel=1e-5)  # float32 sums
    assert any(jnp.any(leaf != 0) for leaf in jax.tree.leaves(gradient.schedule))
    assert vdmkit.log_likelihood(model, images, key=jax.random.key(0)).log_prob.shape == (6,)
    assert vdmkit.sample(model, count=2, steps=2, key=jax.random.key(0)).dtype == np.uint8
    with pytest.raises(RecipeError, match="the number of levels, or an observation"):
        vdmkit.DiffusionModel(
            schedule=model.schedule, network=Zero(), prediction=vdmkit.predictions.V(), shape=model.shape
        )


@pytest.mark.parametrize(
    ("images", "reason"),
    [
        (np.zeros((3, 5, 4, 1), np.uint8), r"images of shape \(3, 5, 4, 1\): expected \(n, 4, 4, 1\)"),
        (np.zeros((3, 4, 4, 1), np.float32), "images of float32: expected uint8, for 17 levels"),
        (np.full((3, 4, 4, 1), 17, np.uint8), r"a pixel is 17: expected 0\.\.16"),
        (np.zeros((1, 4, 4, 1), np.uint8), r"1 image\(s\) to test on"),
    ],
)
def test_what_is_no_image_of_the_model_is_refused(run, images, reason):
    """Images of the wrong type, shape or range of levels are refused."""
    with pytest.raises(DataError, match=reason):
        vdmkit.log_likelihood(run.model, images, key=run.key)


class _Meter:
    """A user's own progress meter."""

    def __init__(self):
        self.seen = []

    def start(self, what, total, done):
        self.seen.append(what)

    def advance(self, n=1, note=None):
        pass

    def stop(self):
        pass


def test_a_recipe_may_be_a_dict(tmp_path):
    """`vdmkit.train` accepts a dict as the recipe and a user's own progress meter."""
    recipe = {"extends": "oracle_gaussian", "training": {"steps": 1}}
    meter = _Meter()
    run = vdmkit.train(recipe, out=tmp_path / "run", overrides={**QUICK, "training.steps": 1}, progress=meter)
    assert run.step == 1
    assert set(meter.seen) == {"training", "likelihood", "sampling"}
    with pytest.raises(RecipeError, match="needs a run folder"):
        vdmkit.train(recipe)


def test_every_promised_name_is_there():
    """Every name in `vdmkit.__all__` exists, and `dir(vdmkit)` lists it."""
    assert {name for name in vdmkit.__all__ if not hasattr(vdmkit, name)} == set()
    assert set(vdmkit.__all__) <= set(dir(vdmkit))
    rooms = {path.name for path in Path(vdmkit.__file__).parent.iterdir() if (path / "__init__.py").exists()}
    assert all(getattr(vdmkit, name).__name__ == f"vdmkit.{name}" for name in dir(vdmkit) if name in rooms)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = vdmkit.nonsense


MISTAKES = """
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import vdmkit
from vdmkit.errors import VdmkitError
from vdmkit.schedules import LearnedLinear

parts = dict(schedule=LearnedLinear(gamma_min=-8.0, gamma_max=5.0), prediction=vdmkit.predictions.V(), shape=(4, 4, 1))
zero = lambda z, gamma, condition, *, key=None: jnp.zeros((*z.shape, 1))
key, images = jax.random.key(0), np.zeros((4, 4, 4, 1), np.uint8)
images[1:] = np.arange(1, 4)[:, None, None, None]
new = lambda **changed: vdmkit.DiffusionModel(**{**parts, "levels": 5, "network": zero, **changed})
model = new()
likelihood = lambda of=model, x=images, key=key, **given: vdmkit.log_likelihood(of, x, key=key, **given)
sample = lambda of=model, **given: vdmkit.sample(of, **{"count": 1, "steps": 2, "key": key, **given})
short = new(network=lambda z, gamma, condition, *, key=None: jnp.zeros(z.shape))
for mistake in MISTAKES:
    try:
        print("ACCEPTED:", eval(mistake))
    except VdmkitError as error:
        print(error)
    except Exception as error:
        print("RAW:", type(error), error)
"""
REFUSED = {
    "new(levels=1)": "levels: expected an integer from 2 to 256, found 1.",
    "new(levels=257)": "levels: expected an integer from 2 to 256, found 257.",
    "new(levels=-1)": "levels: expected an integer from 2 to 256, found -1.",
    "new(levels=9.5)": "levels: expected an integer from 2 to 256, found 9.5.",
    "new(levels='9')": "levels: expected an integer from 2 to 256, found '9'.",
    "new(shape=(8, 8))": "shape: expected (height, width, channels), found (8, 8).",
    "new(shape=(8, 8, 0))": "shape: expected an integer from 1 to 2,147,483,647, found 0.",
    "new(prediction=vdmkit.predictions.V)": (
        "prediction: expected a Prediction of vdmkit, found the class V: write V()."
    ),
    "new(path='vp')": "path: expected a Path of vdmkit, found 'vp'.",
    "likelihood(short)": "the network's output has shape (4, 4, 1): expected (h, w, c, outputs of the prediction) = "
    "(4, 4, 1, 1).",
    "vdmkit.loss(short, images, key=key)": "the network's output has shape (4, 4, 1): expected (h, w, c, outputs of "
    "the prediction) = (4, 4, 1, 1).",
    "likelihood(index=[0, 1, 1])": "index: image 1 occurs 2 times. Give each image once.",
    "likelihood(index=[-1, 0])": "index from -1 to 0: there are images 0..3.",
    "likelihood(index=[0, 4])": "index from 0 to 4: there are images 0..3.",
    "likelihood(index=[True, False])": "index of shape (2,) and type bool: expected integers, of shape (m,).",
    "likelihood(estimator='ode')": "estimator: expected an Estimator of vdmkit, found 'ode'.",
    "likelihood('runs/digits')": "model: expected a DiffusionModel of vdmkit, found 'runs/digits'.",
    "likelihood(batch_size=0)": "batch_size: expected an integer from 1 to 2,147,483,647, found 0.",
    "likelihood(precision=-1)": "precision: expected a finite number >= 0, found -1.",
    "likelihood(precision=float('inf'))": "precision: expected a finite number >= 0, found inf.",
    "likelihood(key=0)": "key: expected a random key, such as jax.random.key(0), found int.",
    "likelihood(progress='yes')": "progress: expected None, \"auto\" or an object like Meter, found 'yes'.",
    "sample(end='imge')": "end: expected 'latent' or 'image', found 'imge'.",
    "sample(steps=2.5)": "steps: expected an integer from 1 to 10,000, found 2.5.",
    "sample(steps=0)": "steps: expected an integer from 1 to 10,000, found 0.",
    "sample(count=0)": "count: expected an integer from 1 to 2,147,483,647, found 0.",
    "sample(sampler='heun')": "sampler: expected a Sampler of vdmkit, found 'heun'.",
    "sample(guidance=3.0)": "guidance: expected a Guidance of vdmkit, found 3.0.",
    "vdmkit.loss(model, images + 5, key=key)": "a pixel is 8: expected 0..4.",
    "vdmkit.loss(model, images[:0], key=key)": "images: an empty batch has no loss.",
    "vdmkit.compare(images, images)": "first: expected a LogLikelihood of vdmkit, found an object of type ndarray.",
    "vdmkit.Run.data(None, 'tset')": "split: expected 'train' or 'test', found 'tset'.",
    "vdmkit.train({'seed': None}, out='run')": "train: the recipe is not TOML: Object of type 'NoneType' is not TOML "
    "serializable. Leave out a key for its default.",
}


@pytest.mark.costly
def test_mistakes_are_named():
    """Wrong arguments raise errors of vdmkit that name the argument.

    Runs in a process of its own, because run-time type checking in the tests would raise first.
    """
    script = MISTAKES.replace("MISTAKES", repr(list(REFUSED)))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert dict(zip(REFUSED, done.stdout.splitlines(), strict=True)) == REFUSED


def test_a_number_is_a_noise_level(tiny_model):
    """`DiffusionModel.denoise` accepts a Python float as the noise level."""
    z = jnp.ones(tiny_model.shape)
    found = DiffusionModel.denoise.__wrapped__(tiny_model, z, 0.0)
    assert eqx.tree_equal(found, tiny_model.denoise(z, jnp.asarray(0.0)))
