# SPDX-License-Identifier: Apache-2.0
"""Measure what noise schedules are worth to a trained model, one of your own among them, and plot them.

    python examples/study_of_a_schedule.py runs/digits

Between the same ends all schedules give the same bound, and estimate it with another variance.
"""

import sys
from pathlib import Path

import vdmkit
from vdmkit.losses import bits_per_dim
from vdmkit.report import line_chart
from vdmkit.schedule_search import lines_of_variances, plan_study, study_schedules, text_of_study
from vdmkit.schedule_search.variance import fine, rate_of, variance
from vdmkit.schedules import Sigmoid


def main(folder: str, images: int = 297, nodes: int = 61) -> None:
    """Print the tables of a study on so many training and test images, and leave schedules.svg and .png."""
    run = vdmkit.load(folder)
    train, test = (run.data(split).pixels[:images] for split in ("train", "test"))
    study = study_schedules(plan_study(run.model, train, test, nodes=nodes, key=run.key), (5, 10, 20), progress="auto")
    print(text_of_study(study))

    gamma = fine(study.test)
    own = Sigmoid(gamma_min=float(gamma[0]), gamma_max=float(gamma[-1]), tau=0.7)
    rate = rate_of(own, gamma)
    value = variance(study.test, rate) * bits_per_dim(1.0, run.model.dimensions) ** 2
    print(f"my sigmoid: variance {value:.4f} (bits/dim)^2")

    lines = {**lines_of_variances(study), f"my sigmoid: {value:.3g}": (gamma, 1 / rate)}
    labels = {"x": "gamma = -log SNR", "y": "density of gamma for a uniform t", "title": "Variance, (bits/dim)^2"}
    print(*line_chart(Path("schedules"), lines, **labels))


if __name__ == "__main__":
    main(*sys.argv[1:2], *map(int, sys.argv[2:]))
