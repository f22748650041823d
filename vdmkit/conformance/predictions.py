# SPDX-License-Identifier: Apache-2.0
"""Checks of networks and predictions."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vdmkit.conformance.checking import (
    Quotients,
    check_derivative,
    check_quotients,
    compiled_fast,
    expect,
    in_float64,
    near,
    quotients,
)
from vdmkit.conformance.components import GAMMAS, Scales, scales_at
from vdmkit.networks.network import AbstractNetwork
from vdmkit.predictions import AbstractDirection, AbstractPrediction, Estimate
from vdmkit.process import AbstractPath, Image, StraightLine, VarianceExploding, VariancePreserving, diffuse

_ROUNDING = 1e-4  # relative to an output: the effect of a different summation order in float32


def check_network(build: Callable[[int], AbstractNetwork], shape: tuple[int, int, int]) -> None:
    """Checks that the outputs of `build(outputs)` are finite, (h, w, c, outputs), and depend on one image each.

    Raises:
        ConformanceError: one of these does not hold, a second call differs, or the derivative is wrong.
    """
    z = np.random.default_rng(0).standard_normal((4, *shape)).astype(np.float32)
    gamma = np.linspace(-5, 5, 4, dtype=np.float32)
    for outputs in (1, 3):
        check_outputs(build(outputs), z, gamma, (*shape, outputs))
    network = build(1)
    for at in range(len(z)):
        check_network_derivative(network, z[at], gamma[at])


@compiled_fast
def outputs_of(
    network: Callable[..., Array], z: Float[Any, "n h w c"], gamma: Float[Any, " n"]
) -> Float[Array, "n *shape"]:
    """Returns the network's outputs for a batch of latents, without dropout."""
    return jax.vmap(lambda z, gamma: network(z, gamma, {}, key=None))(z, gamma)


def check_outputs(
    network: Callable[..., Array],
    z: Float[np.ndarray, "n h w c"],
    gamma: Float[np.ndarray, " n"],
    shape: tuple[int, ...],
) -> None:
    """Checks that outputs are finite, of `shape`, reproducible, and independent of the other latents in a batch.

    Raises:
        ConformanceError: one of these does not hold, or the network calls Python functions while it runs.
    """
    _check_no_callback(network, z, gamma)
    even = (np.arange(len(z)) % 2 == 0)[:, None, None, None]
    batches = (z, z, np.where(even, z, 1 - 2 * z), np.where(even, 1 - 2 * z, z))
    first, again, *others = (np.asarray(outputs_of(network, batch, gamma), np.float64) for batch in batches)
    expect(first.shape[1:] == shape, f"output of shape {first.shape[1:]}: expected {shape}")
    expect(bool(np.isfinite(first).all()), "the output is not finite")
    rounding = _ROUNDING * abs(first).max()
    off = abs(first - again).max()
    expect(off <= rounding, f"without a key a second call gives other outputs, by up to {off:.3g}")
    off = max(abs(first[i::2] - others[i][i::2]).max() for i in (0, 1))
    expect(off <= rounding, f"the output for one image changes by up to {off:.3g} with the other images of its batch")


def _check_no_callback(network: Callable[..., Array], z: Float[Any, "n h w c"], gamma: Float[Any, " n"]) -> None:
    """Checks that the network has no Python callbacks, because a callback could depend on earlier calls."""
    batch = jax.vmap(lambda z, gamma: network(z, gamma, {}, key=None))
    program = str(jax.make_jaxpr(batch)(z, gamma))
    for name in ("pure_callback", "io_callback"):
        expect(f"{name}[" not in program, f"it calls Python by {name}: its output may depend on earlier calls")


def check_network_derivative(network: AbstractNetwork, z: Float[np.ndarray, "h w c"], gamma: Float[Any, ""]) -> None:
    """Checks JAX's d output / dz against difference quotients.

    Raises:
        ConformanceError: they differ, for example because a gradient is stopped.
    """
    with jax.enable_x64(True):
        wide, latent, at = in_float64((network, z, gamma))
        check_derivative(_Output(wide, at), latent, what="the network's output")


class _Output(eqx.Module):
    """A network's output as a function of the latent."""

    network: AbstractNetwork
    gamma: Float[Any, ""]

    def __call__(self, z: Image) -> Float[Array, "h w c k"]:
        return self.network(z, self.gamma, {}, key=None)


def check_prediction(prediction: AbstractPrediction, shape: tuple[int, int, int]) -> None:
    """Checks that alpha x_hat + sigma eps_hat = z on any path, and that probabilities of levels sum to 1.

    A direction, given a x + b eps, must return x and eps on any path.

    Raises:
        ConformanceError: one of these does not hold, or the derivative does not match the values.
    """
    with jax.enable_x64(True):
        gammas, wide = jnp.asarray(GAMMAS, float), in_float64(prediction)
        key_output, *keys = jax.random.split(jax.random.key(0), 3)
        output = jax.random.normal(key_output, (*shape, prediction.outputs), dtype=float)
        x, eps = (jax.random.normal(key, shape, dtype=float) for key in keys)
        for path in (VariancePreserving(), VarianceExploding(), StraightLine()):
            z, estimates, directed, scales = _estimates(wide, path, gammas, output, x, eps)
            check_estimate(estimates, z, gammas, scales, tolerance=1e-9)
            if directed is not None:
                _check_direction(directed, gammas, x, eps)
        for at in range(len(GAMMAS)):
            check_prediction_derivative(prediction, output, z[at], gammas[at], path)


