# SPDX-License-Identifier: Apache-2.0
"""Contexts for images of many levels: linear prediction, and how far it is expected to be off.

Channel after channel (the second, which is green, first), a value is predicted from its decoded neighbours and from
the same and neighbouring pixels in channels before; the symbol is what is missing, modulo the number of levels.
Coefficients are least squares on training images, as are those of the size of the error given the errors around.
"""

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

AROUND = ((0, -1), (-1, 0), (-1, -1), (-1, 1), (0, -2), (-2, 0), (-1, 2), (-2, 1))  # rows down, columns right
SIZES = 24  # classes of the expected size of the error
SIGNED = (-12, -6, -3, -1, 2, 4, 7, 13)  # edges of classes of an error
FITTED = 1000  # images, at most
CHUNK = 250  # images at a time

Channel = Float[np.ndarray, "n h w"]


def predicted_contexts(
    images: UInt8[np.ndarray, "n h w c"], levels: int, train: UInt8[np.ndarray, "m h w c"]
) -> tuple[Int[np.ndarray, "m+n d"], Int[np.ndarray, "k m+n d"]]:
    """Symbols and contexts of training images and images; d = h w c in the order of coding: by channel."""
    values = np.concatenate([train, images]).astype(np.float32)
    channels = values.shape[-1]
    fitted = min(len(train), FITTED)
    order = [1, 0, *range(2, channels)] if channels > 1 else [0]
    done: list[Channel] = []
    errors: list[Channel] = []
    symbols, contexts = [], []
    for place, channel in enumerate(order):
        value = values[..., channel]
        prediction = np.clip(_regressed(done, [value, *done], value, fitted), 0, levels - 1)
        rounded = np.rint(prediction)
        error = value - rounded
        sizes = [np.abs(e) for e in errors]
        size = _regressed(sizes, [np.abs(error), *sizes], np.minimum(np.abs(error), levels / 6), fitted)
        edges = np.quantile(size[: len(train)], np.linspace(0, 1, SIZES + 1)[1:-1])
        kinds = _kinds(np.digitize(size, edges), error, errors[-1] if errors else None, rounded * 32 // levels)
        symbols.append((error % levels).astype(np.int32).reshape(len(values), -1))
        contexts.append([kind.astype(np.int32).reshape(len(values), -1) * channels + place for kind in kinds])
        done.append(value)
        errors.append(error)
    return np.concatenate(symbols, 1), np.stack([np.concatenate(kind, 1) for kind in zip(*contexts, strict=True)])


def _kinds(
    size: Int[np.ndarray, "n h w"], error: Channel, before: Channel | None, level: Channel
) -> tuple[Int[np.ndarray, "n h w"], ...]:
    """Contexts: the expected size of the error, and with it the error in the channel before, those left and above, and
    the predicted level, 0 to 31."""
    signs = len(SIGNED) + 1
    left, above = (np.digitize(_shifted(error, *by), SIGNED) for by in ((0, -1), (-1, 0)))
    return (
        size,
        size // 2 * signs + (0 if before is None else np.digitize(before, SIGNED)),
        (left * signs + above) * 4 + size // 6,
        level.astype(int) * (SIZES // 4) + size // 4,
    )


def _regressed(here: list[Channel], around: list[Channel], target: Channel, fitted: int) -> Channel:
    """Least squares on the first `fitted` images, of values `here` and those `around`.

    The first rows and the first column have coefficients of their own: they miss neighbours.
    """
    result = np.empty_like(target)
    h, w = target.shape[1:]
    kind = np.minimum(np.arange(h), 2)[:, None] * 2 + (np.arange(w) > 0)
    for at in (kind == which for which in np.unique(kind)):
        moments, products = 0.0, 0.0
        for first in range(0, fitted, CHUNK):
            some = slice(first, min(first + CHUNK, fitted))
            x = _features(here, around, some, at).astype(np.float64)
            moments = moments + x @ x.T
            products = products + x @ target[some][:, at].ravel()
        coefficients = np.linalg.lstsq(moments, products, rcond=None)[0].astype(np.float32)
        for first in range(0, len(target), CHUNK):
            some = slice(first, first + CHUNK)
            result[some, at] = (coefficients @ _features(here, around, some, at)).reshape(-1, at.sum())
    return result


def _features(
    here: list[Channel], around: list[Channel], some: slice, at: Bool[np.ndarray, "h w"]
) -> Float[np.ndarray, "f values"]:
    """Returns 1, the values `here` and those `around`, for some positions of some images."""
    parts = [part[some] for part in here]
    parts += [_shifted(part[some], *by) for part in around for by in AROUND]
    ones = np.ones_like(around[0][some])
    return np.stack([part[:, at].ravel() for part in (ones, *parts)])


def _shifted(channel: Channel, down: int, right: int) -> Channel:
    """A neighbour decoded before. Outside: above, 0; left, the first of the row above; right, the last of the row."""
    h, w = channel.shape[1:]
    padded = np.pad(channel, ((0, 0), (2, 0), (2, 2)))
    padded[:, 1:, :2] = padded[:, :-1, 2:3]
    padded[:, :, w + 2 :] = padded[:, :, w + 1 : w + 2]
    return padded[:, 2 + down : 2 + down + h, 2 + right : 2 + right + w]
