# SPDX-License-Identifier: Apache-2.0
"""Predictions: how the output of a network gives an estimate of the data x and the noise eps.

- Directions: the network predicts a x + b eps for known (a, b), such as eps or v. x and eps follow from it and
  z = alpha x + sigma eps by a 2x2 solve. Network `translated` converts between directions.
- Directions with learned variances (Nichol & Dhariwal 2021, arXiv 2102.09672): a second output is 2 v - 1, where v
  interpolates between the logs of the smallest and the largest variance of a step (eq. 15); see kernel learned_range.
- Distributions over the levels x_k of each pixel, whose mean is x_hat. The exact log-likelihood of the latent,
  log N(z; alpha x_k, sigma^2), is added to the logits, so the network only has to contribute the information in
  neighbouring pixels.
"""

import abc
from dataclasses import KW_ONLY, replace
from typing import Annotated, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from annotated_types import Ge, Le
from jaxtyping import Array, Float, Int, PRNGKeyArray

from vdmkit.arguments import DataScale, check_integer
from vdmkit.errors import RecipeError
from vdmkit.networks.network import AbstractNetwork, Condition
from vdmkit.process import AbstractPath, Image
from vdmkit.registry import Choice, define_kind, register
from vdmkit.schedules import Scalar

__all__ = [
    "AbstractPrediction",
    "Categorical",
    "Edm",
    "Eps",
    "EpsAndRange",
    "Estimate",
    "Lattice",
    "Score",
    "UnitVelocity",
    "V",
    "Velocity",
    "WithRange",
    "X",
]


def level_values(levels: int) -> Float[Array, " v"]:
    """Returns x_k = 2 (k + 1/2) / V - 1, the centres of V equal bins of [-1, 1]."""
    return value_of(jnp.arange(levels), levels)


def value_of(level: Int[Array, "*shape"], levels: int) -> Float[Array, "*shape"]:
    """Returns x_k of each level k."""
    return 2 * (level + 0.5) / levels - 1


def require_levels(levels: int, component: str) -> None:
    """Raises RecipeError unless there are 2 to 256 levels; levels = 0 means continuous data."""
    if levels == 0:
        raise RecipeError(f"{component} needs data with levels, but the data are continuous.")
    check_integer("levels", levels, least=2, most=256)  # the range of uint8


class Estimate(eqx.Module):
    """A denoiser's estimates of x and eps for one latent z = alpha x + sigma eps.

    `log_probs` holds log p(x = level k | z) for predictions that give a distribution over levels, else None.
    `variance_share` holds v of Nichol & Dhariwal 2021, arXiv 2102.09672, eq. 15, for predictions that learn the
    variances of steps, else None. The log variance is v times that of the largest variance plus 1 - v times that of
    the smallest.
    """

    x_hat: Image
    eps_hat: Image
    log_probs: Float[Array, "h w c v"] | None = None
    variance_share: Image | None = None


def require_variance_share(estimate: Estimate, component: str) -> Image:
    """Returns v. Raises RecipeError, naming `component`, if the prediction learns no variances."""
    if estimate.variance_share is None:
        raise RecipeError(f"{component}: the prediction learns no variances. Use prediction eps_and_range.")
    return estimate.variance_share


class AbstractPrediction(eqx.Module):
    """The meaning of a network's output.

    Subclasses set `outputs`, the number of values per pixel and channel, and map them to an estimate.
    """

    outputs: eqx.AbstractVar[int]

    @abc.abstractmethod
    def __call__(self, output: Float[Array, "h w c k"], z: Image, gamma: Scalar, path: AbstractPath) -> Estimate:
        """Returns the estimate for z at gamma from the network's `output`."""

    def network_input(self, z: Image, gamma: Scalar, path: AbstractPath) -> Image:
        """Returns the network's input, by default the latent rescaled to the variance preserving path."""
        return z / path.scale(gamma)


define_kind(
    "prediction",
    "what the network's output means: eps, or a distribution over levels, ...",
    AbstractPrediction,
    ("shape", "levels", "level_counts", "distribution"),
)


Direction = tuple[Scalar, Scalar]


def solve_direction(
    output: Image,
    z: Image,
    direction: Direction,
    gamma: Scalar,
    path: AbstractPath,
) -> Estimate:
    """Solves a x + b eps = output, alpha x + sigma eps = z for (x, eps), where direction = (a, b)."""
    a, b = direction
    alpha, sigma = path.alpha(gamma), path.sigma(gamma)
    determinant = a * sigma - b * alpha
    return Estimate((sigma * output - b * z) / determinant, (a * z - alpha * output) / determinant)


