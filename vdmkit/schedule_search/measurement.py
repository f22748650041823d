# SPDX-License-Identifier: Apache-2.0
"""The measured error of eps_hat along gamma, which determines every bound between the same ends, and its variance.

Costs of a kernel's steps between any two gammas; one evaluation of the network serves all ends s of steps from t.

The measurements of a study of schedules, one gamma at a time.
"""

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import scipy
from jaxtyping import Array, Float, PRNGKeyArray, Real

from vdmkit.data.batches import equal_batches
from vdmkit.devices import precisely
from vdmkit.errors import NonFiniteError
from vdmkit.likelihood.log_likelihood import Parts
from vdmkit.losses.bound import eps_error, prior_loss, reconstruction_loss
from vdmkit.model import DiffusionModel
from vdmkit.process import diffuse
from vdmkit.progress import Progress, track
from vdmkit.randomness import fold_purpose
from vdmkit.reverse import AbstractKernel
from vdmkit.schedules import Scalar

_LEAST = 1e-30  # smallest mean, far below the rounding error of a squared error


class Curve(eqx.Module):
    """|eps - eps_hat(z; gamma)|^2 of n images at g increasing gammas, and the bound's other terms, each drawn twice.

    `ends` is the sum of the prior and reconstruction terms in nats per image.
    """

    gamma: Float[np.ndarray, " g"]
    error: Float[np.ndarray, "2 g n"]
    ends: Float[np.ndarray, "2 n"]

    def mean(self, at: Float[np.ndarray, " m"]) -> Float[np.ndarray, " m"]:
        """Returns M = E |eps - eps_hat|^2 at other gammas."""
        return _between(self.gamma, self.error.mean((0, 2)), at)

    def second_moment(self, at: Float[np.ndarray, " m"]) -> Float[np.ndarray, " m"]:
        """Returns M_2 = E |eps - eps_hat|^4 at other gammas."""
        return _between(self.gamma, (self.error**2).mean((0, 2)), at)

    def bound(self, at: Float[np.ndarray, " t"], rate: Float[np.ndarray, " t"]) -> Float[np.ndarray, "2 n"]:
        """Returns two estimates per image of the bound with diffusion loss sum_i rate_i |eps - eps_hat|^2 at `at`_i."""
        weights = scipy.interpolate.CubicSpline(self.gamma, np.eye(len(self.gamma)))(at)
        return self.ends + np.einsum("t,tg,rgn->rn", rate, weights, self.error)

    def of_images(self, index: np.ndarray) -> "Curve":
        """Returns the curve of the images with these indices; an index may occur twice."""
        return Curve(self.gamma, self.error[:, :, index], self.ends[:, index])


def _between(
    gamma: Float[np.ndarray, " g"], moment: Float[np.ndarray, " g"], at: Float[np.ndarray, " m"]
) -> Float[np.ndarray, " m"]:
    """Interpolates a moment to other gammas; the result is positive."""
    return np.exp(scipy.interpolate.PchipInterpolator(gamma, np.log(np.maximum(moment, _LEAST)))(at))


def errors_at(
    model: DiffusionModel,
    images: Real[np.ndarray, "n h w c"],
    gamma: Float[np.ndarray, " g"],
    number: int,
    *,
    key: PRNGKeyArray,
) -> Float[np.ndarray, "2 n"]:
    """Returns two draws of |eps - eps_hat|^2 for every image at gamma[number], from 2 n evaluations of the network.

    The draws depend on `number` and on an image's index in `images`.

    Raises:
        NonFiniteError: the network's estimate is not finite.
    """
    level = jnp.asarray(gamma[number], float)
    keys = (jax.random.fold_in(_of_replicate(key, replicate), number) for replicate in (0, 1))
    error = np.stack([np.asarray(_errors(model, jnp.asarray(images), level, of_draw), np.float64) for of_draw in keys])
    if not np.isfinite(error).all():
        raise NonFiniteError(
            f"the error of eps_hat at gamma = {level:.4g} is not finite, so nothing can be derived from it."
        )
    return error


