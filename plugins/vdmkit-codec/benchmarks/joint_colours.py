# SPDX-License-Identifier: Apache-2.0
"""What a kernel that knows the colours of a pixel would save: `uv run python joint_colours.py ARCHIVE`, in this folder.

The mixture kernel draws the values of z_s independently of each other given z_t. Their dependence costs the bound its
total correlation, which vanishes as the number T of steps grows. Here it is computed for the covariance of natural
images, and not for a trained network: patches of CIFAR-10's training images (an archive, or a part of it) are taken for
normal, so that given y_t = x + s_t eps their covariance is

    S_t = C - C (C + s_t^2 I)^-1 C        and that of y_s is        c^2 S_t + s_s^2 c I,    c = 1 - s_s^2 / s_t^2.

"colours" is the total correlation of the three values of a pixel, which a kernel saves whose channels are coded in
order, each given those before; logits that are linear in these are exact here. "neighbours" is what it would save
besides if each pixel were coded given the four before it. Both are sums over T steps even in gamma, in bits/dim, and
"share" is that of the colours in both.
"""

import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
from jaxtyping import Float

from vdmkit.data import Cifar10

SIZE = 7  # of a patch; its middle pixel has three rows and columns of neighbours on each side
GAMMAS = -13.3, 5.0  # of the model of CIFAR-10 in lossless.py
STEPS = (10, 20, 50, 100, 250, 1000)
BEFORE = ((-1, -1), (-1, 0), (-1, 1), (0, -1))
Matrix = Float[np.ndarray, "n n"]


def covariance(archive: Path) -> Matrix:
    """Returns the covariance of patches of x in [-1, 1]; values go row by row, and the channels of a pixel together."""
    images = Cifar10(path=str(archive)).load("train").pixels / 127.5 - 1
    patches = np.lib.stride_tricks.sliding_window_view(images[:, ::2, ::2], (SIZE, SIZE), axis=(1, 2))
    values = patches.transpose(0, 1, 2, 4, 5, 3).reshape(-1, 3 * SIZE**2)
    return np.cov(values.astype(np.float32), rowvar=False).astype(np.float64)


def log_det(matrix: Matrix) -> float:
    return float(np.linalg.slogdet(matrix)[1])


def savings(clean: Matrix, s_t: float, s_s: float) -> tuple[float, float]:
    """Returns what colours, and what neighbours besides, save in a step, in nats a pixel."""
    c = 1 - (s_s / s_t) ** 2
    given = clean - clean @ np.linalg.solve(clean + s_t**2 * np.eye(len(clean)), clean)
    noisy = c**2 * given + s_s**2 * c * np.eye(len(clean))
    middle, around = SIZE // 2, list[int]()
    for down, right in BEFORE:
        first = 3 * ((middle + down) * SIZE + middle + right)
        around += range(first, first + 3)
    pixel = list(range(3 * (middle * SIZE + middle), 3 * (middle * SIZE + middle) + 3))
    of_pixel = log_det(noisy[np.ix_(pixel, pixel)])
    alone = float(np.log(np.diag(noisy)[pixel]).sum())
    both = [*around, *pixel]
    given = log_det(noisy[np.ix_(both, both)]) - log_det(noisy[np.ix_(around, around)])
    return (alone - of_pixel) / 2, (of_pixel - given) / 2


def main() -> None:
    """Print the table."""
    clean = covariance(Path(sys.argv[1]))
    print(f"{'T':>6}{'colours':>10}{'neighbours':>12}{'share':>8}")
    for steps in STEPS:
        widths = np.exp(np.linspace(*GAMMAS, steps + 1) / 2)
        found = [savings(clean, s_t, s_s) for s_s, s_t in pairwise(widths)]
        colours, neighbours = np.sum(found, axis=0) / 3 / np.log(2)
        print(f"{steps:6}{colours:10.4f}{neighbours:12.4f}{colours / (colours + neighbours):8.0%}", flush=True)


if __name__ == "__main__":
    main()