class AbstractDirection(AbstractPrediction):
    """A prediction of a x + b eps. Subclasses define the direction (a, b).

    If there are several `outputs`, the first is the direction.
    """

    @abc.abstractmethod
    def direction(self, gamma: Scalar, path: AbstractPath) -> Direction:
        """Returns (a, b) at gamma."""

    def __call__(self, output: Float[Array, "h w c k"], z: Image, gamma: Scalar, path: AbstractPath) -> Estimate:
        return solve_direction(output[..., 0], z, self.direction(gamma, path), gamma, path)


def is_direction(choice: Choice) -> bool:
    """Returns whether a prediction is a direction in x and eps rather than a distribution over levels."""
    target = choice.component.target
    return isinstance(target, type) and issubclass(target, AbstractDirection)


def direction_of(choice: Choice) -> AbstractDirection:
    """Builds a prediction. Raises RecipeError if it is a distribution over levels, which cannot be converted."""
    if not is_direction(choice):
        raise RecipeError(f"prediction {choice.name} is not a direction in x and eps, so it cannot be converted.")
    return choice.build()


@register("prediction", "eps")
class Eps(AbstractDirection):
    """The network predicts the noise eps (Kingma et al. 2021; Ho et al. 2020, arXiv 2006.11239)."""

    outputs: int = eqx.field(static=True, default=1, init=False)

    def direction(self, gamma: Scalar, path: AbstractPath) -> Direction:
        return jnp.zeros_like(gamma), jnp.ones_like(gamma)


@register("prediction", "x")
class X(AbstractDirection):
    """The network predicts the data x."""

    outputs: int = eqx.field(static=True, default=1, init=False)

    def direction(self, gamma: Scalar, path: AbstractPath) -> Direction:
        return jnp.ones_like(gamma), jnp.zeros_like(gamma)


@register("prediction", "v")
class V(AbstractDirection):
    """The network predicts v = alpha eps - sigma x, alpha^2 + sigma^2 = 1 (Salimans & Ho 2022, arXiv 2202.00512)."""

    outputs: int = eqx.field(static=True, default=1, init=False)

    def direction(self, gamma: Scalar, path: AbstractPath) -> Direction:
        scale = path.scale(gamma)  # v is defined on the variance preserving path, so undo this path's scale
        return -path.sigma(gamma) / scale, path.alpha(gamma) / scale


@register("prediction", "score")
class Score(AbstractDirection):
    """The network predicts the score grad log q(z), as -eps / sigma (Song et al. 2021, arXiv 2011.13456)."""

    outputs: int = eqx.field(static=True, default=1, init=False)

    def direction(self, gamma: Scalar, path: AbstractPath) -> Direction:
        return jnp.zeros_like(gamma), -1 / path.sigma(gamma)


@register("prediction", "velocity")
class Velocity(AbstractDirection):
    """The network predicts eps - x, which is dz/dsigma on the straight line (Lipman et al. 2023, arXiv 2210.02747)."""

    outputs: int = eqx.field(static=True, default=1, init=False)

    def direction(self, gamma: Scalar, path: AbstractPath) -> Direction:
        return -jnp.ones_like(gamma), jnp.ones_like(gamma)


@register("prediction", "unit_velocity")
class UnitVelocity(AbstractDirection):
    """The network maps z itself to (eps - x) / sqrt 2 (Zheng et al. 2023, arXiv 2305.03935, i-DODE's SP)."""

    outputs: int = eqx.field(static=True, default=1, init=False)

    def direction(self, gamma: Scalar, path: AbstractPath) -> Direction:
        return jnp.full_like(gamma, -(0.5**0.5)), jnp.full_like(gamma, 0.5**0.5)

    def network_input(self, z: Image, gamma: Scalar, path: AbstractPath) -> Image:
        return z


