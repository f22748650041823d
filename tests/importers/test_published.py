# SPDX-License-Identifier: Apache-2.0
"""`vdmkit import` reproduces the authors' denoiser for every family, and refuses what does not fit."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import msgpack
import numpy as np
import pytest
from vdmkit_importers import EdmImporter, ScoreSdeImporter

from vdmkit.conformance.checking import compiled_fast
from vdmkit.errors import CheckpointError
from vdmkit.experiments import load_run
from vdmkit.importers import read_weights
from vdmkit.importers.diffusers import DiffusersImporter
from vdmkit.importers.loader import described, read_imported, state_of
from vdmkit.model import DiffusionModel
from vdmkit.plugins import load_plugins
from vdmkit.predictions import Estimate
from vdmkit.recipes import load_recipe
from vdmkit.registry import registry

NETWORKS = Path(__file__).parents[1] / "reference" / "networks"
TUTORIAL = Path(__file__).parents[2] / "docs" / "tutorial.md"
FOLDERS = ["ddpm", "edm-adm", "guided", "improved", "score_sde-ncsnpp", "idode-vp", "idode-sp"]
FAMILIES = {"ddpm": "diffusers", "edm": "edm", "guided": "openai", "improved": "openai"}
FAMILIES |= {"score_sde": "score_sde", "idode": "idode"}
OF_IDODE = {"second_order", "velocity", "importance", "dequantization", "num_importance", "schedule", "seed"}
"""Fields that i-DODE's configuration has and that of the paper's code has not."""


def arrays_in(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as file:
        return dict(file)


def tree_of(arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """Returns nested dicts of arrays whose names contain '/'."""
    tree: dict[str, Any] = {}
    for name, array in arrays.items():
        *parents, last = name.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = array
    return tree


def flax(path: Path, tree: Any) -> Path:
    def encode(array: np.ndarray) -> msgpack.ExtType:
        return msgpack.ExtType(1, msgpack.packb((array.shape, array.dtype.name, array.tobytes())))

    path.write_bytes(msgpack.packb(tree, default=encode))
    return path


@pytest.fixture
def checkpoint(tmp_path, ops) -> Callable[..., list[str]]:
    """`checkpoint(folder)` returns the paths of the authors' file and configuration, as arguments of the command."""

    def checkpoint(folder: str, arrays: dict[str, np.ndarray] | None = None) -> list[str]:
        if folder == "ddpm":
            return [str(NETWORKS / "ddpm" / "diffusers_old_names")]
        arrays = arrays or arrays_in(NETWORKS / folder / "weights.npz")
        if folder.startswith("idode"):
            tree = tree_of(arrays)
            moments = {"count": 7, "mu": tree, "nu": tree}
            file = flax(tmp_path / "ckpt", {"step": 7, "params": tree, "ema_params": tree, "opt_state": moments})
        else:
            storages = {str(i): array.tobytes() for i, array in enumerate(arrays.values())}
            tensors = {name: ops.tensor_of(str(i), array) for i, (name, array) in enumerate(arrays.items())}
            file = ops.torch_zip(tmp_path / "ema.pt", ops.dictionary(tensors), storages)
        return [str(file), "--config", str(NETWORKS / folder / "config.json")]

    return checkpoint


@pytest.fixture
def program(vdmkit_in, tmp_path):
    """Returns the program in a folder with images of 8 and of 16 pixels."""
    for size in (8, 16):
        pixels = np.random.default_rng(size).integers(0, 256, (2, size, size, 3)).astype(np.uint8)
        np.savez(tmp_path / f"{size}.npz", train=pixels, test=pixels)
    return vdmkit_in(tmp_path)


@dataclass(frozen=True)
class Golden:
    """Inputs of the imported model, and the expected value of its estimate as returned by `read`."""

    z: np.ndarray
    gamma: np.ndarray
    expected: np.ndarray
    read: Callable[[Estimate], Any] = lambda estimate: estimate.eps_hat
    known: dict[str, np.ndarray] = field(default_factory=dict)


def last(array: np.ndarray) -> np.ndarray:
    return array.transpose(0, 2, 3, 1)


