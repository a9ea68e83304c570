"""The land itself on a 5 m lattice: what covers each cell, and its reflectance on a day."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from marstfn.simulate import spectra
from marstfn.simulate.hashing import F32, U32, key, mixed, uniform
from marstfn.simulate.noise import F64, field, fractal, quantile
from marstfn.simulate.optics import CELL
from marstfn.simulate.parcels import Division, divided, nearest
from marstfn.simulate.phenology import greenness_of_grass, leaves, moisture, snow_cover, states
from marstfn.simulate.style import Style


@dataclass(frozen=True, slots=True)
class Land:
    """What covers a lattice window (h, w): shares of each kind of surface and the patterns inside them."""

    parcels: U32
    """(n,) hashes of the parcels in the window."""
    index: NDArray[np.int32]
    """Row of `parcels` at each cell."""
    crop: F32
    tree: F32
    grass: F32
    water: F32
    fixed: F32
    """(6, h, w) reflectance of what does not change (roads, roofs), already weighted by its share."""
    conifer: F32
    crown: F32
    """Light and shade of the canopy, around 1."""
    soil: F32
    """Brightness of the soil, around 1."""
    vigour: F32
    """Pattern of growth inside parcels, around 0, unit variance."""


@dataclass(frozen=True, slots=True)
class Window:
    """A window of the lattice: upper-left corner in cells of 5 m (column eastward, row northward), height, width."""

    column: int
    row: int
    height: int
    width: int

    @property
    def x(self) -> F64:
        """Metres of the columns' centres."""
        return (self.column + np.arange(self.width) + 0.5) * CELL

    @property
    def y(self) -> F64:
        """Metres of the rows' centres, southward."""
        return (self.row - np.arange(self.height) - 0.5) * CELL


@lru_cache(maxsize=6)
def land(seed: int, style: Style, window: Window) -> Land:
    """Cover of `window`; a pure function of the arguments, kept for the calls that follow."""
    x, y = window.x, window.y
    division = divided(key(seed, "parcels"), x, y, style)
    one = np.float32(1)

    trees = _woods(seed, x, y, style)
    edges, roads, dirt = _edges(division, key(seed, "edges"), x, y, style)
    trees = np.maximum(trees, edges)
    village, fixed, built, garden = _villages(seed, x, y, style)
    river, banks = _river(seed, x, y, style)
    ponds = _ponds(seed, x, y, style)
    water = np.maximum(river, ponds)
    trees = np.maximum(trees, banks)

    # shares, from what lies on top downward
    left = one - water
    built_share = built * left
    left = left - built_share
    road = np.where(village, np.float32(0), roads) * left
    left = left - road
    track = np.where(village, np.float32(0), dirt) * left
    left = left - track
    wooded = np.where(village, garden * np.float32(0.35), trees) * left
    left = left - wooded
    verge = np.clip((np.float32(4.0) - np.minimum(division.to_edge, division.to_border)) / np.float32(5), 0, 1)
    grass = np.where(village, one, verge * np.float32(0.7)) * left
    crop = left - grass
    surfaces = fixed * built_share
    for share, spectrum in ((road, spectra.ASPHALT), (track, spectra.TRACK)):
        surfaces += share * spectrum[:, None, None]

    parcels, index = np.unique(division.parcel, return_inverse=True)
    brightness = one + np.float32(0.20) * (np.float32(2) * uniform(mixed(parcels, 31)) - one)
    texture = np.float32(style.texture)
    patches = fractal(key(seed, "soil"), x, y, (260.0, 70.0, 18.0), (1.0, 0.8, 0.5))
    soil = brightness[index].reshape(patches.shape) * (one + np.float32(0.09) * texture * patches)
    vigour = fractal(key(seed, "vigour"), x, y, (180.0, 55.0, 15.0), (1.0, 0.8, 0.55)) - np.float32(0.25) * patches
    vigour += _tramlines(division)
    crown = one + np.float32(0.16) * texture * fractal(key(seed, "crowns"), x, y, (12.0, 45.0), (1.0, 0.6))
    conifer = np.clip(np.float32(0.5) + np.float32(1.6) * (field(key(seed, "conifer"), x, y, 700.0) - one), 0, 1)
    return Land(
        parcels,
        index.reshape(crop.shape).astype(np.int32),
        crop,
        wooded,
        grass,
        water,
        np.asarray(surfaces, np.float32),
        np.asarray(conifer, np.float32),
        np.asarray(crown, np.float32),
        np.maximum(soil, np.float32(0.3)),
        vigour * texture,
    )


