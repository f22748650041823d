# SPDX-License-Identifier: Apache-2.0
"""The U-Nets of the literature against their authors' code; see networks/README.md for the arrays.

An output of any of these codes is skip x + scale net(inside x + shift, label), so one function is compiled per folder
and precision. Errors are relative to the largest entry. In float64 the largest error was 1e-14. float32 loses the
phases of NCSN++'s Fourier features at low noise (README). Gradients are compared in float64.
"""

import abc
import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from vdmkit_importers import edm, openai, score_sde

from vdmkit.conformance.checking import compiled_fast
from vdmkit.errors import CheckpointError
from vdmkit.importers import diffusers
from vdmkit.networks import UNet
from vdmkit.registry import Choice
from vdmkit.schedules import Tabulated

Rows = np.ndarray
EXACT = 1e-9


@dataclass(frozen=True)
class Call:
    """A batch of two in the authors' layout, and the coefficients of their wrapper of the network, one per image."""

    x: Rows
    label: Rows
    skip: Rows = field(default_factory=lambda: np.zeros(2))
    scale: Rows = field(default_factory=lambda: np.ones(2))
    inside: Rows = field(default_factory=lambda: np.ones(2))
    shift: float = 0.0
    classes: Rows | None = None
    augment: Rows | None = None


@dataclass(frozen=True)
class Loss:
    """A loss: the call, its derivative with respect to the output, and its value in total or per entry."""

    call: Call
    value: Any
    slope: Any


@dataclass(frozen=True)
class Folder(abc.ABC):
    """A folder of networks/, and how the authors of its family call their network."""

    path: Path

    @property
    def outputs(self) -> int:
        """Number of values that the network outputs for each channel of an image."""
        return self.golden["out"].shape[1] // self.golden["x"].shape[1]

    @cached_property
    def config(self) -> dict[str, Any]:
        return json.loads((self.path / "config.json").read_text())

    @cached_property
    def golden(self) -> dict[str, Rows]:
        with np.load(self.path / "golden.npz") as file:
            return dict(file)

    @cached_property
    def weights(self) -> dict[str, Rows]:
        with np.load(self.path / "weights.npz") as file:
            return dict(file)

    @property
    @abc.abstractmethod
    def table(self) -> dict[str, Any]:
        """The recipe table of the network."""

    @abc.abstractmethod
    def filled(self, network: UNet, arrays: dict[str, Any]) -> UNet:
        """Returns the network with the authors' arrays."""

    @abc.abstractmethod
    def calls(self) -> Iterator[tuple[str, Call]]:
        """Yields every output in the folder, with its name."""

    @abc.abstractmethod
    def losses(self) -> Iterator[tuple[str, Loss]]:
        """Yields every loss that is a formula of the output, with its name."""

    @property
    def template(self) -> UNet:
        """Shapes of the network, in the current precision."""
        precision = jnp.zeros(()).dtype.name
        if precision not in self._templates:
            self._templates[precision] = self._shapes()
        return self._templates[precision]

    @cached_property
    def _templates(self) -> dict[str, UNet]:
        return {}

    def _shapes(self) -> UNet:
        context = {"shape": self.golden["x"].transpose(0, 2, 3, 1).shape[1:], "outputs": self.outputs}
        context |= {"gamma_range": (-13.3, 5.0), "classes": self.table.get("labels", 0)}
        build = choice("network", self.table).build
        return eqx.filter_eval_shape(lambda key: build(**context, key=key), jax.random.key(0))

    @property
    def names(self) -> list[str]:
        """Names of the parameters."""
        return [str(name) for name in self.golden["all_grad_names"]]

    def output(self, call: Call) -> Rows:
        """Returns the output of a call. In float64, the function that also computes gradients is reused."""
        if jnp.zeros(()).dtype == jnp.float64:
            return self.pull_back(call, np.zeros_like(self.golden["out"]))[0]
        return np.asarray(self._compiled[0](*self._inputs(call)))

    def pull_back(self, call: Call, cotangent: Rows) -> tuple[Rows, Rows, dict[str, Rows]]:
        """Returns the output, and the gradients of its dot product with the cotangent by x and every parameter."""
        output, (arrays, x) = self._compiled[1](*self._inputs(call), jnp.asarray(cotangent, float))
        return np.asarray(output), np.asarray(x), {name: np.asarray(one) for name, one in arrays.items()}

    def _inputs(self, call: Call) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
        """Returns parameters and call, with zeros for unknown values of the images."""
        design = self.template.design
        zeros = {"classes": np.zeros((2, max(1, design.labels))), "augment": np.zeros((2, max(1, design.augment)))}
        given = {name: zeros[name] if one is None else one for name, one in vars(call).items()}
        arrays = {name: jnp.asarray(self.weights[name], float) for name in self.names}
        return arrays, {name: jnp.asarray(one, float) for name, one in given.items()}

    def _out(self, arrays, given) -> jax.Array:
        constants = {name: one for name, one in self.weights.items() if name not in self.names}
        network = self.filled(self.template, constants | arrays)

        def of_one(row):
            x, classes, augment = row["x"], row["classes"], row["augment"]
            image = row["inside"] * x.transpose(1, 2, 0) + given["shift"]
            known = classes if network.design.labels else None, augment if network.design.augment else None
            h = jnp.moveaxis(network.evaluate(image, row["label"], *known), (3, 2), (0, 1))
            return row["skip"] * jnp.tile(x, (self.outputs, 1, 1)) + row["scale"] * h.reshape(-1, *x.shape[1:])

        return jax.vmap(of_one)({name: one for name, one in given.items() if name != "shift"})

    @cached_property
    def _compiled(self) -> tuple[Any, Any]:
        def pull_back(arrays, given, cotangent):
            output, back = jax.vjp(lambda arrays, x: self._out(arrays, given | {"x": x}), arrays, given["x"])
            return output, back(cotangent)

        return compiled_fast(lambda arrays, given: self._out(arrays, given)), compiled_fast(pull_back)


