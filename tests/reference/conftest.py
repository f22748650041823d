# SPDX-License-Identifier: Apache-2.0
"""Every folder of reference outputs of the authors' code is a test case. `--reference DIR` chooses a different set.

DIR/literature, if it exists, has the outputs of other implementations, DIR/networks/idode-* those of the authors'
network with 64 channels (test_networks.py), mulan* those of MuLAN (test_mulan.py), and the folders next to them those
of other networks (test_unets.py).

The authors' outputs are in float32 at the highest matmul precision, and so is what is compared with them.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from vdmkit_importers import IDodeImporter

from vdmkit.importers.vdm import OfficialCheckpoint, load_official, official_recipe, with_official_parameters
from vdmkit.losses import Objective, bits_per_dim
from vdmkit.losses.bound import step_end
from vdmkit.losses.training_loss import Draws
from vdmkit.model import DiffusionModel
from vdmkit.networks import VDMUNet
from vdmkit.predictions import V, Velocity
from vdmkit.process import StraightLine, VariancePreserving
from vdmkit.registry import registry
from vdmkit.toy_data import GaussianMixture

HERE = Path(__file__).parent
OPENAI = ("guided", "improved")
PUBLISHED = ("ddpm", "edm-", *OPENAI, "score_sde-")
"""Names of folders with networks of test_unets.py."""


@dataclass(frozen=True)
class Case:
    """A reference folder. See its README for the names of the arrays."""

    folder: Path

    @cached_property
    def tables(self) -> dict[str, Any]:
        """The recipe of the folder's configuration."""
        return official_recipe(json.loads((self.folder / "config.json").read_text()))

    @cached_property
    def golden(self) -> dict[str, jax.Array]:
        with np.load(self.folder / "golden.npz") as file:
            return {name: jnp.asarray(array) for name, array in file.items()}

    @cached_property
    def training(self) -> dict[str, np.ndarray]:
        with np.load(self.folder / "training.npz") as file:
            return dict(file)

    @property
    def checkpoints(self) -> list[Path]:
        return sorted(self.folder.glob("checkpoints-*/ckpt-*.flax"))

    @cached_property
    def checkpoint(self) -> OfficialCheckpoint:
        return load_official(self.checkpoints[0], self.template)

    @cached_property
    def template(self) -> DiffusionModel:
        """The model of the configuration, with shapes in place of arrays."""
        return _shapes(self.tables, self.golden["images"].shape[1:])

    def deeper(self) -> DiffusionModel:
        """Returns the template with one more block, which no file of this case fits."""
        network = {**self.tables["model"]["network"]}
        network["blocks"] += 1
        tables = {**self.tables, "model": {**self.tables["model"], "network": network}}
        return _shapes(tables, self.golden["images"].shape[1:])

    @cached_property
    def objective(self) -> Objective:
        parts = {
            name: registry(name).get(self.tables["objective"][name]).build({}) for name in ("time_sampler", "weighting")
        }
        return Objective(**parts, steps=self.tables["objective"]["steps"])

    def draws(self, eps_0: np.ndarray, eps: np.ndarray, t: np.ndarray) -> Draws:
        return Draws(
            jnp.asarray(eps_0),
            jnp.asarray(eps),
            jnp.asarray(t),
            jnp.ones(len(t)),
            jax.random.split(jax.random.key(0), len(t)),
        )

    def times(self, t0: np.ndarray) -> jax.Array:
        """Returns (t0 + i/n) mod 1, rounded up to the end of its step in discrete time.

        Compiled like the authors' code, so that it rounds the same.
        """
        n = len(self.golden["images"])
        return jax.jit(lambda t0: step_end((t0 + jnp.arange(n) / n) % 1, self.objective.steps))(t0)

    @cached_property
    def loss_and_gradient(self):
        """Value and gradient of the mean bits per dimension, as a compiled function of model and draws."""

        def loss(model: DiffusionModel, draws: Draws) -> jax.Array:
            bound = self.objective(model, self.golden["images"], {}, draws)
            return bits_per_dim(bound.total.mean(), model.dimensions)

        return eqx.filter_jit(eqx.filter_value_and_grad(loss))

    @cached_property
    def denoise(self):
        """eps_hat of a batch, as a compiled function of model, z and gamma."""
        return eqx.filter_jit(
            lambda model, z, gamma: jax.vmap(lambda z, gamma: model.denoise(z, gamma, {}).eps_hat)(z, gamma)
        )