def edm(golden, config, model) -> Golden:
    """The output D(x; sigma) is the estimate of the data."""
    known = {"label": golden["class_labels"].argmax(1), "augment": golden["augment_labels"]}
    gamma = 2 * np.log(np.float64(golden["sigma"]))
    return Golden(last(golden["x"]), gamma, last(golden["out"]), lambda estimate: estimate.x_hat, known)


def score_sde(golden, config, model) -> Golden:
    """The score of images in [0, 1] is -eps / sigma. The row at low noise is too inaccurate in float32 (README)."""
    sigma = np.float64(golden["time_cond"])[:1]
    expected = -last(golden["score"])[:1] * sigma
    return Golden(2 * last(golden["x"])[:1] - 1, 2 * np.log(2 * sigma), expected)


def discrete(golden, config, model: DiffusionModel) -> Golden:
    """The first channels of the output are eps at a timestep of the table of betas."""
    steps = golden["timesteps"] if "timesteps" in golden else golden["timestep"]
    known = {"label": golden["y"]} if "y" in golden else {}
    gamma: Any = model.schedule
    return Golden(last(golden["x"]), gamma.gammas()[steps], last(golden["out"])[..., :3], known=known)


def idode(golden, config, model) -> Golden:
    return Golden(golden["z"], golden["g_t"], golden["eps_hat"], known={"augmented": golden["conditioning"]})


GOLDEN = {"edm": edm, "score_sde": score_sde, "idode": idode, "ddpm": discrete, "guided": discrete}
GOLDEN |= {"improved": discrete}


def family(folder: str) -> str:
    return folder.split("-")[0]


def imported(program, arguments: list[str], size: int = 16) -> str:
    """Imports a checkpoint and returns what the command printed."""
    sets = ("--set", "data.name=npz", "--set", f"data.path={size}.npz", "--set", "training.batch_size=2")
    result = program("import", *arguments, "-o", "run", *sets)
    assert result.code == 0, result.err
    return result.out


@compiled_fast
def denoise(model: DiffusionModel, z: jax.Array, gamma: jax.Array, known: dict[str, jax.Array]) -> Estimate:
    """Returns the estimates of a batch."""
    return jax.vmap(lambda *one: model.denoise(*one))(z, gamma, known)


@pytest.mark.costly
@pytest.mark.parametrize("folder", FOLDERS)
def test_the_denoiser_of_a_run_is_the_authors(program, checkpoint, folder):
    """The denoiser of an imported run equals the authors' within 1e-5."""
    said = imported(program, checkpoint(folder))
    assert said.startswith(f"run: {FAMILIES[family(folder)]}, the authors' model at step ")
    model, path = load_run(program.cwd / "run").model, NETWORKS / folder
    config = json.loads((path / "config.json").read_text())
    case = GOLDEN[family(folder)](arrays_in(path / "golden.npz"), config, model)
    z, gamma = jnp.asarray(case.z, jnp.float32), jnp.asarray(case.gamma, jnp.float32)
    known = {name: jnp.asarray(one) for name, one in case.known.items()}
    with jax.default_matmul_precision("highest"):
        found = case.read(denoise(model, z, gamma, known))
    assert np.abs(found - case.expected).max() < 1e-5 * np.abs(case.expected).max()


@pytest.mark.costly
def test_an_imported_run_is_evaluated(program, checkpoint):
    """An imported run with learned variances can be evaluated."""
    imported(program, checkpoint("improved"), 8)
    result = program("evaluate", "--ckpt", "run", "--set", "evaluation.draws=2", "--json")
    assert result.code == 0, result.err
    facts = json.loads(result.out)
    assert (facts["images"], facts["dataset"]) == (2, "8/test")
    assert np.isfinite(facts["bpd"])


@pytest.mark.costly
def test_a_pickle_of_edm_has_its_configuration(program):
    """An EDM pickle is imported without a separate configuration file."""
    said = imported(program, [str(NETWORKS / "edm-ddpmpp" / "network-snapshot-000001.pkl")])
    assert "one set of parameters, as raw and averaged ones" in said
    assert "no moments of Adam" in said
    recipe = load_recipe(program.cwd / "run" / "resolved.toml")
    assert (recipe.model.network.name, recipe.model.prediction.params["sd"]) == ("ddpmpp", 0.5)


