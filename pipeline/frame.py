"""Where a tile's patches lie, and what is done to arrays that must fit them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from marstfn.bands import FINE, RATIO
from marstfn.patches import covering, starts
from pipeline.grid import CELL, Tile, Window
from pipeline.methods import patch_side
from pipeline.plan import Plan


@dataclass(frozen=True, slots=True)
class Frame:
    """Where a tile's patches lie: offsets on the whole plane, the window they cover, the tile inside it."""

    rows: tuple[int, ...]
    cols: tuple[int, ...]
    window: Window
    inside: tuple[slice, slice]
    """The tile in the window, 10 m pixels."""
    pad: tuple[int, int]
    """10 m pixels that mirror the plane's end where it is smaller than a patch."""


def frame_of(plan: Plan, tile: Tile) -> Frame:
    """Patches are anchored on the plane, not on the tile: tiles that share a patch compute the same values in it."""
    patch, per_cell = patch_side(plan), CELL // FINE
    offsets, spans, inside, pad = [], [], [], []
    for span, length in zip(tile.roi(FINE), plan.grid.shape(FINE), strict=True):
        every = starts(max(length, patch), patch, plan.options.stride)
        mine = covering(span.start, span.stop, every, patch)
        lo, hi = mine[0], min(mine[-1] + patch, length)
        offsets.append(tuple(s - lo for s in mine))
        spans.append((lo // per_cell, hi // per_cell))
        inside.append(slice(span.start - lo, span.stop - lo))
        pad.append(max(0, patch - length))
    covered = Window(tile.grid, *spans[0], *spans[1])
    return Frame(offsets[0], offsets[1], covered, (inside[0], inside[1]), (pad[0], pad[1]))


def enlarged(coarse: NDArray[Any]) -> NDArray[Any]:
    return np.repeat(np.repeat(coarse, RATIO, -2), RATIO, -1)


def mirrored(values: Any, pad: tuple[int, int], factor: float) -> Any:
    """`values` continued by its mirror image by `pad` 10 m pixels (`factor` of them make one of its own)."""
    if values is None:
        return None
    width = [(0, 0)] * (values.ndim - 2) + [(0, round(p / factor)) for p in pad]
    return np.pad(values, width, mode="symmetric")
