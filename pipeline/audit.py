"""Whether the offset used for each date, and each item of a mosaic, is the right one, judged by what its pixels say.

Catalogues say of some Sentinel-2 items that an offset of 0.1 was applied when it was not, or the reverse. Such an item
stands 0.1 off everything around it, in all bands alike and over all its land; neither land nor cloud nor haze does
that. A Landsat date whose offset of -0.2 was left out, or applied twice, stands 0.2 off.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import numpy as np
import pystac
import rasterio.warp
import shapely
from numpy.typing import NDArray

from marstfn.bands import BANDS, FINE
from pipeline import cube
from pipeline.cube import CLEAR, FILL, SCALE
from pipeline.errors import CubeError
from pipeline.facts import footprint
from pipeline.grid import Tile
from pipeline.plan import FORMAT, Plan, Scene, SensorName, fingerprint
from pipeline.store import INPUTS, LEDGER, Store

Array = NDArray[np.float32]

NAME = f"{LEDGER}/audit.json"
TILES = 4
"""Tiles looked at, spread evenly."""
PIXELS = 400
"""Pixels of a tile, on an even lattice."""
LEAST = 40
"""Pixels that must be clear on a date and on what it is compared with."""
REACH = 40
"""Days within which another date says what to expect."""
NEAREST = 4
"""Dates compared with: their median at each pixel is what is expected."""
STEP = 0.1
"""BOA_ADD_OFFSET / 10000: by how much a wrong flag puts a Sentinel-2 item off."""
LANDSAT_STEP = 0.2
"""By how much a Landsat item is off without its offset."""
SLACK = 0.035
"""How far a date may stand from exactly STEP, and a band from the middle of the bands: seasons move the land."""
AGREEING = 4
"""Bands that must tell the same."""
EVEN, WIDTH = 0.7, 0.05
"""Share of the pixels that must stand off by STEP, give or take WIDTH: a cloud that the mask missed is uneven."""
BOUNDS = ("TILES", "PIXELS", "LEAST", "REACH", "NEAREST", "STEP", "SLACK", "AGREEING", "EVEN", "WIDTH", "LANDSAT_STEP")
"""What a verdict depends on."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one date, or one item of it, says of the offset that was used for it."""

    sentinel2: int
    """Index along the time axis of its own sensor."""
    label: str
    pixels: int
    """Compared; 0 where nothing could be compared."""
    shift: float | None
    """Middle over the bands of its median difference from what was expected, reflectance."""
    negative: float
    """Share of clear pixels with a negative reflectance in a visible band."""
    basis: str
    """What it was compared with: `landsat`, `sentinel2`, or nothing."""
    wrong: bool
    """Whether the offset is off by STEP, of Landsat by LANDSAT_STEP."""
    item: str = ""
    """Of which item of a mosaic; empty: of the whole date."""

    @property
    def text(self) -> str:
        if self.shift is None:
            return "not compared: too little was clear"
        found = f"{self.shift:+.3f} from {_BASES[self.basis]}"
        return f"offset wrong: {found}" if self.wrong else f"{found}"


_BASES = {"landsat": "Landsat", "sentinel2": "the Sentinel-2 dates around it", "own": "the Landsat dates around it"}
"""What a date was compared with, in words."""


@dataclass(frozen=True, slots=True)
class _Apart:
    """How far a date stands from what was expected of it."""

    bands: NDArray[np.float64]
    """Median difference by band."""
    even: float
    """Share of the pixels that stand off by STEP in the middle of their bands."""
    pixels: int
    step: float = STEP

    @property
    def middle(self) -> float:
        return float(np.median(self.bands))

    @property
    def wrong(self) -> bool:
        """Whether bands and pixels stand off together, and by STEP."""
        agreeing = int((np.abs(self.bands - self.middle) <= SLACK).sum())
        return abs(abs(self.middle) - self.step) <= SLACK and agreeing >= AGREEING and self.even >= EVEN