class ScoreSde(Folder):
    """The second argument of the network is t * 999, or sigma, which also divides the output."""

    @property
    def table(self):
        return score_sde.score_sde_network(self.config)

    def filled(self, network, arrays):
        return score_sde.with_score_sde_arrays(network, arrays)

    @property
    def is_ve(self) -> bool:
        return self.config["training"]["sde"] == "vesde"

    def calls(self):
        golden, given = self.golden, np.float64(self.golden["time_cond"])
        yield "out", self._call(golden["x"], given)
        if "t" not in golden:
            return
        mean, std, _ = self._marginal(np.float64(golden["t"]))
        yield "score", self._score(golden["x"], np.float64(golden["t"]), std)
        if not self.is_ve:
            yield "score_subvp", self._score(golden["x"], np.float64(golden["t"]), 1 - mean**2)

    def losses(self):
        golden = self.golden
        if "loss_u" not in golden:
            return
        t = np.float64(golden["loss_u"]) * (1 - 1e-5) + 1e-5
        mean, std, g2 = (one.reshape(2, 1, 1, 1) for one in self._marginal(t))
        z = np.float64(golden["loss_z"])
        call = self._score(mean * np.float64(golden["loss_images"]) + std * z, t, std.ravel())
        mean_or_sum = (1 / z[0].size if self.config["training"]["reduce_mean"] else 0.5) / 2  # of two images
        for name, weight in (("loss", std**2), ("loss_likelihood_weighted", g2)):
            weight = mean_or_sum * weight
            yield (
                name,
                Loss(
                    call,
                    lambda score, weight=weight: (weight * (score + z / std) ** 2).sum(),
                    lambda score, weight=weight: 2 * weight * (score + z / std),
                ),
            )

    def _call(self, x, given) -> Call:
        by_sigma = self.config["model"]["scale_by_sigma"]
        centered = self.config["data"]["centered"]
        return Call(
            x,
            np.log(given) if self.config["model"]["embedding_type"] == "fourier" else given,
            scale=1 / given if by_sigma else np.ones(2),
            inside=np.full(2, 1.0 if centered else 2.0),
            shift=0.0 if centered else -1.0,
        )

    def _score(self, x, t, std) -> Call:
        if self.is_ve:
            return self._call(x, self._marginal(t)[1])
        return replace(self._call(x, t * 999), scale=-1 / std)

    def _marginal(self, t) -> tuple[Rows, Rows, Rows]:
        """Returns the scales of image and noise at t, and the squared diffusion coefficient."""
        model = self.config["model"]
        if self.is_ve:
            ratio = model["sigma_max"] / model["sigma_min"]
            sigma = model["sigma_min"] * ratio**t
            return np.ones_like(t), sigma, sigma**2 * 2 * np.log(ratio)
        beta = model["beta_min"] + t * (model["beta_max"] - model["beta_min"])
        integral = t * (model["beta_min"] + beta) / 2
        variance = -np.expm1(-integral)
        if self.config["training"]["sde"] == "subvpsde":
            return np.exp(-integral / 2), variance, -beta * np.expm1(-2 * integral)
        return np.exp(-integral / 2), np.sqrt(variance), beta


