# SPDX-License-Identifier: Apache-2.0
"""The audit of a run: all estimators on the same few images, and the referee's checks of their relations."""

import math
import sys
from dataclasses import asdict
from typing import Any

import jax

from vdmkit.data import Images, check_comparable, check_fits
from vdmkit.devices import arithmetic
from vdmkit.files import write_json
from vdmkit.likelihood import Check, gather, referee, sample_of
from vdmkit.noise import check_increasing
from vdmkit.randomness import fold_purpose
from vdmkit.run._load import Run
from vdmkit.run._trained_on import read_trained_on
from vdmkit.testing import check_model_of_recipe

_IMAGES = 64


def audit(run: Run, test: Images) -> list[Check]:
    """Measures 64 images, or the recipe's `likelihood.images`, drawn at random, and writes RUN/audit.json."""
    settings = run.recipe.likelihood
    model = run.weighted(settings.weights)
    check_fits(model, test)
    for remark in check_comparable(read_trained_on(run), test):
        print(remark, file=sys.stderr)
    check_increasing(model.schedule)
    check_model_of_recipe(run.recipe, model, test.pixels, differentiated=True).refuse()
    index = sample_of(len(test.pixels), settings.images or _IMAGES)
    key = fold_purpose(jax.random.key(run.recipe.seed), "audit")
    checks = referee(gather(model, test, index, batch_size=settings.batch_size, key=key, progress="auto"))
    write_json(run.folder.path / "audit.json", audit_as_json(checks))
    return checks


def audit_as_json(checks: list[Check]) -> dict[str, Any]:
    """Returns every check, and the arithmetic of this process, as JSON values."""
    return {"checks": [as_json(check) for check in checks], **asdict(arithmetic())}


def as_json(check: Check) -> dict[str, Any]:
    """Returns a check as JSON values; numbers that are not finite are None, because JSON does not have them."""
    numbers = {"difference": check.difference, "half_width": check.half_width, "low": check.low, "high": check.high}
    return {
        "claim": check.claim,
        "verdict": check.verdict,
        **{name: value if math.isfinite(value) else None for name, value in numbers.items()},
    }
