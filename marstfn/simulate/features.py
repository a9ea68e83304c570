"""What breaks the fields: woods and trees, hedges and roads, villages, rivers and ponds."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from marstfn.simulate import spectra
from marstfn.simulate.hashing import F32, key, mixed, uniform
from marstfn.simulate.noise import F64, field, fractal, quantile
from marstfn.simulate.optics import CELL
from marstfn.simulate.parcels import Division
from marstfn.simulate.style import Style

_ROOF_ORDER = np.array([0, 0, 0, 1, 1, 2, 3, 3])
"""How often each kind of roof occurs."""


def woods(seed: int, x: F64, y: F64, style: Style) -> F32:
    """Share of woods, and of copses and single trees, a tenth as much, that stand in the open."""
    total = np.zeros((len(y), len(x)), np.float32)
    for name, scales, weights, share, sharpness in (
        ("woods", (1700.0, 520.0, 60.0), (1.0, 0.7, 0.25), style.woodland, 14.0),
        ("copses", (900.0, 60.0, 22.0), (0.5, 1.0, 0.8), 0.1 * style.woodland, 3.0),
    ):
        pattern = fractal(key(seed, name), x, y, scales, weights)
        edge = np.float32(quantile(weights, 1 - share))
        np.maximum(total, np.clip((pattern - edge) * np.float32(sharpness) + np.float32(0.5), 0, 1), out=total)
    return total


def edges(division: Division, seed: int, x: F64, y: F64, style: Style) -> tuple[F32, F32, F32]:
    """Shares of hedge, paved road and dirt track along the borders of blocks and parcels."""
    kind = uniform(mixed(division.border, 21))
    hedged = uniform(mixed(division.block, 22)) < style.hedges
    gaps = field(seed, x, y, 45.0) > -0.9
    hedge = np.where(hedged & gaps, _strip(division.to_edge, 4.0), np.float32(0))
    lined = (kind >= 0.55) & (kind < 0.8) & gaps
    hedge = np.maximum(hedge, np.where(lined, _strip(division.to_border, 7.0), np.float32(0)))
    paved = np.where(kind < 0.3, _strip(division.to_border, 4.0), np.float32(0))
    dirt = np.where((kind >= 0.3) & (kind < 0.8), _strip(division.to_border, 2.0), np.float32(0))
    return hedge, paved, dirt


class _Site(NamedTuple):
    name: np.uint32
    x: float
    y: float


def _sites(seed: int, x: F64, y: F64, spacing: float, chance: float, reach: float) -> list[_Site]:
    """Places on a jittered lattice that exist and lie within `reach` of the window, in the lattice's order."""
    columns = np.arange(int((x.min() - reach) // spacing) - 1, int((x.max() + reach) // spacing) + 2)
    rows = np.arange(int((y.min() - reach) // spacing) - 1, int((y.max() + reach) // spacing) + 2)
    names = mixed(seed, rows[:, None], columns[None, :])
    exists = uniform(mixed(names, 41)) < chance
    sx = (columns[None, :] + 0.2 + 0.6 * uniform(mixed(names, 44)).astype(np.float64)) * spacing
    sy = (rows[:, None] + 0.2 + 0.6 * uniform(mixed(names, 45)).astype(np.float64)) * spacing
    return [_Site(n, float(a), float(b)) for n, a, b in zip(names[exists], sx[exists], sy[exists], strict=True)]


def villages(seed: int, x: F64, y: F64, style: Style) -> tuple[NDArray[np.bool_], F32, F32, F32]:
    """Where villages and farmsteads stand, reflectance (6, h, w) and share of what is built, share of gardens."""
    shape = (len(y), len(x))
    rough = field(key(seed, "outskirts"), x, y, 110.0)
    inside = np.zeros(shape, bool)
    u, v, name = np.zeros(shape, np.float32), np.zeros(shape, np.float32), np.zeros(shape, np.uint32)
    for spacing, chance, small, large in (
        (2400.0, style.villages, 130.0, 420.0),
        (830.0, 0.6 * style.villages, 28.0, 60.0),
    ):
        for site in _sites(key(seed, "villages", int(spacing)), x, y, spacing, chance, 2 * large):
            rows = slice(*np.searchsorted(-y, (-site.y - 2 * large, -site.y + 2 * large)))
            columns = slice(*np.searchsorted(x, (site.x - 2 * large, site.x + 2 * large)))
            dx = (x[columns] - site.x).astype(np.float32)[None, :]
            dy = (y[rows] - site.y).astype(np.float32)[:, None]
            size = uniform(mixed(site.name, 42))
            radius = np.float32(small) + np.float32(large - small) * size * size
            outline = radius * (np.float32(1) + np.float32(0.22) * rough[rows, columns])
            # of two that overlap the first in the lattice's order has the ground
            here = (np.sqrt(dx * dx + dy * dy) < outline) & ~inside[rows, columns]
            t = 2 * uniform(mixed(site.name, 43)) - np.float32(1)
            cosine, sine = (1 - t * t) / (1 + t * t), 2 * t / (1 + t * t)
            np.copyto(u[rows, columns], cosine * dx + sine * dy, where=here)
            np.copyto(v[rows, columns], cosine * dy - sine * dx, where=here)
            np.copyto(name[rows, columns], site.name, where=here)
            inside[rows, columns] |= here
    fixed = np.zeros((6, *shape), np.float32)
    if not inside.any():
        zero = np.zeros(shape, np.float32)
        return inside, fixed, zero, zero
    plot_u, plot_v = np.floor(u / np.float32(24)), np.floor(v / np.float32(31))
    fu, fv = u - plot_u * np.float32(24), v - plot_v * np.float32(31)
    plot = mixed(name, plot_u.astype(np.int32), plot_v.astype(np.int32))
    street = ((plot_v.astype(np.int32) % 3 == 0) & (fv < 8)) | ((plot_u.astype(np.int32) % 6 == 0) & (fu < 7))
    house = (uniform(mixed(plot, 1)) < 0.72) & (fu > 4) & (fv > 9)
    house &= fu < np.float32(13) + np.float32(9) * uniform(mixed(plot, 2))
    house &= fv < np.float32(19) + np.float32(9) * uniform(mixed(plot, 3))
    roof = spectra.ROOFS[_ROOF_ORDER[(uniform(mixed(plot, 4)) * np.float32(len(_ROOF_ORDER))).astype(np.int32)]]
    tone = np.float32(0.55) + np.float32(0.95) * uniform(mixed(plot, 5))
    yard = uniform(mixed(plot, 6)) * np.float32(0.5)
    house &= ~street
    for b in range(6):
        fixed[b] = np.where(street | ~house, spectra.ASPHALT[b], roof[..., b] * tone)
    built = np.where(inside, np.where(street | house, np.float32(0.95), yard), np.float32(0))
    garden = np.where(inside, np.clip(np.float32(0.6) + rough, 0, 1), np.float32(0))
    return inside, fixed, np.asarray(built, np.float32), np.asarray(garden, np.float32)


def river(seed: int, x: F64, y: F64, style: Style) -> tuple[F32, F32]:
    """Shares of river and of the trees on its banks: the zero line of a smooth field is the river's course."""
    zero = np.zeros((len(y), len(x)), np.float32)
    if not style.water:
        return zero, zero
    name = key(seed, "river")
    here, east, north = (
        fractal(name, x + dx, y + dy, (6500.0, 900.0), (1.0, 0.10)) for dx, dy in ((0.0, 0.0), (5.0, 0.0), (0.0, 5.0))
    )
    slope = np.sqrt((east - here) * (east - here) + (north - here) * (north - here)) * np.float32(0.2)
    distance = np.abs(here) / np.maximum(slope, np.float32(2e-5))
    half = np.float32(6 + 500 * style.water) * (np.float32(1) + np.float32(0.2) * field(name + 1, x, y, 300.0))
    water = _strip(distance, half)
    banks = np.where(field(name + 2, x, y, 80.0) > 0.1, _strip(distance, half + np.float32(18)), np.float32(0))
    return water, np.asarray(banks, np.float32)


def ponds(seed: int, x: F64, y: F64, style: Style) -> F32:
    weights = (1.0, 0.35)
    pattern = fractal(key(seed, "ponds"), x, y, (340.0, 90.0), weights)
    edge = quantile(weights, 1 - 0.35 * style.water)
    return np.asarray(np.clip((pattern - np.float32(edge)) * np.float32(25) + np.float32(0.5), 0, 1))


def _strip(distance: F32, half: F32 | float) -> F32:
    """Share of a 5 m cell that a strip covers whose middle line lies `distance` away."""
    return np.asarray(np.clip((np.float32(half) - distance) / np.float32(CELL) + np.float32(0.5), 0, 1))