class Edm(Folder):
    """D = c_skip x + c_out F(c_in x, c_noise)."""

    @property
    def table(self):
        return edm.edm_network(self.config)

    def filled(self, network, arrays):
        return edm.with_edm_arrays(network, arrays, self.config)

    def calls(self):
        golden, sigma = self.golden, np.float64(self.golden["sigma"])
        full = self._denoiser(golden["x"], sigma)
        yield "out", full
        yield "out_no_class_labels", replace(full, classes=None)
        yield "out_no_augment_labels", replace(full, augment=None)
        if "F_x_f64" in golden:
            inner = {"skip": np.zeros(2), "scale": np.ones(2), "inside": np.ones(2)}
            yield "F", replace(full, x=golden["F_x_f64"], label=golden["F_noise_labels_f64"], **inner)
        time = (np.sqrt(0.1**2 + 2 * 19.9 * np.log1p(sigma**2)) - 0.1) / 19.9
        vp = {"skip": np.ones(2), "scale": -sigma, "inside": (sigma**2 + 1) ** -0.5}
        yield "out_vp", replace(full, label=999 * time, **vp)
        ve = {"skip": np.ones(2), "scale": sigma, "inside": np.ones(2)}
        yield "out_ve", replace(full, label=np.log(sigma / 2), **ve)

    def losses(self):
        golden, sd = self.golden, self.config.get("sigma_data", 0.5)
        if "loss_rnd_normal" not in golden:
            return
        sigma = np.exp(np.float64(golden["loss_rnd_normal"]) * 1.2 - 1.2)
        y = np.float64(golden["loss_images"])
        call = self._denoiser(y + sigma * np.float64(golden["loss_noise"]), sigma.ravel())
        weight = (sigma**2 + sd**2) / (sigma * sd) ** 2
        yield "loss", Loss(call, lambda d: weight * (d - y) ** 2, lambda d: weight * (d - y))  # of half of the sum

    def _denoiser(self, x, sigma) -> Call:
        sd = self.config.get("sigma_data", 0.5)
        root = np.hypot(sigma, sd)
        scales = {"skip": (sd / root) ** 2, "scale": sigma * sd / root, "inside": 1 / root}
        labels = {"classes": self.golden.get("class_labels"), "augment": self.golden.get("augment_labels")}
        return Call(x, np.log(sigma) / 4, **scales, **labels)