@dataclass(frozen=True, slots=True)
class Audit:
    """The verdicts on all dates of both sensors, in order, and on the items of Sentinel-2's mosaics."""

    fingerprint: str
    verdicts: tuple[Verdict, ...]
    """Of Sentinel-2's dates."""
    items: tuple[Verdict, ...] = ()
    """Of the items of those dates that have several."""
    landsat: tuple[Verdict, ...] = ()
    """Of Landsat's dates."""

    def warnings(self, plan: Plan) -> tuple[str, ...]:
        """What to tell the user: item, used and expected offset, remedy. Of a mosaic the item is named where it can be
        told."""
        told = {v.sentinel2 for v in self.items if v.wrong}
        dates = [v for v in self.verdicts if v.wrong and v.sentinel2 not in told]
        of: tuple[tuple[SensorName, Sequence[Verdict]], ...] = (
            ("sentinel2", [*dates, *(v for v in self.items if v.wrong)]),
            ("landsat8", [v for v in self.landsat if v.wrong]),
        )
        return tuple(
            _warning(v, plan.of(sensor)[v.sentinel2], plan, sensor)
            for sensor, found in of
            for v in sorted(found, key=lambda v: v.sentinel2)
        )

    @property
    def texts(self) -> dict[str, str]:
        """What there is to say of each date, by its label."""
        said = {v.label: v.text for v in (*self.verdicts, *self.landsat)}
        for verdict in self.items:
            if verdict.wrong:
                said[verdict.label] += f"; {verdict.item}: {verdict.text}"
        return said


def audit_fingerprint(plan: Plan, ingested: Sequence[str]) -> str:
    """Of everything that shapes the verdicts."""
    bounds = [globals()[name] for name in BOUNDS]
    return fingerprint({"format": FORMAT, "judged": "by item", "ingested": list(ingested), "bounds": bounds})


def looked_at(tiles: Sequence[Tile]) -> list[Tile]:
    """At most TILES of the tiles, evenly spread over their order."""
    if len(tiles) <= TILES:
        return list(tiles)
    return [tiles[round(i * (len(tiles) - 1) / (TILES - 1))] for i in range(TILES)]


def sample_tile(plan: Plan, store: Store, tile: Tile) -> tuple[NDArray[np.int16], NDArray[np.int16]]:
    """(dates, 6, pixels) of Sentinel-2 and of Landsat at the same places, as stored; FILL where not clear.

    A place is the middle 10 m pixel of a Landsat pixel.
    """
    rows, cols = tile.shape(cube.LANDSAT8.resolution)
    step = _step(tile)
    out = []
    for group in (cube.SENTINEL2, cube.LANDSAT8):
        scenes, inside = cube.group_scenes(plan, group), group.resolution == FINE
        roi = tile.roi(group.resolution)
        places = (slice(1, None, 3 * step),) * 2 if inside else (slice(0, None, step),) * 2
        found = np.full((len(scenes), len(BANDS), len(range(0, rows, step)) * len(range(0, cols, step))), FILL, "int16")
        for dates in cube.input_blocks(plan, group):
            clear = _read(store, f"{group.name}/clear", dates, roi, places) == CLEAR
            for band, name in enumerate(group.bands):
                values = _read(store, f"{group.name}/{name}", dates, roi, places)
                found[dates, band] = np.where(clear, values, FILL)
        out.append(found)
    return out[0], out[1]


def owners(plan: Plan, tile: Tile, items: Mapping[str, pystac.Item]) -> NDArray[np.int8]:
    """(Sentinel-2 dates, pixels) which item of its scene a sample of `sample_tile` comes from, by footprint; -1: none.

    Of items that lie over each other the first one in the scene gave the pixel, as in a mosaic.
    """
    scenes, step = plan.of("sentinel2"), _step(tile)
    box, (rows, cols) = tile.geobox(FINE), tile.shape(FINE)
    row, col = (a.ravel() for a in np.mgrid[1 : rows : 3 * step, 1 : cols : 3 * step])
    x, y = box.affine.c + box.affine.a * (col + 0.5), box.affine.f + box.affine.e * (row + 0.5)
    lon, lat = rasterio.warp.transform(str(box.crs), "EPSG:4326", x, y)
    out = np.full((len(scenes), row.size), -1, np.int8)
    for k, scene in enumerate(scenes):
        for index, name in enumerate(scene.items if len(scene.items) > 1 else ()):
            outline = footprint({"geometry": items[name].geometry}) if name in items else None
            if outline is not None:
                out[k, (out[k] < 0) & shapely.contains_xy(outline, lon, lat)] = index
    return out


def _step(tile: Tile) -> int:
    """Landsat pixels between two samples."""
    rows, cols = tile.shape(cube.LANDSAT8.resolution)
    return max(1, int(np.sqrt(rows * cols / PIXELS)))