def loss_at_ends(
    model: DiffusionModel, images: Real[np.ndarray, "n h w c"], *, key: PRNGKeyArray
) -> Float[np.ndarray, "2 n"]:
    """Returns two draws of the sum of prior and reconstruction loss of every image in nats."""
    ends = (_ends(model, jnp.asarray(images), _of_replicate(key, replicate)) for replicate in (0, 1))
    return np.stack([np.asarray(values, np.float64) for values in ends])


def _of_replicate(key: PRNGKeyArray, replicate: int) -> PRNGKeyArray:
    return jax.random.fold_in(fold_purpose(key, "curve"), replicate)


@eqx.filter_jit
def _errors(model: DiffusionModel, images: Array, gamma: Array, key: PRNGKeyArray) -> Float[Array, " n"]:
    def one(image: Array, key: PRNGKeyArray) -> Scalar:
        x = model.observation.encode(image)
        return eps_error(model, x, gamma, jax.random.normal(key, x.shape, x.dtype), {})

    return jax.vmap(one)(images, jax.random.split(key, len(images)))


@eqx.filter_jit
def _ends(model: DiffusionModel, images: Array, key: PRNGKeyArray) -> Float[Array, " n"]:
    def one(image: Array, key: PRNGKeyArray) -> Scalar:
        x = model.observation.encode(image)
        noise = jax.random.normal(fold_purpose(key, "ends"), x.shape, x.dtype)
        return prior_loss(model, x) + reconstruction_loss(model, image, noise)

    return jax.vmap(one)(images, jax.random.split(key, len(images)))


def steps_from(
    model: DiffusionModel,
    kernel: AbstractKernel,
    images: Real[np.ndarray, "n h w c"],
    gamma: Float[np.ndarray, " g"],
    number: int,
    *,
    batch_size: int,
    key: PRNGKeyArray,
) -> Float[np.ndarray, "2 g n"]:
    """Returns two draws per image of the KL in nats of the steps from gamma[number] to each gamma[s] below it.

    Entries with s >= number are 0. It takes 2 n evaluations of the network, and none for number 0. The draws depend on
    `number` and on an image's index in `images`.

    Raises:
        RecipeError: the prediction lacks what the kernel needs.
    """
    nodes, n = jnp.asarray(gamma, float), len(images)
    found = np.zeros((2, len(gamma), n))
    for replicate in (0, 1):
        of_draw = jax.random.fold_in(fold_purpose(key, "pairs"), 2 * number + replicate)
        for index in equal_batches(n, batch_size) if number else ():
            batch = jnp.asarray(images[index]), jnp.asarray(index)
            found[replicate][:, index] = np.asarray(
                _steps(model, kernel, *batch, nodes, jnp.asarray(number), of_draw)
            ).T
    return found


@eqx.filter_jit
def _steps(
    model: DiffusionModel,
    kernel: AbstractKernel,
    images: Array,
    index: Array,
    nodes: Array,
    t: Array,
    key: PRNGKeyArray,
) -> Float[Array, "n g"]:
    gamma_t = nodes[t]

    def one(image: Array, number: Array) -> Float[Array, " g"]:
        key_eps, key_kernel = jax.random.split(jax.random.fold_in(key, number))
        x = model.observation.encode(image)
        eps = jax.random.normal(key_eps, x.shape, x.dtype)
        estimate = model.denoise(diffuse(model.path, gamma_t, x, eps), gamma_t, {})

        def with_step(s: Array, found: Float[Array, " g"]) -> Float[Array, " g"]:
            return found.at[s].set(kernel.kl(estimate, x, eps, gamma_t, nodes[s], key=key_kernel).sum())

        # Loops over the gammas below t only, on average half of them.
        return jax.lax.fori_loop(0, t, with_step, jnp.zeros_like(nodes))

    return jax.vmap(one)(images, index)


_BATCH = 64
_SPLITS = ("train", "test")


@dataclass(frozen=True)
class Measured:
    """Errors along gamma, and for each kernel the costs of steps between any two gammas, from `steps_from`."""

    curves: Mapping[str, Curve]
    steps: Mapping[str, Mapping[str, Float[np.ndarray, "2 g g _"]]]