@register("prediction", "edm")
class Edm(AbstractDirection):
    """The network predicts F in x = c_skip z / alpha + c_out F (Karras et al. 2022, arXiv 2206.00364, Table 1).

    With s = sigma / alpha: c_skip = sd^2 / (s^2 + sd^2), c_out = s sd / sqrt(s^2 + sd^2), c_in = 1 / sqrt(s^2 + sd^2).

    Args:
        sd: Standard deviation of the data.
    """

    _: KW_ONLY
    sd: DataScale = eqx.field(static=True, default=0.5)
    outputs: int = eqx.field(static=True, default=1, init=False)

    def direction(self, gamma: Scalar, path: AbstractPath) -> Direction:
        """Returns the direction of F = (s x / sd - sd eps) / sqrt(s^2 + sd^2)."""
        s = jnp.exp(gamma / 2)
        root = jnp.hypot(s, self.sd)
        return s / self.sd / root, -self.sd / root

    def network_input(self, z: Image, gamma: Scalar, path: AbstractPath) -> Image:
        return z / path.alpha(gamma) / jnp.hypot(jnp.exp(gamma / 2), self.sd)


_V = Choice("prediction", "v")


class AbstractRange(AbstractDirection):
    """A direction together with 2 v - 1 of learned variances."""

    outputs: int = eqx.field(static=True, default=2, init=False)

    def __call__(self, output: Float[Array, "h w c 2"], z: Image, gamma: Scalar, path: AbstractPath) -> Estimate:
        return replace(super().__call__(output, z, gamma, path), variance_share=(output[..., 1] + 1) / 2)


@register("prediction", "eps_and_range")
class EpsAndRange(AbstractRange):
    """The network predicts eps and 2 v - 1 of learned variances (Nichol & Dhariwal 2021, arXiv 2102.09672)."""

    def direction(self, gamma: Scalar, path: AbstractPath) -> Direction:
        return jnp.zeros_like(gamma), jnp.ones_like(gamma)


@register("prediction", "with_range")
class WithRange(AbstractRange):
    """The network predicts any direction and 2 v - 1 of learned variances.

    Args:
        of: Prediction that defines the direction, without learned variances.

    Raises:
        RecipeError: `of` is not a direction, or already learns variances.
    """

    of: AbstractDirection

    def __init__(self, *, of: Annotated[Choice, "prediction"] = _V):
        self.outputs = 2
        self.of = direction_of(of)
        if self.of.outputs > 1:
            raise RecipeError(f"with_range of {of.name}: it has {self.of.outputs} outputs itself. Use it alone.")

    def direction(self, gamma: Scalar, path: AbstractPath) -> Direction:
        return self.of.direction(gamma, path)

    def network_input(self, z: Image, gamma: Scalar, path: AbstractPath) -> Image:
        return self.of.network_input(z, gamma, path)


def learns_range(choice: Choice) -> bool:
    """Returns whether a prediction learns variances."""
    target = choice.component.target
    return isinstance(target, type) and issubclass(target, AbstractRange)


@register("network", "translated")
class Translated(AbstractNetwork):
    """Converts a network's output from one prediction and path to another.

    The change of variables of Kingma et al. 2021, section 5.1, leaves the estimates of x and eps unchanged. Further
    outputs, such as those of learned variances, are passed through, because they do not depend on the path.

    Args:
        network: The trained network.
        trained_as: Prediction that the network was trained for, a direction in x and eps.
        trained_on: Path that the network was trained on.
        read_as: Prediction of the new model.
        read_on: Path of the new model.
    """

    requires_label: ClassVar[bool] = False

    inner: AbstractNetwork
    trained_as: AbstractDirection
    trained_on: AbstractPath
    read_as: AbstractDirection
    read_on: AbstractPath
    outputs: int = eqx.field(static=True)

    def __init__(
        self,
        shape: tuple[int, int, int],
        outputs: int,
        gamma_range: tuple[float, float],
        classes: int,
        key: PRNGKeyArray,
        *,
        network: Annotated[Choice, "network"],
        trained_as: Annotated[Choice, "prediction"],
        trained_on: Annotated[Choice, "path"],
        read_as: Annotated[Choice, "prediction"],
        read_on: Annotated[Choice, "path"],
    ):
        self.trained_as, self.read_as = direction_of(trained_as), direction_of(read_as)
        if outputs > self.trained_as.outputs:
            raise RecipeError(
                f"the network gives {self.trained_as.outputs} value per pixel and channel, but the prediction needs "
                f"{outputs}."
            )
        self.outputs = outputs
        self.trained_on, self.read_on = trained_on.build(), read_on.build()
        context = {"gamma_range": gamma_range, "classes": classes, "key": key, "outputs": self.trained_as.outputs}
        self.inner = network.build(shape=shape, **context)

    def __call__(
        self,
        z: Image,
        gamma: Scalar,
        condition: Condition,
        *,
        key: PRNGKeyArray | None = None,
    ) -> Float[Array, "h w c k"]:
        # The network's input is z times a known factor, which gives y = z / alpha.
        shown = self.read_as.network_input(jnp.ones_like(z) * self.read_on.alpha(gamma), gamma, self.read_on)
        latent = self.trained_on.alpha(gamma) * z / shown
        output = self.inner(self.trained_as.network_input(latent, gamma, self.trained_on), gamma, condition, key=key)
        estimate = self.trained_as(output, latent, gamma, self.trained_on)
        a, b = self.read_as.direction(gamma, self.read_on)
        direction = a * estimate.x_hat + b * estimate.eps_hat
        return jnp.concatenate([direction[..., None], output[..., 1 : self.outputs]], axis=-1)