def _read(store: Store, name: str, dates: slice, roi: Any, places: tuple[slice, slice]) -> NDArray[Any]:
    values = cube.values(cube.array(store, INPUTS, name), (dates, *roi))[(slice(None), *places)]
    return values.reshape(len(values), -1)


def judge(
    plan: Plan,
    samples: Sequence[tuple[NDArray[np.int16], NDArray[np.int16]]],
    identity: str,
    owned: Sequence[NDArray[np.int8]] = (),
) -> Audit:
    """The verdicts from the samples of all tiles; `owned`: whose each sample is (`owners`), tile by tile.

    Landsat is asked first: its scale is the same for every item and every year; a date that stands 0.2 off the Landsat
    dates around it is not asked. Where Landsat saw nothing near a date, the
    Sentinel-2 dates around it are, first of all those that Landsat has confirmed. Landsat is held against the
    Sentinel-2 dates that are not off, else against its own.
    """
    sentinel2, landsat = (_joined([s[k] for s in samples], len(plan.of(n))) for k, n in enumerate(SENSORS))
    when, other = ([s.time for s in plan.of(sensor)] for sensor in SENSORS)
    labels = [s.label for s in plan.of("sentinel2")]
    # the mean of a good and a Landsat date that is 0.2 off would accuse Sentinel-2 of its 0.1
    own = [_compared(k, other, landsat[k], other, landsat, _but(k, other), LANDSAT_STEP) for k in range(len(other))]
    trusted = [k for k, found in enumerate(own) if found is None or not found.wrong]
    first = [_compared(k, when, sentinel2[k], other, landsat, trusted) for k in range(len(when))]
    sound = {k for k, found in enumerate(first) if found is not None and not found.wrong}

    def compared(k: int, values: Array, by_landsat: _Apart | None) -> tuple[_Apart | None, str]:
        if by_landsat is not None:
            return by_landsat, "landsat"
        found = _compared(k, when, values, when, sentinel2, sorted(sound - {k}))
        if found is None:
            # a date that Landsat has found wrong says nothing of others
            rest = [j for j in _but(k, when) if first[j] is None]
            found = _compared(k, when, values, when, sentinel2, rest)
        return found, "sentinel2"

    def verdict(k: int, values: NDArray[np.float32], found: _Apart | None, basis: str, item: str = "") -> Verdict:
        seen = np.isfinite(values[0])
        dark = round(float((values[:3, seen] < 0).any(axis=0).mean()), 4) if seen.any() else 0.0
        if found is None:
            return Verdict(k, labels[k], 0, None, dark, "", False, item)
        return Verdict(k, labels[k], found.pixels, round(found.middle, 4), dark, basis, found.wrong, item)

    verdicts = [verdict(k, sentinel2[k], *compared(k, sentinel2[k], first[k])) for k in range(len(when))]
    whose = np.concatenate(owned, axis=1) if owned else np.full((len(when), sentinel2.shape[2]), -1, np.int8)
    parts = []
    for k, scene in enumerate(plan.of("sentinel2")):
        for index, item in enumerate(scene.items if (whose[k] >= 0).any() else ()):
            values = np.where(whose[k] == index, sentinel2[k], np.float32(np.nan))
            by_landsat = _compared(k, when, values, other, landsat, trusted)
            parts.append(verdict(k, values, *compared(k, values, by_landsat), item))
    known = [k for k, v in enumerate(verdicts) if not v.wrong]
    return Audit(identity, tuple(verdicts), tuple(parts), _landsat(plan, landsat, sentinel2, known, own))


def _landsat(
    plan: Plan, landsat: Array, sentinel2: Array, known: Sequence[int], own: Sequence[_Apart | None]
) -> tuple[Verdict, ...]:
    """The verdicts on Landsat's dates; `known`: the Sentinel-2 dates that are not off, `own`: each held against the
    other Landsat dates."""
    when, other = [s.time for s in plan.of("landsat8")], [s.time for s in plan.of("sentinel2")]
    out = []
    for k, scene in enumerate(plan.of("landsat8")):
        found, basis = _compared(k, when, landsat[k], other, sentinel2, known, LANDSAT_STEP), "sentinel2"
        if found is None:
            found, basis = own[k], "own"
        seen = np.isfinite(landsat[k, 0])
        dark = round(float((landsat[k][:3, seen] < 0).any(axis=0).mean()), 4) if seen.any() else 0.0
        if found is None:
            out.append(Verdict(k, scene.label, 0, None, dark, "", False))
        else:
            shift = round(found.middle, 4)
            out.append(Verdict(k, scene.label, found.pixels, shift, dark, basis, found.wrong))
    return tuple(out)


