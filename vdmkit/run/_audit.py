# SPDX-License-Identifier: Apache-2.0
"""The audit of a run: all estimators on the same few images, and the referee's checks of their relations."""

import sys

import jax

from vdmkit.data import Images, check_comparable, check_fits
from vdmkit.devices import arithmetic, precisely
from vdmkit.files import write_results
from vdmkit.likelihood import Check, audit_as_json, gather, referee, sample_of
from vdmkit.noise import check_increasing
from vdmkit.randomness import fold_purpose
from vdmkit.run._load import Run
from vdmkit.run._trained_on import read_trained_on
from vdmkit.testing import check_model_of_recipe

_IMAGES = 64


@precisely
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
    write_results(run.folder.path / "audit.json", audit_as_json(checks, arithmetic()))
    return checks