@pytest.mark.costly
def test_raw_and_averaged_weights_of_score_sde(program):
    """The raw and averaged weights of Score-SDE are imported as such."""
    config = json.loads((NETWORKS / "score_sde-ncsnpp" / "config.json").read_text())
    config["model"] |= {"progressive": "output_skip", "progressive_input": "input_skip", "num_res_blocks": 1}
    (program.cwd / "config.json").write_text(json.dumps(config))
    folder = NETWORKS / "score_sde-ncsnpp_skip"
    assert "raw and averaged" in imported(program, [str(folder / "checkpoint_1.pth"), "--config", "config.json"])
    state, average = load_run(program.cwd / "run").state, arrays_in(folder / "weights.npz")
    ours: Any = state.ema_model.network
    raw: Any = state.model.network
    np.testing.assert_array_equal(ours.conv_in.kernel, average["all_modules.3.weight"].transpose(2, 3, 1, 0))
    assert not np.array_equal(ours.conv_in.kernel, raw.conv_in.kernel)
    assert int(state.step) > 0


REFUSED = {
    "unknown field": (lambda config: config["unet"].update(depth=3), "depth: unknown field"),
    "wrong width": (
        lambda config: config["unet"].update(model_channels=64),
        "input_blocks.0.0.weight: (32, 3, 3, 3) in the file, (64, 3, 3, 3) in the network",
    ),
    "missing": (lambda config: config.pop("diffusion"), "diffusion: missing"),
    "wrong type": (lambda config: config["unet"].update(channel_mult=["a"]), "the configuration cannot be read"),
    "both": (lambda config: config["diffusion"].update(predict_xstart=True), "predict_xstart: True"),
    "channels": (lambda config: config["diffusion"].update(learn_sigma=False), "out_channels: 6, but 3 is expected"),
}


def test_the_arrays_of_the_file_are_released():
    """The arrays of the file are released while the model is filled."""
    importer, folder = DiffusersImporter(), NETWORKS / "ddpm" / "diffusers_old_names"
    weights = read_weights(folder)
    state_of(folder, importer, described(importer, weights.config, "a test"), weights, weights.config)
    assert not weights.ema


def state_with(values: dict[str, float]) -> None:
    """Imports DDPM++ of EDM with one number of each of these arrays replaced."""
    file, importer = NETWORKS / "edm-ddpmpp" / "network-snapshot-000001.pkl", EdmImporter()
    weights = read_weights(file)
    config = importer.configuration(weights.config, None)
    assert config is not None
    for name, value in values.items():
        weights.ema[name] = np.array(weights.ema[name])
        weights.ema[name].flat[-1] = value
    state_of(file, importer, described(importer, config, "a test"), weights, config)


def test_numbers_that_are_not_finite_are_refused():
    """Weights that are not finite are refused by name."""
    block = "model.dec.16x16_block1"
    with pytest.raises(CheckpointError, match=rf"NaN or infinite numbers are in {block}.conv0.bias, {block}.norm1.w"):
        state_with({f"{block}.conv0.bias": np.nan, f"{block}.norm1.weight": np.inf})


def test_a_broken_constant_that_is_not_used_is_no_reason_to_refuse():
    """NaN in an unused constant does not prevent the import."""
    state_with({"model.enc.8x8_down.conv0.resample_filter": np.nan})


@pytest.mark.parametrize("key", ["sigma_min", "sigma_max"])
def test_a_value_that_is_no_number_is_named(key):
    """A configuration value of the wrong type is refused by name."""
    config = json.loads((NETWORKS / "score_sde-ncsnpp" / "config.json").read_text())
    config["model"][key] = "a"
    with pytest.raises(CheckpointError, match=f"{key}: 'a', but float is expected"):
        ScoreSdeImporter().recipe(config)


@pytest.mark.parametrize("name", REFUSED)
def test_a_configuration_that_does_not_fit_is_refused(program, checkpoint, name):
    """A configuration that does not fit the weights is refused, and nothing is written."""
    change, message = REFUSED[name]
    config = json.loads((NETWORKS / "improved" / "config.json").read_text())
    change(config)
    (program.cwd / "other.json").write_text(json.dumps(config))
    file = checkpoint("improved")[0]
    result = program("import", file, "--config", "other.json", "-o", "run")
    assert (result.code, result.out) == (1, "")
    assert message in result.err
    assert not (program.cwd / "run").exists()