def _but(k: int, when: Sequence[datetime]) -> list[int]:
    return [j for j in range(len(when)) if j != k]


SENSORS: tuple[SensorName, SensorName] = ("sentinel2", "landsat8")


def _joined(parts: Sequence[NDArray[np.int16]], dates: int) -> Array:
    if not parts:
        return np.full((dates, len(BANDS), 0), np.nan, np.float32)
    stored = np.concatenate(parts, axis=2)
    return np.where(stored == FILL, np.nan, stored * SCALE).astype(np.float32)


def _compared(
    k: int,
    when: Sequence[datetime],
    values: Array,
    other: Sequence[datetime],
    expected: Array,
    candidates: Sequence[int] | range,
    step: float = STEP,
) -> _Apart | None:
    """`values` (6, pixels) of date `k` and the median of the nearest candidates at each pixel; None where too few are
    clear in both."""
    away = {j: abs((other[j] - when[k]).total_seconds()) / 86400 for j in candidates}
    near = sorted((j for j, days in away.items() if days <= REACH), key=lambda j: away[j])
    known = np.isfinite(values).all(0)
    # by pixel the nearest clear dates, at most NEAREST of them
    stack = np.full((NEAREST, *values.shape), np.nan, np.float32)
    filled = np.zeros(values.shape[1], int)
    for j in near:
        take = np.nonzero(known & (filled < NEAREST) & np.isfinite(expected[j]).all(0))[0]
        stack[filled[take], :, take] = expected[j][:, take].T
        filled[take] += 1
        if (filled[known] == NEAREST).all():
            break
    both = known & (filled > 0)
    if both.sum() < LEAST:
        return None
    difference = values[:, both] - np.nanmedian(stack[:, :, both], axis=0)
    bands = np.median(difference, axis=1).astype(np.float64)
    # of the sign in which the date stands off as a whole
    off = np.median(difference, axis=0) * np.sign(np.median(bands))
    return _Apart(bands, float((np.abs(off - step) <= WIDTH).mean()), int(both.sum()), step)


def _warning(verdict: Verdict, scene: Scene, plan: Plan, sensor: SensorName) -> str:
    items = (verdict.item,) if verdict.item else scene.items
    used, step = plan.radiometry[items[0]], STEP if sensor == "sentinel2" else LANDSAT_STEP
    assert verdict.shift is not None
    expected = used.offset - step if verdict.shift > 0 else used.offset + step
    way = "bright" if verdict.shift > 0 else "dark"
    names = items[0] if len(items) == 1 else f"one or more of {', '.join(items)}"
    remedy = " ".join(f"--radiometry {i}={plan.radiometry[i].scale:g},{round(expected, 6):g}" for i in items)
    return (
        f"{scene.label}: item {names} is about {step:g} too {way} in all bands: offset {used.offset:g} was used "
        f"({used.rule}), {round(expected, 6):g} is expected; {verdict.shift:+.3f} from {_BASES[verdict.basis]} over "
        f"{verdict.pixels} pixels, {100 * verdict.negative:.0f} % of them negative. It was used as it is, and spoils "
        f"what is fused with it. Look at the date, then run into another --store with {remedy}"
    )


def write(store: Store, found: Audit) -> None:
    """Keep the verdicts in the ledger."""
    store.write(NAME, json.dumps(asdict(found), sort_keys=True, allow_nan=False).encode())


def read(store: Store) -> Audit | None:
    """The verdicts of an earlier run, or None. Raises CubeError where they cannot be understood."""
    data = store.read(NAME)
    if data is None:
        return None
    try:
        raw: dict[str, Any] = json.loads(data)
        parts = (tuple(Verdict(**v) for v in raw.get(name, ())) for name in ("verdicts", "items", "landsat"))
        return Audit(raw["fingerprint"], *parts)
    except (ValueError, TypeError, KeyError) as error:
        raise CubeError(f"{store.join(NAME)} cannot be read ({error}); delete it and it is made again") from error
