# SPDX-License-Identifier: Apache-2.0
"""Measure log P of images in an array, by a model of a run folder.

python examples/likelihood_of_an_array.py runs/digits
"""

import sys

import vdmkit
from vdmkit.likelihood import VariationalBound


def main(folder: str, count: int = 64) -> None:
    """Compare images with the same ones upside down, and two estimators on the same images."""
    run = vdmkit.load(folder)
    images = run.data("test").pixels[:count]  # or any array (n, h, w, c) of the model's levels, uint8

    upright = vdmkit.log_likelihood(run.model, images, key=run.key)
    turned = vdmkit.log_likelihood(run.model, images[:, ::-1], key=run.key)
    print(f"upright      {upright.bits_per_dim} bits/dim")
    print(f"upside down  {turned.bits_per_dim} bits/dim")

    least = upright.log_prob.argmin()
    print(f"image {least} is the least probable: {upright.log_prob[least]:.1f} nats", end="")
    print(f" +/- {upright.standard_error[least]:.1f}, of {upright.evaluations[least]} evaluations")

    steps = vdmkit.log_likelihood(run.model, images, key=run.key, estimator=VariationalBound(steps=100))
    print(f"100 steps cost {vdmkit.compare(steps, upright)} bits/dim")


if __name__ == "__main__":
    main(*sys.argv[1:2], *map(int, sys.argv[2:]))