class OpenAi(Folder):
    """With learned variances there are 2C channels, the first C being eps."""

    @property
    def table(self):
        return openai.openai_network({"diffusion": {}} | self.config)

    def filled(self, network, arrays):
        return openai.with_openai_arrays(network, arrays, self.config)

    def calls(self):
        for name, times in (("out", "timesteps"), ("out_fractional_t", "fractional_t")):
            if name in self.golden:
                yield name, self._call(self.golden[times] * self._unit)

    def losses(self):
        """Yields nothing: test_learned_variances.py tests the losses."""
        return iter(())

    @cached_property
    def _unit(self) -> float:
        """The network's input for one timestep: 1, or 1000 / T, which the README leaves open if they differ.

        test_learned_variances.py checks that `rescale_timesteps` is used as by the authors.
        """
        diffusion = {"steps": 1000, "rescale_timesteps": False} | self.config.get("diffusion", {})
        units = {1.0, 1000 / diffusion["steps"]} if diffusion["rescale_timesteps"] else {1.0}
        if len(units) == 1:
            return 1.0
        return min(
            units, key=lambda unit: error(self.output(self._call(self.golden["timesteps"] * unit)), self.golden["out"])
        )

    def _call(self, labels) -> Call:
        y = self.golden.get("y")
        return Call(
            self.golden["x"], np.float64(labels), classes=None if y is None else np.eye(self.table["labels"])[y]
        )


class Diffusers(Folder):
    """eps at a timestep of DDPM's betas."""

    @property
    def table(self):
        return diffusers.diffusers_network(self.config)

    def filled(self, network, arrays):
        return diffusers.with_diffusers_arrays(network, arrays)

    def calls(self):
        yield "out", self._call(self.golden["x"])

    def losses(self):
        if "loss_x0" not in self.golden:
            return
        gamma = Tabulated().gammas()[self.golden["timestep"]].reshape(2, 1, 1, 1)
        alpha, sigma = np.sqrt(1 / (1 + np.exp(gamma))), np.sqrt(1 / (1 + np.exp(-gamma)))
        eps = np.float64(self.golden["loss_noise"])
        call = self._call(alpha * np.float64(self.golden["loss_x0"]) + sigma * eps)
        yield "loss", Loss(call, lambda out: ((out - eps) ** 2).mean(), lambda out: 2 * (out - eps) / eps.size)

    def _call(self, x) -> Call:
        labels = self.golden.get("class_labels")
        classes = None if labels is None else np.eye(self.table["labels"])[labels]
        return Call(x, self.golden["timestep"], classes=classes)


FAMILIES = {"score_sde": ScoreSde, "edm": Edm, "improved": OpenAi, "guided": OpenAi, "ddpm": Diffusers}


def choice(kind: str, table: dict[str, Any]) -> Choice:
    kinds = {"noise_embedding": "noise_embedding", "latent": "path"}
    made = {key: choice(kinds[key], one) if key in kinds else one for key, one in table.items() if key != "name"}
    return Choice(kind, table["name"], {key: tuple(one) if isinstance(one, list) else one for key, one in made.items()})


@pytest.fixture(scope="module")
def folder(published: Path) -> Folder:
    return FAMILIES[published.name.split("-")[0]](published)


@pytest.fixture(params=[False, True], ids=["float32", "float64"])
def suffix(request):
    """Sets a precision, and returns the suffix of its reference arrays."""
    with jax.enable_x64(request.param):
        yield "_f64" if request.param else ""


def error(found: Rows, expected: Rows) -> float:
    return float(np.abs(np.asarray(found, np.float64) - expected).max() / np.abs(expected).max())


def tolerance(folder: Folder, name: str, suffix: str) -> float:
    """Returns 1e-5 in float32, or twice the authors' own error if that is larger: it grows with depth."""
    exact = folder.golden.get(f"{name}_f64")
    return EXACT if suffix else 1e-5 if exact is None else max(1e-5, 2 * error(folder.golden[name], exact))


def accurate(folder: Folder, call: Call, suffix: str) -> list[int]:
    """Returns the rows whose Fourier phases are accurate in float32."""
    bits = getattr(folder.template.embedding.features, "bits", None)
    return [i for i in range(2) if suffix or bits is None or abs(call.label[i]) < 1]


