# SPDX-License-Identifier: Apache-2.0
"""Scores samples of a run against the images of its recipe."""

from vdmkit.assembly import build_sampling
from vdmkit.quality import Extractor, Scores, score
from vdmkit.recipe import drawn_by
from vdmkit.run._evaluate import load_test, load_train
from vdmkit.run._load import Run


def score_run(run: Run, count: int, inception: Extractor | None = None) -> Scores:
    """Scores `count` samples with the recipe's sampler, seed and data: see `vdmkit.quality.score`.

    Raises:
        DataError, NonFiniteError: as in `score`.
        UntrustedError: the images are not those of the run: see `load_test`.
        RecipeError: the recipe asks for labels that the samples would not use.
    """
    recipe, config = run.recipe, build_sampling(run.recipe)
    test, train = load_test(run), load_train(run)
    how = {"drawn": drawn_by(recipe), "seed": recipe.seed, "inception": inception, "progress": "auto"}
    return score(run.weighted(recipe.evaluation.weights), config, count, test=test, train=train, **how)
