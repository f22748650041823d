# SPDX-License-Identifier: Apache-2.0
"""Contexts for images of many levels: linear prediction, and how far it is expected to be off.

Channel after channel (the second, which is green, first), a value is predicted from its decoded neighbours and from
the same and neighbouring pixels in channels before; the symbol is what is missing, modulo the number of levels.
Coefficients are least squares on training images, as are those of the size of the error given the errors around.
"""

import numpy as np
from jaxtyping import Float, Int, UInt8

AROUND = ((0, -1), (-1, 0), (-1, -1), (-1, 1), (0, -2), (-2, 0), (-1, 2), (-2, 1))  # rows down, columns right
SIZES = 24  # classes of the expected size of the error
SIGNED = (-12, -6, -3, -1, 2, 4, 7, 13)  # edges of classes of an error
CHUNK = 250  # images

Channel = Float[np.ndarray, "n h w"]


def predicted_contexts(
    images: UInt8[np.ndarray, "n h w c"], levels: int, train: UInt8[np.ndarray, "m h w c"]
) -> tuple[Int[np.ndarray, "m+n d"], Int[np.ndarray, "k m+n d"]]:
    """Symbols and contexts of training images and images; d = h w c in the order of coding: by channel."""
    values = np.concatenate([train, images]).astype(np.float32)
    channels = values.shape[-1]
    order = [1, 0, *range(2, channels)] if channels > 1 else [0]
    done: list[Channel] = []
    errors: list[Channel] = []
    symbols, contexts = [], []
    for place, channel in enumerate(order):
        value = values[..., channel]
        prediction = np.clip(_regressed([*done], [value, *done], value, len(train)), 0, levels - 1)
        rounded = np.rint(prediction)
        error = value - rounded
        sizes = [np.abs(e) for e in errors]
        size = _regressed(sizes, [np.abs(error), *sizes], np.minimum(np.abs(error), levels / 6), len(train))
        edges = np.quantile(size[: len(train)], np.linspace(0, 1, SIZES + 1)[1:-1])
        fine = np.digitize(size, edges)
        before = np.digitize(errors[-1], SIGNED) if errors else np.zeros_like(fine)
        left, above = (np.digitize(_shifted(error, *by), SIGNED) for by in ((0, -1), (-1, 0)))
        signs = len(SIGNED) + 1
        kinds = (
            fine,
            fine // 2 * signs + before,
            (left * signs + above) * 4 + fine // 6,
            (rounded * 32 // levels).astype(np.int64) * (SIZES // 4) + fine // 4,
        )
        symbols.append((error % levels).astype(np.int64).reshape(len(values), -1))
        contexts.append([kind.reshape(len(values), -1) * channels + place for kind in kinds])
        done.append(value)
        errors.append(error)
    return np.concatenate(symbols, 1), np.stack([np.concatenate(kind, 1) for kind in zip(*contexts, strict=True)])


def _regressed(here: list[Channel], around: list[Channel], target: Channel, fitted: int) -> Channel:
    """Least squares on the first `fitted` images, of values `here` and those `around`.

    The first rows and the first column have coefficients of their own: they miss neighbours.
    """
    result = np.empty_like(target)
    h, w = target.shape[1:]
    kind = np.minimum(np.arange(h), 2)[:, None] * 2 + (np.arange(w) > 0)
    for which in np.unique(kind):
        at = kind == which

        def features(first: int, last: int, at: np.ndarray = at) -> Float[np.ndarray, "values f"]:
            parts = [part[first:last][:, at] for part in here]
            parts += [_shifted(part[first:last], *by)[:, at] for part in around for by in AROUND]
            return np.stack([np.ones_like(target[first:last][:, at]), *parts], -1)

        moments, products = 1.0, 0.0
        for first in range(0, fitted, CHUNK):
            last = min(first + CHUNK, fitted)
            x = features(first, last).reshape(-1, 1 + len(here) + len(AROUND) * len(around)).astype(np.float64)
            moments = moments + x.T @ x
            products = products + x.T @ target[first:last][:, at].ravel()
        coefficients = np.linalg.lstsq(moments, products, rcond=None)[0]
        for first in range(0, len(target), CHUNK):
            result[first : first + CHUNK, at] = features(first, first + CHUNK) @ coefficients
    return result


def _shifted(channel: Channel, down: int, right: int) -> Channel:
    """A neighbour decoded before. Outside: above, 0; left, the first of the row above; right, the last of the row."""
    h, w = channel.shape[1:]
    padded = np.pad(channel, ((0, 0), (2, 0), (2, 2)))
    padded[:, 1:, :2] = padded[:, :-1, 2:3]
    padded[:, :, w + 2 :] = padded[:, :, w + 1 : w + 2]
    return padded[:, 2 + down : 2 + down + h, 2 + right : 2 + right + w]
