# SPDX-License-Identifier: Apache-2.0
"""Run folders whose files are written by the classes that write them in a run, without training."""

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from vdmkit.data.sources import Identities, identified
from vdmkit.devices import Arithmetic
from vdmkit.experiments.folder import Provenance
from vdmkit.io import write_json, write_text
from vdmkit.likelihood import LikelihoodReport
from vdmkit.likelihood.consistency import Check, audit_as_json
from vdmkit.recipes import load_recipe
from vdmkit.recipes.schema import dump
from vdmkit.report import write_result
from vdmkit.report.run_contents import read_contents
from vdmkit.schedule_search import Study
from vdmkit.schedule_search.measurement import Curve
from vdmkit.schedule_search.steps import Predicted
from vdmkit.schedule_search.study import Variance

ARITHMETIC = Arithmetic("float32", "highest", "1 x cpu")
COUNT, DIMENSIONS = 6, 64


@pytest.fixture(scope="session")
def likelihood() -> LikelihoodReport:
    """A report with numbers that differ from each other."""
    return LikelihoodReport(
        bpd=1.7612345,
        bpd_low=1.7512345,
        bpd_high=1.7712345,
        half_width_monte_carlo=0.01,
        half_width_test_set=0.0266,
        terms={"prior": 0.0031, "reconstruction": 0.0072, "diffusion": 1.7509345},
        exact=None,
        impossible_below=None,
        exact_bound=None,
        discretisation=None,
        estimator="variational bound, continuous time",
        evaluations=96,
        evaluations_per_image=16.0,
        evaluations_of_solver_error=0,
        are_draws=True,
        levels=17,
        images=COUNT,
        images_in_test_set=COUNT,
        distinct_images=COUNT,
        test_images_trained_on=0,
        test_images_near_trained_on=0,
        held_out=True,
        dataset="noise/test",
        label=None,
        sha256="5e" * 32,
        published=None,
        seed=3,
        step=12,
        weights="ema",
        arithmetic=ARITHMETIC,
        trusted=True,
        reasons=(),
        remarks=(),
    )


@pytest.fixture(scope="session")
def nats() -> np.ndarray:
    """Two estimates of each image's nats."""
    return np.random.default_rng(0).normal(80, 9, (2, COUNT))


@pytest.fixture
def bare(tmp_path: Path, digits_toml: Path) -> Path:
    """A run folder without results, as of an imported model."""
    return _bare(tmp_path / "bare", digits_toml)


def _bare(folder: Path, digits_toml: Path) -> Path:
    folder.mkdir()
    write_text(folder / "resolved.toml", dump(load_recipe(digits_toml)))
    made = Provenance((8, 8, 1), 17, None, {}, "ab" * 32, [])
    write_json(folder / "manifest.json", asdict(made))
    return folder


@pytest.fixture
def full(whole: Path, tmp_path: Path) -> Path:
    """A run folder with results of every kind, which a test may change."""
    return shutil.copytree(whole, tmp_path / "full")


@pytest.fixture(scope="session")
def whole(
    tmp_path_factory: pytest.TempPathFactory, digits_toml: Path, likelihood: LikelihoodReport, nats: np.ndarray
) -> Path:
    """A run folder with results of every kind. Not to be changed."""
    folder = _bare(tmp_path_factory.mktemp("whole") / "full", digits_toml)
    leave_likelihood(folder, likelihood, nats)
    write_json(folder / "evaluation.json", replace(likelihood, bpd=1.76543, remarks=("A remark.",)).as_json())
    checks = [
        Check("the first holds", 0.01, 0.002, 0.0, 0.1),
        Check("the second holds", -1.25, 0.01, -0.5, float("inf")),
    ]
    write_json(folder / "audit.json", audit_as_json(checks, ARITHMETIC))
    (folder / "schedule").mkdir()
    write_json(folder / "schedule" / "schedule.json", study().as_json())
    lines = [{"step": step, "train/bpd": 3 - step / 7, "train/gradient": 0.1 * step} for step in (1, 2, 3)]
    write_text(
        folder / "metrics.jsonl", "".join(json.dumps(line) + "\n" for line in [*lines, {"step": 3, "test/bpd": 2.123}])
    )
    pixels = np.random.default_rng(0).integers(0, 17, (9, 8, 8, 1)).astype(np.uint8)
    identity = identified(pixels, 17, name="noise", split="train").identity
    made = Provenance((8, 8, 1), 17, Identities(identity, identity), {}, None, [], newest_checkpoint=12)
    write_json(folder / "manifest.json", asdict(made))
    write_text(folder / "recipe.toml", "seed = 1  # </pre><script>alert(1)</script>\n")
    return folder


def leave_likelihood(folder: Path, report: LikelihoodReport, nats: np.ndarray) -> None:
    """Writes a likelihood as `vdmkit likelihood` does, with two terms."""
    of_images = {
        "index": np.arange(COUNT),
        "nats": nats.mean(0),
        "term_prior": nats / 4,
        "term_diffusion": 3 * nats / 4,
    }
    overrides = {"overrides": ["likelihood.estimator.draws=8"]}
    write_result(folder / "likelihood", f"noise-test_bound_{report.weights}", report.as_json(), of_images | overrides)


def study() -> Study:
    """A study of three gammas and two images."""
    rng = np.random.default_rng(1)
    curve = Curve(np.array([-8.0, -1.0, 5.0]), rng.uniform(1, 9, (2, 3, 2)), rng.uniform(0, 1, (2, 2)))
    variances = (
        Variance("this run's", 2.5, 2.25, 2.75, (0.1, 0.2, None)),
        Variance("cosine", 9.5, 9.0, 9.75, (0.1, 0.1, 0.1)),
    )
    steps = tuple(
        Predicted("gaussian", "dynamic", tuple(np.linspace(-8, 5, t + 1).tolist()), 1.7 + 1 / t, 0.015)
        for t in (1, 2, 5)
    )
    optimal = {"gammas": (-8.0, 5.0), "errors": (0.5, 0.25)}
    return Study(1.7, 0.03, 2, curve, curve, variances, steps, (), optimal, ARITHMETIC)


@pytest.fixture
def leave():
    """`leave(folder, report, nats)`: a likelihood in a run folder, as `vdmkit likelihood` leaves it."""
    return leave_likelihood


@pytest.fixture(scope="session")
def shown_of():
    """`shown_of(folder)`: a run as the page sees it without its model."""
    return lambda folder: replace(read_contents(folder), reason="no checkpoint")
