"""How land is divided: farm blocks (Voronoi cells), each cut into parcels along its own direction."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from marstfn.simulate.hashing import F32, U32, mixed, uniform
from marstfn.simulate.noise import F64, field
from marstfn.simulate.style import Style


@dataclass(frozen=True, slots=True)
class Division:
    """Land division on a lattice window, arrays (ny, nx)."""

    block: U32
    """Hash of the farm block."""
    border: U32
    """Hash of the border to the nearest neighbouring block, the same from both sides."""
    to_border: F32
    """Distance in metres to that border."""
    parcel: U32
    """Hash of the parcel."""
    to_edge: F32
    """Distance in metres to the nearest edge of the parcel within its block."""
    across: F32
    """Position in metres across the parcel's working direction."""


def divided(seed: int, x: F64, y: F64, style: Style) -> Division:
    """Blocks and parcels at columns `x` and rows `y` (metres)."""
    bend = np.float32(style.warp)
    wx = x[None, :] + bend * field(int(mixed(seed, 1)), x, y, 520.0).astype(np.float64)
    wy = y[:, None] + bend * field(int(mixed(seed, 2)), x, y, 520.0).astype(np.float64)
    near = nearest(int(mixed(seed, 3)), wx, wy, style.block, 0.42)
    to_border = near.margin
    block, other = near.site, near.second
    border = mixed(seed, np.minimum(block, other), np.maximum(block, other))

    # a rational point of the unit circle: direction of the block, no trigonometry
    t = 2 * uniform(mixed(block, 11)) - np.float32(1)
    cosine, sine = (1 - t * t) / (1 + t * t), 2 * t / (1 + t * t)
    u = cosine * near.dx + sine * near.dy
    v = -sine * near.dx + cosine * near.dy
    width = np.float32(style.parcel) * (np.float32(0.45) + np.float32(0.7) * uniform(mixed(block, 12)))
    strip, low, high = _cut(u, width, mixed(block, 13))
    length = np.float32(style.parcel) * (np.float32(1.0) + np.float32(2.2) * uniform(mixed(block, 14, strip)))
    piece, near_end, far_end = _cut(v, length, mixed(block, 15, strip))
    to_edge = np.minimum(np.minimum(low, high), np.minimum(near_end, far_end))
    return Division(block, border, to_border, mixed(block, strip, piece), to_edge, low)


@dataclass(frozen=True, slots=True)
class Nearest:
    """Nearest point of a jittered lattice: hash, offset from it, the second nearest, distance to the line between."""

    site: U32
    second: U32
    dx: F32
    dy: F32
    margin: F32


def nearest(seed: int, x: F64, y: F64, spacing: float, jitter: float) -> Nearest:
    """Voronoi cell of each point: sites on a lattice of `spacing` metres, moved by up to `jitter` spacings."""
    cx, cy = np.floor(x / spacing).astype(np.int64), np.floor(y / spacing).astype(np.int64)
    x_lo, y_lo = int(cx.min()) - 1, int(cy.min()) - 1
    nx, ny = int(cx.max()) - x_lo + 2, int(cy.max()) - y_lo + 2
    site = mixed(seed, np.arange(y_lo, y_lo + ny)[:, None], np.arange(x_lo, x_lo + nx)[None, :])
    # positions relative to the cell's own corner, in units of the spacing
    jx = (np.float32(2 * jitter) * (uniform(mixed(site, 1)) - np.float32(0.5)) + np.float32(0.5)).ravel()
    jy = (np.float32(2 * jitter) * (uniform(mixed(site, 2)) - np.float32(0.5)) + np.float32(0.5)).ravel()
    fx = (x / spacing - cx).astype(np.float32)
    fy = (y / spacing - cy).astype(np.float32)
    base = ((cy - y_lo) * nx + (cx - x_lo)).astype(np.int32)
    shape = base.shape
    best = np.full(shape, np.inf, np.float32)
    next_best = np.full(shape, np.inf, np.float32)
    bx, by, sx, sy = (np.zeros(shape, np.float32) for _ in range(4))
    bi, si = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
    for oy in (-1, 0, 1):
        for ox in (-1, 0, 1):
            at = base + np.int32(oy * nx + ox)
            dx = fx - jx[at] - np.float32(ox)
            dy = fy - jy[at] - np.float32(oy)
            d = dx * dx + dy * dy
            first = d < best
            other = ~first & (d < next_best)
            for held, new, old in ((next_best, d, best), (sx, dx, bx), (sy, dy, by), (si, at, bi)):
                np.copyto(held, old, where=first)
                np.copyto(held, new, where=other)
            for held, new in ((best, d), (bx, dx), (by, dy), (bi, at)):
                np.copyto(held, new, where=first)
    ex, ey = bx - sx, by - sy
    apart = np.sqrt(ex * ex + ey * ey)
    scale = np.float32(spacing)
    margin = (next_best - best) / (np.float32(2) * np.maximum(apart, np.float32(1e-6))) * scale
    flat = site.ravel()
    return Nearest(flat[bi], flat[si], bx * scale, by * scale, margin)


def _cut(at: F32, width: F32, hashed: U32) -> tuple[np.ndarray, F32, F32]:
    """Irregular intervals along a line: index of the one that holds `at`, distance to its lower and upper end."""
    jitter = np.float32(0.6)
    position = at / width
    k = np.floor(position).astype(np.int32)

    def start(index: np.ndarray) -> F32:
        return np.asarray(index + jitter * (uniform(mixed(hashed, index)) - np.float32(0.5)), np.float32)

    lower = start(k)
    k = k - (position < lower)
    k = k + (position >= start(k + 1))
    lower, upper = start(k), start(k + 1)
    return k, (position - lower) * width, (upper - position) * width
