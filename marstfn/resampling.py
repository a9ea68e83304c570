"""Images between their pixels: moved by a part of one, sharp and never out of what a mask hides; looked at aside."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from marstfn.bands import FINE, RATIO

Floats = NDArray[np.float32]

REACH = 3
"""Pixels to each side that the kernel takes besides the whole pixels of the shift."""
LEAST = 0.2
"""Least share of the bilinear weights that must lie on known pixels; under it a pixel keeps its own value."""


def moved(image: Floats, east: float, north: float, resolution: float) -> Floats:
    """(b, h, w) float32 with what is seen moved by `east`, `north` metres; pixels of `resolution` metres, NaN nothing.

    Lanczos windowed sinc of 6 pixels, its weights brought to a sum of 1. A pixel whose kernel meets an unknown one, or
    the end of the image, takes the bilinear mean of the known ones instead. Unknown pixels stay unknown: for shifts up
    to half a pixel the mask is its own nearest neighbour. Values do not depend on where the image was cut beyond the
    kernel. A shift of 0 returns the image as it is.
    """
    known = np.asarray(np.isfinite(image).all(axis=0))
    # what is wanted here lies the other way
    up, left = _taps(north / resolution), _taps(-east / resolution)
    filled = np.asarray(np.where(known, image, np.float32(0)))
    sharp = _along(_along(filled, up[0], -2), left[0], -1)
    whole = _along(_along(known, up[0], -2, every=True), left[0], -1, every=True)
    share = _along(_along(known.astype(np.float32), up[1], -2), left[1], -1)
    near = _along(_along(filled, up[1], -2), left[1], -1)
    enough = share >= np.float32(LEAST)
    soft = np.where(enough, near / np.where(enough, share, 1), filled)
    out = np.where(whole, sharp, soft)
    out[:, ~known] = np.nan
    return out


Taps = dict[int, float]


def _taps(offset: float) -> tuple[Taps, Taps]:
    """Weights by distance in pixels for a value `offset` pixels further on: sharp, and bilinear; zeros left out."""
    first = math.floor(offset)
    part = offset - first
    if part < 1e-9:
        return {first: 1.0}, {first: 1.0}
    raw = {first + k: float(np.sinc(part - k) * np.sinc((part - k) / REACH)) for k in range(1 - REACH, REACH + 1)}
    total = sum(raw.values())
    return {k: v / total for k, v in raw.items()}, {first: 1 - part, first + 1: part}


def _along(values: NDArray[Any], taps: Taps, axis: int, *, every: bool = False) -> NDArray[Any]:
    """Weighted sum of the pixels at the taps along an axis (`every`: whether all are true), 0 beyond the end."""
    length = values.shape[axis]
    width = max(map(abs, taps))
    pad = [(0, 0)] * values.ndim
    pad[axis] = (width, width)
    wide = np.moveaxis(np.pad(values, pad), axis, 0)
    # one product after another: the sum of a pixel is the same wherever the image begins
    out: NDArray[Any] | None = None
    for k, weight in taps.items():
        part = wide[width + k : width + k + length]
        if every:
            out = part.copy() if out is None else out & part
        else:
            out = part * np.float32(weight) if out is None else out + part * np.float32(weight)
    assert out is not None
    return np.moveaxis(out, 0, axis)


def looked(fine: Floats, pad: int, east: float, north: float, shape: tuple[int, int]) -> tuple[Floats, Floats]:
    """(b, h, w) of the 10 m image `fine`, `pad` px wider than 3h and 3w on every side, at the centres of 30 m pixels
    displaced against the shift (metres), and its slopes (2, b, h, w) towards east and north in 1/m; cubic convolution
    (Keys 1981)."""
    row, col = pad + 1 + north / FINE, pad + 1 - east / FINE
    (top, up), (left, right) = (divmod(v, 1.0) for v in (row, col))
    values, slopes = _cubic(up), _cubic_slope(up)
    taps = [fine[:, int(top) - 1 + k :][:, : RATIO * shape[0] : RATIO] for k in range(4)]
    tall, tilted = _mixed(taps, values), _mixed(taps, slopes)

    def across(rows: Floats, weights: Sequence[float]) -> Floats:
        parts = [rows[:, :, int(left) - 1 + k :][:, :, : RATIO * shape[1] : RATIO] for k in range(4)]
        return _mixed(parts, weights)

    value = across(tall, _cubic(right))
    return value, np.stack([across(tall, _cubic_slope(right)), -across(tilted, _cubic(right))]) / np.float32(FINE)


def _mixed(parts: Sequence[Floats], weights: Sequence[float]) -> Floats:
    return np.asarray(sum(np.float32(w) * p for w, p in zip(weights, parts, strict=True)), np.float32)


def _cubic(t: float) -> tuple[float, ...]:
    return (
        ((-0.5 * t + 1.0) * t - 0.5) * t,
        (1.5 * t - 2.5) * t * t + 1.0,
        ((-1.5 * t + 2.0) * t + 0.5) * t,
        (0.5 * t - 0.5) * t * t,
    )


def _cubic_slope(t: float) -> tuple[float, ...]:
    return (
        (-1.5 * t + 2.0) * t - 0.5,
        (4.5 * t - 5.0) * t,
        (-4.5 * t + 4.0) * t + 0.5,
        (1.5 * t - 1.0) * t,
    )