@pytest.mark.costly
def test_outputs(folder, suffix):
    """The outputs of the network equal the authors', for every noise level, class and augmentation."""
    checked = 0
    for name, call in folder.calls():
        rows = accurate(folder, call, suffix)
        if name + suffix not in folder.golden or not rows:
            continue
        out = folder.output(call)
        assert error(out[rows], folder.golden[name + suffix][rows]) < tolerance(folder, name, suffix), name
        checked += 1
    assert checked


@pytest.mark.costly
@pytest.mark.parametrize("suffix", [True], ids=["float64"], indirect=True)
def test_gradients(folder, suffix):
    """The gradients of every parameter and of the image equal the authors'.

    Key biases, and biases removed by a normalisation of single channels, have gradients of rounding errors only.
    """
    golden, call = folder.golden, dict(folder.calls())["out"]
    _, x, found = folder.pull_back(call, np.float64(golden["cotangent"]) / golden["cotangent"].size)
    assert error(x, golden["grad_x" + suffix]) < EXACT
    rounding = 4 * np.finfo(np.float64).eps * np.linalg.norm(golden["all_grad_norm_f64"])
    prefix = f"grad{suffix}:"
    for name in (one.removeprefix(prefix) for one in golden if one.startswith(prefix)):
        expected = golden[prefix + name]
        assert np.abs(found[name] - expected).max() <= EXACT * np.abs(expected).max() + rounding, name
    for name, norm, dot in zip(folder.names, golden["all_grad_norm_f64"], golden["all_grad_dot_f64"], strict=True):
        values = np.ravel(np.asarray(found[name], np.float64))
        assert abs(np.linalg.norm(values) - norm) <= EXACT * norm + rounding, name
        assert abs(values @ np.cos(np.arange(values.size)) - dot) <= EXACT * norm + rounding, name


@pytest.mark.costly
def test_losses(folder, suffix):
    """The authors' losses and their gradients are reproduced."""
    golden = folder.golden
    for name, loss in folder.losses():
        if name + suffix not in golden or len(accurate(folder, loss.call, suffix)) < 2:
            continue
        out = np.float64(folder.output(loss.call))
        assert error(loss.value(out), golden[name + suffix]) < tolerance(folder, name, suffix), name
        prefix = f"{name}_grad_f64:"
        if suffix and any(one.startswith(prefix) for one in golden):
            found = folder.pull_back(loss.call, loss.slope(out))[2]
            for of in (one.removeprefix(prefix) for one in golden if one.startswith(prefix)):
                assert error(found[of], golden[prefix + of]) < EXACT, of


def test_arrays_that_do_not_fit_are_listed(folder):
    """A file of a different width or depth is refused with a list of the paths that differ."""
    name, array = next((name, one) for name, one in folder.weights.items() if one.ndim == 4 and one.shape[-1] == 3)
    others = {one: folder.weights[one] for one in folder.weights if one != name}
    kept = {one: jax.ShapeDtypeStruct(array.shape, array.dtype) for one, array in others.items()}
    with pytest.raises(CheckpointError, match="paths differ") as failed:
        folder.filled(folder.template, {**kept, name + "s": array[:-1]})
    words = str(failed.value)
    bare = name.removeprefix("model.")
    assert f"{bare}: nothing in the file, {array.shape} in the network" in words
    assert f"{bare}s: {array[:-1].shape} in the file, nothing in the network" in words
    assert "2 paths differ" in words


def test_unknown_settings_are_refused(folder):
    """A configuration with unknown settings is refused."""
    other = type(folder)(folder.path)
    for part in (other.config, *(other.config[one] for one in ("model", "unet") if one in other.config)):
        part["width_of_nothing"] = 3
    with pytest.raises(CheckpointError, match="width_of_nothing: unknown field"):
        _ = other.table
