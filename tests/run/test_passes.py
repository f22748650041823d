# SPDX-License-Identifier: Apache-2.0
"""How many passes a requested precision takes, and how they are averaged."""

import os

import jax
import numpy as np
import pytest

from vdmkit.likelihood import AbstractEstimator, Estimates, LogLikelihood
from vdmkit.likelihood.intervals import interval
from vdmkit.likelihood.log_likelihood import log_likelihood, pass_over
from vdmkit.losses import bits_per_dim
from vdmkit.progress import Kept
from vdmkit.randomness import fold_purpose

COUNT, DIMENSIONS = 5, 16
INDEX = np.arange(COUNT)


class Noisy(AbstractEstimator[None]):
    """One standard normal draw, whatever precision is requested."""

    def describe(self, levels):
        return "noise"

    def plan(self, model, images, *, precision, key):
        return None

    def rounds(self, plan):
        return 1

    def __call__(self, model, images, index, plan, *, replicate, key, on_round=lambda: None):
        of_replicate = jax.random.fold_in(key, replicate)
        draws = jax.vmap(lambda i: jax.random.normal(jax.random.fold_in(of_replicate, i)))(index)
        on_round()
        return Estimates({"noise": np.asarray(draws, np.float64)}, np.ones(COUNT, int), np.zeros(COUNT, bool))


@pytest.fixture(scope="module")
def pixels(tiny_images) -> np.ndarray:
    return tiny_images.pixels[:COUNT]


def measured(model, pixels, precision: float = 0.0, **how) -> LogLikelihood:
    return log_likelihood(model, pixels, key=jax.random.key(0), estimator=Noisy(), precision=precision, **how)


def pass_of(model, pixels, stage: int) -> np.ndarray:
    key = jax.random.fold_in(fold_purpose(jax.random.key(0), "likelihood"), stage)
    return np.asarray(pass_over(Noisy(), model, pixels, INDEX, None, batch_size=COUNT, key=key).nats)


def test_without_a_precision_there_is_one_pass(tiny_model, pixels) -> None:
    """Without a requested precision there is one pass with the recipe's number of draws."""
    found = measured(tiny_model, pixels)
    np.testing.assert_array_equal(found.nats, pass_of(tiny_model, pixels, 0))
    assert found.half_width == interval(found.nats).half_width_monte_carlo
    assert found.total_evaluations == 2 * COUNT


def test_a_pass_that_misses_is_averaged_with_more_and_none_is_thrown_away(tiny_model, pixels, tmp_path) -> None:
    """All passes are averaged until the precision is reached.

    Selecting passes by their precision would make 95% intervals of few images cover the exact value in 0.93 of cases.
    """
    first = interval(pass_of(tiny_model, pixels, 0)).half_width_monte_carlo
    wanted = bits_per_dim(first, DIMENSIONS) / 2.5  # 2.5^2 = 6.25
    found = measured(tiny_model, pixels, wanted, kept=lambda stage: Kept(tmp_path / "run" / "kept" / str(stage)))
    mean = np.mean([pass_of(tiny_model, pixels, stage) for stage in range(7)], axis=0)
    np.testing.assert_allclose(found.nats, mean, rtol=1e-12)  # float64
    assert found.half_width == pytest.approx(first / np.sqrt(7), rel=1e-12)
    assert found.total_evaluations == 7 * 2 * COUNT


def test_what_was_kept_is_read(tiny_model, pixels, tmp_path) -> None:
    """A resumed measurement reuses the saved batches."""
    kept = lambda stage: Kept(tmp_path / "kept" / str(stage))  # noqa: E731
    (tmp_path / "kept").mkdir()
    first = measured(tiny_model, pixels, kept=kept)
    path = tmp_path / "kept" / "0" / "0.npz"
    arrays = dict(np.load(path))
    np.savez(path, **arrays | {"term_noise": arrays["term_noise"] + 1})
    again = measured(tiny_model, pixels, kept=kept)
    np.testing.assert_allclose(again.nats, first.nats + 1, rtol=1e-12)


@pytest.mark.parametrize("damage", [b"", b"PK", b"\x93NUMPY", b"{}"])
def test_what_was_kept_and_is_damaged_is_measured_again(tiny_model, pixels, tmp_path, damage) -> None:
    """Damaged or mismatched saved batches are measured again."""
    kept = lambda stage: Kept(tmp_path / "kept" / str(stage))  # noqa: E731
    (tmp_path / "kept").mkdir()
    first = measured(tiny_model, pixels, kept=kept)
    path = tmp_path / "kept" / "0" / "0.npz"
    whole = path.read_bytes()
    Kept(tmp_path / "other" / "0").write(5, {"evaluations": np.zeros((2, COUNT))})
    other = (tmp_path / "other" / "0" / "5.npz").read_bytes()
    for content in (damage, other, whole[:-9], whole[:200] + bytes([whole[200] ^ 1]) + whole[201:]):
        path.write_bytes(content)
        np.testing.assert_array_equal(measured(tiny_model, pixels, kept=kept).nats, first.nats)


def test_a_part_may_be_lost_while_it_is_written(tmp_path, monkeypatch) -> None:
    """A batch that a concurrent measurement clears while it is written is no error."""
    (tmp_path / "run").mkdir()
    one, other = (Kept(tmp_path / "run" / "unfinished" / name) for name in "ab")

    def replaced(source, target, original=os.replace):
        other.clear()
        original(source, target)

    monkeypatch.setattr("os.replace", replaced)
    one.write(0, {"nats": np.zeros(3)})
    assert one.read(0) is None
    monkeypatch.undo()
    one.write(0, {"nats": np.zeros(3)})
    assert one.numbers() == [0]


class Counted:
    """A progress meter that records its updates."""

    def __init__(self):
        self.said = []

    def start(self, what, total, done):
        self.said.append((what, total, done))

    def advance(self, n=1, note=None):
        self.said.append(n)

    def stop(self):
        self.said.append("stop")


def test_a_meter_of_ones_own_is_told(tiny_model, pixels, capsys) -> None:
    """A user's progress meter receives the updates, and without one nothing is printed."""
    meter = Counted()
    measured(tiny_model, pixels, progress=meter)
    measured(tiny_model, pixels)
    assert meter.said == [("likelihood", 2, 0), 1, 1, "stop"]
    assert capsys.readouterr() == ("", "")
