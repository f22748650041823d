# SPDX-License-Identifier: Apache-2.0
"""Adaptive coders without a network, by their ideal code length: what counting alone gives on the same images.

A value's probabilities come from values coded before it, so a decoder can follow; an arithmetic coder writes the sum of
-log2 p and a few bytes. Counts change after each image.

The trained coder counts values in several contexts. Context k says p_k = (n_k(x) + s p_0(x)) / (n_k + s), context 0
falls back on uniform, and p is proportional to prod_k p_k^w_k: the mixing of PAQ (Mahoney 2005) for more than two
symbols, with weights that follow the gradient of the code length.
"""

import numpy as np
from jaxtyping import Float, Int, UInt8
from predictor import predicted_contexts
from scipy.special import gammaln

FEW = 20  # levels, up to which a value is coded as such, in contexts of neighbours at its position
STRENGTH = 12.0  # values that p_0 counts for, in a context's probabilities
RATE = 0.1  # of the weights' steps, for an image
CONFIDENCES = 8  # weights depend on log2 of the number of values seen in the context
SEQUENCE = 1 << 19  # values of training images that are coded in sequence, so that the weights are learned

# Neighbours (rows down, columns right) and the number of parts into which their levels are divided.
NEIGHBOURS = (
    (),
    ((-1, 0, 17),),
    ((0, -1, 17),),
    ((0, -1, 17), (-1, 0, 17)),
    ((0, -1, 6), (-1, 0, 6), (-1, 1, 6)),
    ((0, -1, 6), (-1, 0, 6), (-1, -1, 6)),
    ((-1, 0, 17), (-2, 0, 6)),
    ((0, -1, 17), (0, -2, 6)),
    ((-1, 0, 8), (-1, 1, 17)),
    ((-2, 0, 6), (-1, 0, 6), (0, -1, 6), (-1, -1, 3), (-1, 1, 3)),
)


def order0_bits(values: UInt8[np.ndarray, "n d"], levels: int) -> float:
    """Bits of a histogram per column that starts from 1/2 each, in sequence (Krichevsky and Trofimov 1981).

    The product of (n_x + 1/2) / (n + levels / 2) does not depend on the order: it is one of Gamma functions.
    """
    counts = np.stack([(values == level).sum(0) for level in range(levels)])
    nats = (
        gammaln(counts + 0.5).sum(0) - levels * gammaln(0.5) + gammaln(levels / 2) - gammaln(len(values) + levels / 2)
    )
    return -float(nats.sum() / np.log(2))


class Mixture:
    """Counts in K contexts, and the weights by which their probabilities are mixed.

    Args:
        sizes: The number of contexts of each of the K kinds.
        levels: Number of symbols.
    """

    def __init__(self, sizes: list[int], levels: int) -> None:
        self.counts = [np.zeros((size, levels), np.float32) for size in sizes]
        self.weights = np.full((len(sizes), CONFIDENCES), 1 / len(sizes))

    def count(self, symbols: Int[np.ndarray, " m"], contexts: Int[np.ndarray, "k m"]) -> None:
        for counts, context in zip(self.counts, contexts, strict=True):
            np.add.at(counts, (context, symbols), 1)

    def bits(self, symbols: Int[np.ndarray, " d"], contexts: Int[np.ndarray, "k d"]) -> float:
        """What an image takes by what was learned so far."""
        _, _, p = self._predicted(contexts)
        return -float(np.log2(p[np.arange(len(symbols)), symbols]).sum())

    def learn(self, symbols: Int[np.ndarray, " d"], contexts: Int[np.ndarray, "k d"]) -> None:
        logs, confidences, p = self._predicted(contexts)
        for k, log in enumerate(logs):
            gradient = log[np.arange(len(symbols)), symbols] - (p * log).sum(1)
            np.add.at(self.weights[k], confidences[k], RATE / len(symbols) * gradient)
        self.count(symbols, contexts)

    def _predicted(
        self, contexts: Int[np.ndarray, "k d"]
    ) -> tuple[list[Float[np.ndarray, "d levels"]], list[Int[np.ndarray, " d"]], Float[np.ndarray, "d levels"]]:
        """Each context's log probabilities and confidence, and the mixture."""
        base, strength, logs, confidences = 1 / self.counts[0].shape[1], 1.0, [], []
        for counts, context in zip(self.counts, contexts, strict=True):
            found = counts[context]
            total = found.sum(1, keepdims=True)
            p = (found + strength * base) / (total + strength)
            if not logs:
                base, strength = p, STRENGTH
            logs.append(np.log(p))
            confidences.append(np.minimum(np.log2(total[:, 0] + 1).astype(int), CONFIDENCES - 1))
        mixed = sum(self.weights[k, confidences[k], None] * log for k, log in enumerate(logs))
        p = np.exp(mixed - mixed.max(1, keepdims=True))
        return logs, confidences, p / p.sum(1, keepdims=True)


def trained_bits(
    images: UInt8[np.ndarray, "n h w c"], levels: int, train: UInt8[np.ndarray, "m h w c"]
) -> tuple[float, float]:
    """Bits of all images, each on its own by what `train` taught, and in sequence, each teaching the next."""
    symbols, contexts = (few_contexts if levels <= FEW else predicted_contexts)(images, levels, train)
    mixture = Mixture([int(kind.max()) + 1 for kind in contexts], levels)
    first, n = max(0, len(train) - SEQUENCE // symbols.shape[1]), len(train)
    mixture.count(symbols[:first].ravel(), contexts[:, :first].reshape(len(contexts), -1))
    for i in range(first, n):
        mixture.learn(symbols[i], contexts[:, i])
    alone = sum(mixture.bits(symbols[i], contexts[:, i]) for i in range(n, len(symbols)))
    together = 0.0
    for i in range(n, len(symbols)):
        together += mixture.bits(symbols[i], contexts[:, i])
        mixture.learn(symbols[i], contexts[:, i])
    return alone, together


def few_contexts(
    images: UInt8[np.ndarray, "n h w c"], levels: int, train: UInt8[np.ndarray, "m h w c"]
) -> tuple[Int[np.ndarray, "m+n d"], Int[np.ndarray, "k m+n d"]]:
    """Values of training images and images, and contexts: the position, and the neighbours of one of `NEIGHBOURS`."""
    values = np.concatenate([train, images]).astype(np.int64)
    count, h, w, c = values.shape
    padded = np.pad(values, ((0, 0), (2, 0), (2, 2), (0, 0)))
    kinds = []
    for neighbours in NEIGHBOURS:
        context = np.broadcast_to(np.arange(h * w * c).reshape(h, w, c), values.shape)
        for down, right, parts in neighbours:
            neighbour = padded[:, 2 + down : 2 + down + h, 2 + right : 2 + right + w]
            parts = min(parts, levels)
            context = context * parts + neighbour * parts // levels
        kinds.append(np.unique(context, return_inverse=True)[1].reshape(count, -1))  # numbers of those that occur
    return values.reshape(count, -1), np.stack(kinds)
