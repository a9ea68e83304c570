"""The land itself on a 5 m lattice: what covers each cell, and its reflectance on a day."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from marstfn.simulate import spectra
from marstfn.simulate.features import edges, ponds, river, villages, woods
from marstfn.simulate.hashing import F32, U32, key, mixed, normal, uniform
from marstfn.simulate.noise import F64, field, fractal
from marstfn.simulate.optics import CELL
from marstfn.simulate.parcels import Division, divided
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
    facing: F32
    """How strongly and which way brightness depends on the angle of view, around 0, unit variance among parcels."""


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
        return np.asarray((self.column + np.arange(self.width) + 0.5) * CELL, np.float64)

    @property
    def y(self) -> F64:
        """Metres of the rows' centres, southward."""
        return np.asarray((self.row - np.arange(self.height) - 0.5) * CELL, np.float64)


@lru_cache(maxsize=4)
def land(seed: int, style: Style, window: Window) -> Land:
    """Cover of `window`; a pure function of the arguments, kept for the calls that follow."""
    x, y = window.x, window.y
    division = divided(key(seed, "parcels"), x, y, style)
    one = np.float32(1)

    hedge, roads, dirt = edges(division, key(seed, "edges"), x, y, style)
    village, fixed, built, garden = villages(seed, x, y, style)
    stream, banks = river(seed, x, y, style)
    water = np.maximum(stream, ponds(seed, x, y, style))
    trees = np.maximum(np.maximum(woods(seed, x, y, style), hedge), banks)

    # shares, from what lies on top downward
    left = one - water
    built_share = built * left
    left = left - built_share
    road = np.where(village, np.float32(0), roads) * left
    left = left - road
    track = np.where(village, np.float32(0), dirt) * left
    left = left - track
    wooded = np.where(village, garden * np.float32(0.5), trees) * left
    left = left - wooded
    verge = np.clip((np.float32(4.0) - np.minimum(division.to_edge, division.to_border)) / np.float32(5), 0, 1)
    grass = np.where(village, one, verge * np.float32(0.7)) * left
    crop = left - grass
    surfaces = fixed * built_share
    for share, spectrum in ((road, spectra.ASPHALT), (track, spectra.TRACK)):
        surfaces += share * spectrum[:, None, None]

    parcels, index = np.unique(division.parcel, return_inverse=True)
    brightness = one + np.float32(0.32) * (np.float32(2) * uniform(mixed(parcels, 31)) - one)
    texture = np.float32(style.texture)
    patches = fractal(key(seed, "soil"), x, y, (260.0, 70.0, 18.0), (1.0, 0.9, 0.8))
    soil = brightness[index].reshape(patches.shape) * (one + np.float32(0.08) * texture * patches)
    vigour = fractal(key(seed, "vigour"), x, y, (180.0, 55.0, 14.0), (1.0, 0.9, 0.85)) - np.float32(0.25) * patches
    vigour += _tramlines(division)
    crown = one + np.float32(0.20) * texture * fractal(key(seed, "crowns"), x, y, (14.0, 45.0), (1.0, 0.6))
    conifer = np.clip(np.float32(0.5) + np.float32(1.6) * (field(key(seed, "conifer"), x, y, 700.0) - one), 0, 1)
    # crops stand in rows and tilled soil in ridges, each at its own angle; crowns vary from group to group
    facing = normal(mixed(parcels, 32))[index].reshape(crop.shape) * crop
    facing += wooded * field(key(seed, "facing"), x, y, 90.0)
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
        facing,
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


def _tramlines(division: Division) -> F32:
    """Wheel tracks every 21-36 m along the working direction, fainter than a cell can show sharply."""
    spacing = np.float32(21) + np.float32(15) * uniform(mixed(division.block, 51))
    turn = division.across / spacing
    near = np.abs(turn - np.floor(turn) - np.float32(0.5)) * spacing
    return np.asarray(np.float32(-1.6) * np.clip(np.float32(1) - near / np.float32(4), 0, 1))