@dataclass(frozen=True)
class ScoreUNet:
    """i-DODE's copy of the authors' network, with 64 channels. See networks/README.md."""

    folder: Path

    @cached_property
    def config(self) -> dict[str, Any]:
        return json.loads((self.folder / "config.json").read_text())

    @cached_property
    def golden(self) -> dict[str, np.ndarray]:
        with np.load(self.folder / "golden.npz") as file:
            return dict(file)

    def network(self) -> VDMUNet:
        """Returns the network with the folder's weights, in the current precision."""
        config, shape = self.config, self.golden["z"].shape[1:]
        sizes = {"channels": config["sm_n_embd"], "blocks": config["sm_n_layer"]}
        parts = {"attention": config["with_attention"], "fourier": config["with_fourier_features"]}
        gamma_range = config["gamma_min"], config["gamma_max"]
        network = eqx.filter_eval_shape(
            lambda key: VDMUNet(shape, 1, gamma_range, key, **sizes, **parts), jax.random.key(0)
        )
        with np.load(self.folder / "weights.npz") as file:
            return with_official_parameters({"network": network}, dict(file))["network"]

    def model(self) -> DiffusionModel:
        """Returns the importer's model with this network."""
        tables, shape = IDodeImporter().recipe(self.config)["model"], self.golden["z"].shape[1:]
        made = _build(tables, shape, jax.random.key(0))
        return eqx.tree_at(lambda model: model.network, made, self.network())

    def out(self, network: VDMUNet, gamma: jax.Array, conditioning: jax.Array, z: jax.Array) -> jax.Array:
        """Returns F of a batch. The network adds z, their base measure, to the output of its last layer."""
        return jax.vmap(lambda z, gamma, c: network(z, gamma, {"augmented": c})[..., 0])(z, gamma, conditioning)

    def eps_hat(self, out: jax.Array, gamma: jax.Array, z: jax.Array) -> jax.Array:
        """Converts F to eps_hat: F is v on the path VP, and velocity / sqrt 2 on SP, the straight line."""
        vp = self.config["schedule"] == "VP"
        prediction, path = (V(), VariancePreserving()) if vp else (Velocity(), StraightLine())
        output = (out if vp else jnp.sqrt(jnp.asarray(2, float)) * out)[..., None]
        return jax.vmap(lambda output, z, gamma: prediction(output, z, gamma, path).eps_hat)(output, z, gamma)

    def inputs(self) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Returns gamma, conditioning and z."""
        gamma, conditioning, z = (jnp.asarray(self.golden[name], float) for name in ("g_t", "conditioning", "z"))
        return gamma, conditioning, z


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--reference", type=Path, default=HERE, help="a folder of reference folders")


def pytest_configure(config: pytest.Config) -> None:
    """Given a reference folder, runs all checks of it, including those left to CI, unless -m is given."""
    if config.getoption("--reference") != HERE and "-m" not in config.invocation_params.args:
        config.option.markexpr = "not slow and not fid"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    # pytest registers the option only when this folder is named on its command line
    found = _folders(metafunc.config.getoption("--reference", HERE))
    for name in found.keys() & set(metafunc.fixturenames):
        folders = found[name]  # if empty, pytest skips the test for lack of parameters
        first = [*folders[:1], *(pytest.param(folder, marks=pytest.mark.costly) for folder in folders[1:])]
        metafunc.parametrize(name, first, ids=[folder.name for folder in folders], indirect=True, scope="session")


@pytest.fixture(scope="session")
def case(request: pytest.FixtureRequest) -> Case:
    return Case(request.param)


@pytest.fixture(scope="session")
def unet(request: pytest.FixtureRequest) -> ScoreUNet:
    return ScoreUNet(request.param)


@pytest.fixture(scope="session")
def published(request: pytest.FixtureRequest) -> Path:
    """A folder of a different published network."""
    return request.param


@pytest.fixture(scope="session")
def openai(request: pytest.FixtureRequest) -> Path:
    """A folder of a network with learned variances."""
    return request.param


@pytest.fixture(scope="session")
def mulan(request: pytest.FixtureRequest) -> Path:
    """A folder of MuLAN, read by the plugin vdmkit-mulan."""
    return request.param


@pytest.fixture(scope="session")
def literature(request: pytest.FixtureRequest) -> Path:
    """The folder with the outputs of other implementations."""
    return request.param


@pytest.fixture(scope="session")
def figures(literature: Path) -> Callable[[str], dict[str, np.ndarray]]:
    """`figures(name)` returns the arrays of the file NAME.npz."""

    def figures(name: str) -> dict[str, np.ndarray]:
        with np.load(literature / f"{name}.npz") as file:
            return dict(file)

    return figures


@pytest.fixture(scope="session")
def mixture(figures) -> GaussianMixture:
    """The data distribution that all implementations used."""
    data = figures("mixture")
    shape = data["means"].shape[1:]
    means = tuple(tuple(row) for row in data["means"].reshape(len(data["means"]), -1).tolist())
    sds = tuple((sd,) * int(np.prod(shape)) for sd in data["stds"].tolist())
    return GaussianMixture(shape, tuple(data["weights"].tolist()), means, sds)


@pytest.fixture(autouse=True)
def _highest_precision():
    with jax.default_matmul_precision("highest"):
        yield


def _folders(root: Path) -> dict[str, list[Path]]:
    """Returns the folders of each of the six parametrized fixtures."""
    cases = [path.parent for path in sorted(root.glob("*/golden.npz")) if (path.parent / "config.json").is_file()]
    literature = [path for path in (root / "literature",) if path.is_dir()]
    networks = [path.parent for path in sorted(root.glob("networks/*/golden.npz"))]
    unets = [path for path in networks if path.name.startswith("idode-")]
    published = [path for path in networks if path.name.startswith(PUBLISHED)]
    mulan = [path for path in networks if path.name.startswith("mulan")]
    if not any((cases, literature, unets, published, mulan)):
        raise pytest.UsageError(
            f"--reference {root}: no folder in it has a config.json and a golden.npz, or is called literature, or is "
            f"one of networks/, idode-*, mulan* or {', '.join(f'{name}*' for name in PUBLISHED)}"
        )
    openai = [path for path in published if path.name.startswith(OPENAI) and _learns_variances(path)]
    return {
        "case": cases,
        "literature": literature,
        "unet": unets,
        "mulan": mulan,
        "published": published,
        "openai": openai,
    }


def _learns_variances(folder: Path) -> bool:
    with np.load(folder / "golden.npz") as file:
        return "p_log_variance" in file and "vb_terms_bpd_clipped" in file and file["out"].shape != file["x"].shape


def _shapes(tables: dict[str, Any], shape: tuple[int, ...]) -> DiffusionModel:
    """Returns the model of these recipe tables, with shapes in place of arrays."""
    return eqx.filter_eval_shape(lambda key: _build(tables["model"], shape, key), jax.random.key(0))


def _build(tables: dict[str, Any], shape: tuple[int, ...], key: jax.Array) -> DiffusionModel:
    context: dict[str, Any] = {"key": key, "shape": shape, "levels": 256}

    def component(kind: str) -> Any:
        params = dict(tables[kind])
        return registry(kind).get(params.pop("name")).build(context, **params)

    schedule, path, prediction = (component(kind) for kind in ("schedule", "path", "prediction"))
    context |= {"gamma_range": (schedule.gamma_min, schedule.gamma_max), "outputs": prediction.outputs}
    return DiffusionModel(
        schedule=schedule,
        path=path,
        prediction=prediction,
        network=component("network"),
        observation=component("observation"),
        shape=shape,
    )