@dataclass(frozen=True)
class Measurement:
    """A model, training and test images, the gammas, and kernels whose steps have to be measured one by one.

    `left_out` holds the reasons why steps of other kernels cannot be measured.
    """

    model: DiffusionModel
    images: Mapping[str, Real[np.ndarray, "_ h w c"]]
    gamma: Float[np.ndarray, " g"]
    kernels: Mapping[str, AbstractKernel]
    left_out: tuple[str, ...]
    key: PRNGKeyArray

    def without(self, problems: Mapping[str, str]) -> "Measurement":
        """Returns the measurement without some kernels; `problems` gives the reasons by name."""
        kernels = {name: kernel for name, kernel in self.kernels.items() if name not in problems}
        reasons = [f"kernel {name}: {problem}" for name, problem in problems.items()]
        return replace(self, kernels=kernels, left_out=(*self.left_out, *reasons))

    def evaluations(self, number: int) -> int:
        """Returns the number of evaluations of the network at one of the gammas."""
        return 2 * sum(map(len, self.images.values())) * (1 + (len(self.kernels) if number else 0))

    def measure(self, kept: Parts | None = None, progress: Progress = None) -> Measured:
        """Measures every gamma that is not in `kept`.

        The gammas are taken in random order. Steps from a high gamma cost more, so in sorted order the estimate of the
        remaining time would be wrong.
        """
        count = len(self.gamma)
        read = ((number, kept.read(number)) for number in range(count)) if kept else ()
        found = {number: part for number, part in read if part is not None}
        total, done = (sum(map(self.evaluations, numbers)) for numbers in (range(count), found))
        with track(progress, "measuring", total, done) as advance:
            for number in np.random.default_rng(0).permutation(count).tolist():
                if number not in found:
                    found[number] = self._at(number)
                    if kept:
                        kept.write(number, found[number])
                    advance(self.evaluations(number))
        return self._joined([found[number] for number in range(count)])

    def describe(self, done_before: Iterable[int] = ()) -> str:
        """Describes what is measured, and how much was done before, at the gammas with these numbers."""
        total, done = (sum(map(self.evaluations, some)) for some in (range(len(self.gamma)), done_before))
        images = " and ".join(f"{len(images):,} {split} images" for split, images in self.images.items())
        what = " and ".join(["errors", *(f"steps of kernel {name}" for name in self.kernels)])
        before = f", {done:,} of them done before" if done else ""
        return f"{what} at {len(self.gamma)} gammas on {images}: {total:,} evaluations of the network{before}"

    def _at(self, number: int) -> dict[str, np.ndarray]:
        """Measures everything at one gamma, both splits in parallel, because a loop over steps uses one core only."""
        with ThreadPoolExecutor(len(_SPLITS)) as pool:
            return {name: values for part in pool.map(self._of_split, _SPLITS, [number] * 2) for name, values in part}

    @precisely  # again, because the setting is local to a thread and `_at` starts new ones
    def _of_split(self, split: str, number: int) -> list[tuple[str, np.ndarray]]:
        images, key = self.images[split], self._key(split)
        found = [(f"{split}_errors", errors_at(self.model, images, self.gamma, number, key=key))]
        for name, kernel in self.kernels.items():
            steps = steps_from(self.model, kernel, images, self.gamma, number, batch_size=_BATCH, key=key)
            found.append((f"{split}_steps_{name}", steps))
        return found

    def _joined(self, parts: list[dict[str, np.ndarray]]) -> Measured:
        curves, steps = {}, {name: {} for name in self.kernels}
        for split in _SPLITS:
            ends = loss_at_ends(self.model, self.images[split], key=self._key(split))
            curves[split] = Curve(self.gamma, np.stack([part[f"{split}_errors"] for part in parts], axis=1), ends)
            for name in self.kernels:
                steps[name][split] = np.stack([part[f"{split}_steps_{name}"] for part in parts], axis=2)
        return Measured(curves, steps)

    def _key(self, split: str) -> PRNGKeyArray:
        return jax.random.fold_in(self.key, _SPLITS.index(split))