@lru_cache(maxsize=4)
def surface(seed: int, style: Style, window: Window, day: date) -> F32:
    """Reflectance (6, h, w) float32 of `window` on `day` at the Sentinel-2A band-passes, 0..1, read-only."""
    ground = land(seed, style, window)
    now = states(ground.parcels, day, style)
    at = ground.index
    one, zero = np.float32(1), np.float32(0)
    wet = np.float32(moisture(seed, day))
    turf = np.float32(greenness_of_grass(day, style))
    leaf, leaf_slope = (np.float32(v) for v in leaves(day, style))
    snow = np.float32(snow_cover(seed, day, style))

    # pixels run ahead of their parcel or behind it, and stand thicker or thinner than it
    green = now.green[at]
    ahead = ground.vigour * np.float32(3.0)
    thick = ground.vigour * np.float32(0.10)
    green = np.clip(
        green + now.growth[at] * ahead + green * (one - green) * thick * np.float32(2.2), zero, np.float32(0.97)
    )
    dry = np.minimum(now.dry[at] * (one - thick), one - green)
    # canopies darken with depth: full cover is a little less bright where growth is lush
    lush = ground.crop * green * (one - np.float32(0.35) * thick)
    straw = ground.crop * dry
    bare = ground.crop * (one - green - dry) * ground.soil * (one - np.float32(0.22) * now.tilled[at])
    in_leaf = np.clip(leaf + leaf_slope * ground.vigour * np.float32(2.0), zero, one)
    leafy = ground.tree * ground.crown
    needles = leafy * ground.conifer
    leafy = leafy - needles
    twigs = leafy * (one - in_leaf)
    leafy = leafy * in_leaf
    fresh = ground.grass * np.clip(turf + np.float32(0.06) * ground.vigour, zero, one)
    faded = ground.grass - fresh

    silt = np.float32(0.5) + np.float32(0.5) * wet
    out = np.empty((6, *at.shape), np.float32)
    for b in range(6):
        band = now.spectrum[b][at] * lush
        band += bare * (spectra.SOIL[b] * (one - spectra.WETNESS[b] * wet))
        for amount, spectrum in (
            (straw, spectra.STRAW),
            (leafy, spectra.BROADLEAF),
            (twigs, spectra.BROADLEAF_BARE),
            (needles, spectra.CONIFER),
            (fresh, spectra.GRASS),
            (faded, spectra.GRASS_DRY),
        ):
            band += amount * spectrum[b]
        band += ground.water * (spectra.WATER[b] + silt * spectra.SILT[b])
        band += ground.fixed[b]
        if snow:
            cover = snow * (one - np.float32(0.6) * ground.tree) * (one - ground.water)
            band += cover * (spectra.SNOW[b] - band)
        out[b] = band
    np.clip(out, 0.001, 0.98, out=out)
    out.flags.writeable = False
    return out


def _woods(seed: int, x: F64, y: F64, style: Style) -> F32:
    weights = (1.0, 0.7, 0.25)
    pattern = fractal(key(seed, "woods"), x, y, (1700.0, 520.0, 60.0), weights)
    edge = quantile(weights, 1 - style.woodland)
    return np.clip((pattern - np.float32(edge)) * np.float32(14) + np.float32(0.5), 0, 1)


def _edges(division: Division, seed: int, x: F64, y: F64, style: Style) -> tuple[F32, F32, F32]:
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