@compiled_fast
def _estimates(
    prediction: AbstractPrediction, path: AbstractPath, gammas: Array, output: Array, x: Array, eps: Array
) -> tuple[Array, Estimate, Estimate | None, Scales]:
    """Returns, per gamma, the latent, the estimate from `output`, a direction's from a x + b eps, and the scales."""

    def at(gamma: Array) -> tuple[Array, Estimate, Estimate | None, Scales]:
        z = diffuse(path, gamma, x, eps)
        estimate, directed = prediction(output, z, gamma, path), None
        if isinstance(prediction, AbstractDirection):
            a, b = prediction.direction(gamma, path)
            of_direction = output.at[..., 0].set(a * x + b * eps)  # other channels, such as a variance, are unchanged
            directed = prediction(of_direction, z, gamma, path)
        return z, estimate, directed, scales_at(path, gamma)

    return jax.vmap(at)(gammas)


def _check_direction(estimates: Estimate, gammas: Array, x: Array, eps: Array) -> None:
    for gamma, x_hat, eps_hat in zip(np.asarray(gammas), estimates.x_hat, estimates.eps_hat, strict=True):
        # Cancellation loses digits if x or eps is a small part of z.
        exact = near(x_hat, x, 1e-7) and near(eps_hat, eps, 1e-7)
        expect(exact, f"given a x + b eps it does not give x and eps back at gamma = {gamma:g}")


def check_estimate(
    estimate: Estimate,
    z: Float[Any, "n h w c"],
    gamma: Float[Any, " n"],
    scales: Scales,
    *,
    tolerance: float,
) -> None:
    """Checks alpha x_hat + sigma eps_hat = z for n latents, to `tolerance` of their scale, and sums of probabilities.

    Raises:
        ConformanceError: one of these does not hold.
    """
    alpha, sigma, scale, _ = (np.asarray(values, np.float64)[:, None, None, None] for values in scales)
    x_hat, eps_hat, latent = (np.asarray(values, np.float64) for values in (estimate.x_hat, estimate.eps_hat, z))
    with np.errstate(invalid="ignore"):
        off = (abs(alpha * x_hat + sigma * eps_hat - latent) / scale).max((1, 2, 3))
    worst = int(np.nan_to_num(off, nan=np.inf).argmax())
    expect(
        off[worst] < tolerance * (1 + (abs(latent) / scale)[worst].max()),
        f"alpha x_hat + sigma eps_hat is not z at gamma = {float(gamma[worst]):.4g}: they differ by {off[worst]:.3g} "
        "of the latent's scale",
    )
    if estimate.log_probs is not None:
        total = np.exp(np.asarray(estimate.log_probs, np.float64)).sum(-1)
        expect(near(total, 1.0, 1e-5), f"p(x given z) sums to {total.flat[abs(total - 1).argmax()]:g}")


def check_prediction_derivative(
    prediction: AbstractPrediction,
    output: Float[Any, "h w c k"],
    z: Float[Any, "h w c"],
    gamma: Float[Any, ""],
    path: AbstractPath,
) -> None:
    """Checks JAX's d eps_hat / d(output, z) and d network_input / dz against difference quotients.

    Raises:
        ConformanceError: they differ, for example because a gradient is stopped; or probabilities of levels do not
            sum to 1 in float64.
    """
    with jax.enable_x64(True):
        eps_hat, shown, log_probs = _measured(*in_float64((prediction, output, z, gamma, path)))
        check_quotients(eps_hat, what="eps_hat")
        check_quotients(shown, what="what the network is shown of z")
    if log_probs is not None:
        total = np.exp(np.asarray(log_probs, np.float64)).sum(-1)
        expect(near(total, 1.0, 1e-9), f"p(x given z) sums to {total.flat[abs(total - 1).argmax()]:.9g}")


@compiled_fast
def _measured(
    prediction: AbstractPrediction, output: Any, z: Any, gamma: Any, path: AbstractPath
) -> tuple[Quotients, Quotients, Array | None]:
    """Computes quotients of eps_hat over (output, z), of the network's input over z, and log_probs, in one program."""
    output, z, gamma = map(jnp.asarray, (output, z, gamma))

    def eps_hat(both: Float[Array, "h w c k_plus_1"]) -> Image:
        return prediction(both[..., :-1], both[..., -1], gamma, path).eps_hat

    def shown(z: Image) -> Image:
        return prediction.network_input(z, gamma, path)

    both = jnp.concatenate([output, z[..., None]], axis=-1)
    return quotients(eps_hat, both), quotients(shown, z), prediction(output, z, gamma, path).log_probs
