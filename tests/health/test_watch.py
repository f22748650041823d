# SPDX-License-Identifier: Apache-2.0
"""The watch over a training: every sign once, one cause one warning, and the same after a stop."""

import json
from dataclasses import replace

import pytest

from vdmkit.errors import CheckpointError
from vdmkit.training.health import Facts, Watch, read_troubles

HEALTHY = Facts(
    steps=1000,
    batch_size=64,
    gamma_min=-8.0,
    gamma_max=5.0,
    levels=17,
    spacing=2 / 17,
    mean_square=0.5,
    ema=0.99,
    ema_warmup=False,
    always_conditioned=None,
)


@pytest.fixture
def watch(tmp_path):
    """`watch(step=0, history=(), gamma_min=-3.0)`: a watch, with other facts than the healthy ones."""

    def watch(step: int = 0, history=(), **facts) -> Watch:
        return Watch(replace(HEALTHY, **facts), tmp_path / "health.json", step=step, history=history)

    return watch


def line(loss: float = 2.0, **others: float) -> dict[str, float]:
    """A line of metrics with the recipe's ends."""
    found = {"train/bpd": loss, "train/gradient": 1.0, "schedule/gamma_0": -8.0, "schedule/gamma_1": 5.0}
    return found | {name.replace("__", "/"): value for name, value in others.items()}


def signs(troubles) -> list[str]:
    return [trouble.sign for trouble in troubles]


def test_nothing_is_said_of_a_healthy_training(watch, tmp_path):
    """Users would learn to ignore warnings."""
    over = watch()
    found = over.check_settings(0) + over.check(100, line(2.2, train__untrained=2.3))
    for step in range(200, 1001, 100):
        found += over.check(step, line(2.2 - step / 2000))
        found += over.check(step, {"test/bpd": 2.3 - step / 2000, "test/ema_minus_raw": -0.01} | ERROR)
    assert found == read_troubles(tmp_path / "health.json") == []


ERROR = {"test/ema_minus_raw_half_width": 0.002}


@pytest.mark.parametrize(
    ("sign", "facts"),
    [
        ("prior", {"gamma_max": 0.0}),
        ("levels", {"gamma_min": -3.0}),
        ("average", {"ema": 0.9999}),
        ("labels", {"always_conditioned": "adm_unet"}),
    ],
)
def test_a_recipe_is_judged_before_its_first_update(watch, sign, facts):
    """A training of days would be lost to a setting that was wrong from the start, or be told so twice."""
    over = watch(**facts)
    assert signs(over.check_settings(0)) == [sign]
    assert over.check_settings(0) == []
    assert signs(read_troubles(over._path)) == [sign]


@pytest.mark.parametrize("facts", [{"gamma_min": -3.0, "spacing": None}, {"ema": None}])
def test_what_does_not_apply_is_not_judged(watch, facts):
    """Decoders that ask the network, or averages that nothing evaluates, would be called wrong."""
    assert watch(**facts).check_settings(0) == []


@pytest.mark.parametrize(
    ("sign", "lines"),
    [
        ("ends", [(40, line(schedule__gamma_0=1.0))]),
        ("loss", [(100, line(2.0)), (200, line(5.0))]),
        ("loss", [(100, line(9.0, train__untrained=2.3))]),
        ("learning", [(i, line(4.08)) for i in range(100, 600, 100)]),
        ("gradient", [(i, line(train__gradient=50.0 if i == 500 else 1.0)) for i in range(100, 600, 100)]),
        ("held_out", [(100, line()), (100, {"test/bpd": 2.0}), (200, line(1.9)), (200, {"test/bpd": 2.1})]),
        ("average", [(600, {"test/ema_minus_raw": 0.1} | ERROR)]),
    ],
)
def test_each_sign_is_said_once(watch, sign, lines):
    """A sign in the metrics would be missed, or repeated at every line from then on."""
    over = watch()
    found = [trouble for step, values in lines for trouble in over.check(step, values)]
    assert signs(found) == [sign]
    assert found[0].step == lines[-1][0]
    assert over.check(lines[-1][0] + 50, lines[-1][1]) == []


def test_one_cause_gives_one_warning(watch):
    """Everything that follows from a learning rate of 10 would be reported as a trouble of its own."""
    over = watch()
    bad = line(99.0, schedule__gamma_0=9.0, train__untrained=2.3, test__bpd=50.0, test__ema_minus_raw=5.0) | ERROR
    assert signs(over.check(60, bad) + over.check(600, bad)) == ["ends"]


def test_windows_do_not_depend_on_how_often_a_line_is_logged(watch):
    """A single batch, whose loss is high by chance, would be called divergence where every step is logged."""
    over = watch()
    losses = [2.0] * 60 + [30.0] + [2.0] * 60
    assert [over.check(i + 1, line(loss)) for i, loss in enumerate(losses)] == [[]] * len(losses)


def test_a_small_batch_says_nothing_of_the_untrained_model(watch):
    """The loss of two images would be taken for that of all."""
    assert watch(batch_size=2).check(100, line(2.0, train__untrained=0.5)) == []


def test_the_loss_of_continuous_data_may_be_negative(watch):
    """A density's loss that rises from -0.1 to 0.1 by chance would be called divergence."""
    over = watch(levels=0, spacing=None)
    assert [over.check(step, line(loss)) for step, loss in ((100, -0.1), (200, 0.1))] == [[], []]


def test_a_training_that_goes_on_says_nothing_twice(watch, tmp_path):
    """A warning would come back with every restart, or a run forget what is usual for it."""
    over = watch(gamma_max=0.0)
    over.check_settings(0)
    lines = [(step, line(2.0)) for step in (100, 200)]
    assert [over.check(step, line(2.0)) for step in (100, 200)] == [[], []]
    assert signs(over.check(300, line(9.0))) == ["loss"]
    again = watch(step=200, history=lines, gamma_max=0.0)  # killed before the checkpoint of step 300
    assert signs(again.troubles) == ["prior"]
    assert again.check_settings(200) == []
    assert signs(again.check(300, line(9.0))) == ["loss"]
    assert signs(read_troubles(tmp_path / "health.json")) == ["prior", "loss"]


def test_the_reason_of_an_error_is_kept(watch, tmp_path):
    """A report of the run could not say why it ended."""
    watch().stopped(40, "training stopped: the prior term was not finite at step 38.")
    (found,) = read_troubles(tmp_path / "health.json")
    assert (found.sign, found.step) == ("not_finite", 40)


def test_a_damaged_file_is_refused(tmp_path):
    """A report would show a run as healthy whose file nobody can read."""
    path = tmp_path / "health.json"
    assert read_troubles(path) == []
    path.write_text(json.dumps({"findings": [{"sign": "prior"}]}))
    with pytest.raises(CheckpointError, match=r"health\.json: damaged"):
        read_troubles(path)