@register("prediction", "categorical")
class Categorical(AbstractPrediction):
    """Logits per level, plus the log of each pixel's training histogram, plus the exact evidence.

    If the network returns zeros, this is the exact denoiser of independent pixels, and the bound is the code length
    under the smoothed histograms (the order-0 code).

    Args:
        smoothing: Number added to every count of the histograms.
    """

    level_counts: Int[Array, "h w c v"]
    outputs: int = eqx.field(static=True)
    smoothing: float = eqx.field(static=True)

    def __init__(self, level_counts: Int[Array, "h w c v"], *, smoothing: Annotated[float, Ge(1e-6), Le(1e6)] = 0.5):
        require_levels(level_counts.shape[-1], "the categorical prediction")
        self.level_counts = level_counts
        self.outputs = level_counts.shape[-1]
        self.smoothing = smoothing

    def log_histogram(self) -> Float[Array, "h w c v"]:
        """Returns the log of the smoothed frequency of each level at each pixel."""
        counts = self.level_counts + self.smoothing
        return jnp.log(counts / counts.sum(-1, keepdims=True))

    def __call__(self, output: Float[Array, "h w c v"], z: Image, gamma: Scalar, path: AbstractPath) -> Estimate:
        x = level_values(self.outputs)
        evidence = -0.5 * jnp.exp(-gamma) * (z[..., None] / path.alpha(gamma) - x) ** 2
        return estimate_from_logits(output + self.log_histogram() + evidence, x, z, gamma, path)


@register("prediction", "lattice")
class Lattice(AbstractPrediction):
    """eps and a log-precision r per value: p(x_k | z) ~ exp(-(SNR + e^r) (x_k - x_net)^2 / 2).

    Here x_net = (z - sigma (z + net)) / alpha. A network that returns zeros has r = 7, a standard deviation of 0.03;
    if the levels are closer than that (V above 100), it is the eps prediction with eps_hat = z. At low noise levels
    x_hat is rounded to the levels. There are two outputs per value for any number of levels.
    """

    levels: int = eqx.field(static=True)
    outputs: int = eqx.field(static=True, default=2, init=False)

    def __check_init__(self) -> None:
        require_levels(self.levels, "the lattice prediction")

    def __call__(self, output: Float[Array, "h w c 2"], z: Image, gamma: Scalar, path: AbstractPath) -> Estimate:
        x_net = (z - path.sigma(gamma) * (z + output[..., 0])) / path.alpha(gamma)
        precision = jnp.exp(-gamma) + jnp.exp(jnp.clip(7 + output[..., 1], 0, 14))
        x = level_values(self.levels)
        logits = -0.5 * precision[..., None] * (x_net[..., None] - x) ** 2
        return estimate_from_logits(logits, x, z, gamma, path)


def estimate_from_logits(
    logits: Float[Array, "h w c v"],
    x: Float[Array, " v"],
    z: Image,
    gamma: Scalar,
    path: AbstractPath,
) -> Estimate:
    """Returns the estimate whose distribution over the levels x is softmax(logits)."""
    log_probs = jax.nn.log_softmax(logits)
    x_hat = (jnp.exp(log_probs) * x).sum(-1)  # not a matmul, whose bfloat16 rounding costs 0.1 bpd at 256 levels
    return Estimate(x_hat, (z - path.alpha(gamma) * x_hat) / path.sigma(gamma), log_probs)