def _villages(seed: int, x: F64, y: F64, style: Style) -> tuple[NDArray[np.bool_], F32, F32, F32]:
    """Where villages and farmsteads stand, reflectance (6, h, w) and share of what is built, share of gardens."""
    shape = (len(y), len(x))
    wx = np.broadcast_to(x[None, :], shape)
    wy = np.broadcast_to(y[:, None], shape)
    rough = field(key(seed, "outskirts"), x, y, 110.0)
    inside = np.zeros(shape, bool)
    u, v, name = np.zeros(shape, np.float32), np.zeros(shape, np.float32), np.zeros(shape, np.uint32)
    for spacing, chance, small, large in (
        (2400.0, style.villages, 130.0, 420.0),
        (830.0, 0.3 * style.villages, 30.0, 55.0),
    ):
        near = nearest(key(seed, "villages", int(spacing)), wx, wy, spacing, 0.3)
        exists = uniform(mixed(near.site, 41)) < chance
        size = uniform(mixed(near.site, 42))
        radius = np.float32(small) + np.float32(large - small) * size * size
        distance = np.sqrt(near.dx * near.dx + near.dy * near.dy)
        here = exists & (distance < radius * (np.float32(1) + np.float32(0.22) * rough)) & ~inside
        t = 2 * uniform(mixed(near.site, 43)) - np.float32(1)
        cosine, sine = (1 - t * t) / (1 + t * t), 2 * t / (1 + t * t)
        np.copyto(u, cosine * near.dx + sine * near.dy, where=here)
        np.copyto(v, cosine * near.dy - sine * near.dx, where=here)
        np.copyto(name, near.site, where=here)
        inside |= here
    fixed = np.zeros((6, *shape), np.float32)
    if not inside.any():
        zero = np.zeros(shape, np.float32)
        return inside, fixed, zero, zero
    plot_u, plot_v = np.floor(u / np.float32(24)), np.floor(v / np.float32(31))
    fu, fv = u - plot_u * np.float32(24), v - plot_v * np.float32(31)
    plot = mixed(name, plot_u.astype(np.int32), plot_v.astype(np.int32))
    street = ((plot_v.astype(np.int32) % 3 == 0) & (fv < 8)) | ((plot_u.astype(np.int32) % 6 == 0) & (fu < 7))
    house = (uniform(mixed(plot, 1)) < 0.8) & (fu > 4) & (fv > 9)
    house &= fu < np.float32(13) + np.float32(9) * uniform(mixed(plot, 2))
    house &= fv < np.float32(19) + np.float32(9) * uniform(mixed(plot, 3))
    roof = spectra.ROOFS[np.minimum(uniform(mixed(plot, 4)) * np.float32(5), 3).astype(np.int32)]
    tone = np.float32(0.8) + np.float32(0.4) * uniform(mixed(plot, 5))
    yard = uniform(mixed(plot, 6)) * np.float32(0.5)
    house &= ~street
    for b in range(6):
        fixed[b] = np.where(street | ~house, spectra.ASPHALT[b], roof[..., b] * tone)
    built = np.where(inside, np.where(street | house, np.float32(0.95), yard), np.float32(0))
    garden = np.where(inside, np.clip(np.float32(0.6) + rough, 0, 1), np.float32(0))
    return inside, fixed, np.asarray(built, np.float32), np.asarray(garden, np.float32)


def _river(seed: int, x: F64, y: F64, style: Style) -> tuple[F32, F32]:
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


def _ponds(seed: int, x: F64, y: F64, style: Style) -> F32:
    weights = (1.0, 0.35)
    pattern = fractal(key(seed, "ponds"), x, y, (340.0, 90.0), weights)
    edge = quantile(weights, 1 - 0.35 * style.water)
    return np.clip((pattern - np.float32(edge)) * np.float32(25) + np.float32(0.5), 0, 1)


def _strip(distance: F32, half: F32 | float) -> F32:
    """Share of a 5 m cell that a strip covers whose middle line lies `distance` away."""
    return np.clip((np.float32(half) - distance) / np.float32(CELL) + np.float32(0.5), 0, 1)


def _tramlines(division: Division) -> F32:
    """Wheel tracks every 21-36 m along the working direction, fainter than a cell can show sharply."""
    spacing = np.float32(21) + np.float32(15) * uniform(mixed(division.block, 51))
    turn = division.across / spacing
    near = np.abs(turn - np.floor(turn) - np.float32(0.5)) * spacing
    return np.float32(-1.6) * np.clip(np.float32(1) - near / np.float32(4), 0, 1)