def test_a_family_that_the_file_is_not_of(program, checkpoint):
    """A wrong or unknown --family is refused."""
    arguments = checkpoint("improved")
    assert (
        "of family 'openai', not 'edm'. Omit --family."
        in program("import", *arguments, "--family", "edm", "-o", "run").err
    )
    assert "unknown importer 'opnai'" in program("import", *arguments, "--family", "opnai", "-o", "run").err
    assert "--config" in program("import", arguments[0], "-o", "run").err
    assert not (program.cwd / "run").exists()


@pytest.mark.parametrize("family", [None, "edm"])
def test_a_missing_plugin_is_named(monkeypatch, family):
    """A file of a plugin's family names the package to install, with --family and without."""
    load_plugins()
    monkeypatch.delitem(registry("importer").components, "edm")
    with pytest.raises(CheckpointError, match=r"'edm' is imported by the plugin .* `pip install vdmkit\[importers\]`"):
        read_imported(NETWORKS / "edm-ddpmpp" / "network-snapshot-000001.pkl", family=family)


def test_a_hostile_file_is_refused(program, ops):
    """Importing a malicious pickle is refused and executes nothing."""
    opening = b"cbuiltins\nopen\n(" + ops.text("hacked") + ops.text("w") + b"tR"
    ops.torch_zip(program.cwd / "evil.pt", opening, {})
    result = program("import", "evil.pt", "-o", "run")
    assert (result.code, result.out) == (1, "")
    assert "builtins.open" in result.err
    assert not (program.cwd / "hacked").exists()
    assert not (program.cwd / "run").exists()


PLUGIN = '''
from vdmkit.importers import AbstractImporter
from vdmkit.registry import register
from vdmkit_importers import OpenAiImporter

@register("importer", "mine")
class Mine(AbstractImporter):
    """My own files, which have OpenAI's arrays under other names."""

    def recipe(self, config):
        return OpenAiImporter().recipe(config)

    def shape(self, config):
        return OpenAiImporter().shape(config)

    def filled(self, model, arrays, config):
        return OpenAiImporter().filled(model, {name.removeprefix("mine."): one for name, one in arrays.items()}, config)

    def recognises(self, names):
        return all(name.startswith("mine.") for name in names)
'''


def test_a_plugin_registers_an_importer(program, checkpoint):
    """A plugin can add an importer for a new family."""
    (program.cwd / "mine.py").write_text(PLUGIN)
    weights = arrays_in(NETWORKS / "improved" / "weights.npz")
    arguments = checkpoint("improved", {f"mine.{name}": one for name, one in weights.items()})
    said = imported(program, [*arguments, "--plugin", "mine.py"], 8)
    assert said.startswith("run: mine, the authors' model at step 0")
    assert (program.cwd / "run" / "plugins" / "mine.py").is_file()
    assert load_recipe(program.cwd / "run" / "resolved.toml").model.prediction.name == "eps_and_range"


def test_a_refused_configuration_is_named(program, checkpoint):
    """The error for a refused configuration names its file."""
    (program.cwd / "other.json").write_text("{}")
    result = program("import", checkpoint("improved")[0], "--config", "other.json", "-o", "run")
    assert result.code == 1
    assert result.err.startswith(
        "other.json: this configuration of OpenAI cannot be built here:\n  image_size: missing"
    )


def test_the_importer_of_the_tutorial(program):
    """The importer of the tutorial imports a checkpoint."""
    page = TUTORIAL.read_text()
    (program.cwd / "plain_unet.py").write_text(page[page.index("from vdmkit.importers") :].partition("```")[0])
    weights = arrays_in(NETWORKS / "idode-vp" / "weights.npz")  # i-DODE's network is that of the paper
    np.savez(program.cwd / "plain.npz", **{f"net.{name}": array for name, array in weights.items()})
    config = json.loads((NETWORKS / "idode-vp" / "config.json").read_text())
    of_vdm = {name: value for name, value in config.items() if name not in OF_IDODE}
    (program.cwd / "plain.json").write_text(json.dumps(of_vdm))
    said = imported(program, ["plain.npz", "--config", "plain.json", "--plugin", "plain_unet.py"], 32)
    assert said.startswith("run: plain_unet, the authors' model")
