"""Whether the offset used for each Sentinel-2 date is the right one, judged by what its pixels say.

Catalogues say of some items that an offset of 0.1 was applied when it was not, or the reverse. Such a date stands 0.1
off everything around it, in all bands alike and over all the land; neither land nor cloud nor haze does that.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from marstfn.bands import BANDS, FINE
from pipeline import cube
from pipeline.cube import CLEAR, FILL, SCALE
from pipeline.errors import CubeError
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
"""BOA_ADD_OFFSET / 10000: by how much a wrong flag puts a date off."""
SLACK = 0.035
"""How far a date may stand from exactly STEP, and a band from the middle of the bands: seasons move the land."""
AGREEING = 4
"""Bands that must tell the same."""
EVEN, WIDTH = 0.7, 0.05
"""Share of the pixels that must stand off by STEP, give or take WIDTH: a cloud that the mask missed is uneven."""
BOUNDS = ("TILES", "PIXELS", "LEAST", "REACH", "NEAREST", "STEP", "SLACK", "AGREEING", "EVEN", "WIDTH")
"""What a verdict depends on."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one Sentinel-2 date says of the offset that was used for it."""

    sentinel2: int
    """Index along Sentinel-2's own time axis."""
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
    """Whether the offset is off by STEP."""

    @property
    def text(self) -> str:
        if self.shift is None:
            return "not compared: too little was clear"
        found = f"{self.shift:+.3f} from {'Landsat' if self.basis == 'landsat' else 'the dates around it'}"
        return f"offset wrong: {found}" if self.wrong else f"{found}"


@dataclass(frozen=True, slots=True)
class _Apart:
    """How far a date stands from what was expected of it."""

    bands: NDArray[np.float64]
    """Median difference by band."""
    even: float
    """Share of the pixels that stand off by STEP in the middle of their bands."""
    pixels: int

    @property
    def middle(self) -> float:
        return float(np.median(self.bands))

    @property
    def wrong(self) -> bool:
        """Whether bands and pixels stand off together, and by STEP."""
        agreeing = int((np.abs(self.bands - self.middle) <= SLACK).sum())
        return abs(abs(self.middle) - STEP) <= SLACK and agreeing >= AGREEING and self.even >= EVEN


@dataclass(frozen=True, slots=True)
class Audit:
    """The verdicts on all Sentinel-2 dates, in order."""

    fingerprint: str
    verdicts: tuple[Verdict, ...]

    def warnings(self, plan: Plan) -> tuple[str, ...]:
        """What to tell the user: item, used and expected offset, remedy."""
        scenes = plan.of("sentinel2")
        return tuple(_warning(v, scenes[v.sentinel2], plan) for v in self.verdicts if v.wrong)


def audit_fingerprint(plan: Plan, ingested: Sequence[str]) -> str:
    """Of everything that shapes the verdicts."""
    return fingerprint({"format": FORMAT, "ingested": list(ingested), "bounds": [globals()[n] for n in BOUNDS]})


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
    step = max(1, int(np.sqrt(rows * cols / PIXELS)))
    out = []
    for group in (cube.SENTINEL2, cube.LANDSAT8):
        scenes, inside = cube.group_scenes(plan, group), group.resolution == FINE
        roi = tile.roi(group.resolution)
        places = (slice(1, None, 3 * step),) * 2 if inside else (slice(0, None, step),) * 2
        found = np.full((len(scenes), len(BANDS), len(range(0, rows, step)) * len(range(0, cols, step))), FILL, "int16")
        for dates in cube.blocks(len(scenes), plan.options.time_shard):
            clear = _read(store, f"{group.name}/clear", dates, roi, places) == CLEAR
            for band, name in enumerate(group.bands):
                values = _read(store, f"{group.name}/{name}", dates, roi, places)
                found[dates, band] = np.where(clear, values, FILL)
        out.append(found)
    return out[0], out[1]


def _read(store: Store, name: str, dates: slice, roi: Any, places: tuple[slice, slice]) -> NDArray[Any]:
    values = np.asarray(cube.array(store, INPUTS, name)[(dates, *roi)])[(slice(None), *places)]
    return values.reshape(len(values), -1)


def judge(plan: Plan, samples: Sequence[tuple[NDArray[np.int16], NDArray[np.int16]]], identity: str) -> Audit:
    """The verdicts from the samples of all tiles.

    Landsat is asked first: its scale is the same for every item and every year. Where it saw nothing near a date, the
    Sentinel-2 dates around it are, first of all those that Landsat has confirmed.
    """
    sentinel2, landsat = (_joined([s[k] for s in samples], len(plan.of(n))) for k, n in enumerate(SENSORS))
    when, other = ([s.time for s in plan.of(sensor)] for sensor in SENSORS)
    labels = [s.label for s in plan.of("sentinel2")]
    first = [_compared(k, when, sentinel2, other, landsat, range(len(other))) for k in range(len(when))]
    sound = {k for k, found in enumerate(first) if found is not None and not found.wrong}
    verdicts = []
    for k, found in enumerate(first):
        basis = "landsat"
        if found is None:
            basis = "sentinel2"
            found = _compared(k, when, sentinel2, when, sentinel2, sorted(sound - {k}))
        if found is None:
            # a date that Landsat has found wrong says nothing of others
            rest = [j for j in range(len(when)) if j != k and first[j] is None]
            found = _compared(k, when, sentinel2, when, sentinel2, rest)
        visible = sentinel2[k, :3]
        seen = np.isfinite(visible[0])
        dark = round(float((visible[:, seen] < 0).any(axis=0).mean()), 4) if seen.any() else 0.0
        if found is None:
            verdicts.append(Verdict(k, labels[k], 0, None, dark, "", False))
            continue
        verdicts.append(Verdict(k, labels[k], found.pixels, round(found.middle, 4), dark, basis, found.wrong))
    return Audit(identity, tuple(verdicts))


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
) -> _Apart | None:
    """Date `k` and the median of the nearest candidates at each pixel; None where too few are clear in both."""
    away = {j: abs((other[j] - when[k]).total_seconds()) / 86400 for j in candidates}
    near = sorted((j for j, days in away.items() if days <= REACH), key=lambda j: away[j])
    known = np.isfinite(values[k]).all(0)
    # by pixel the nearest clear dates, at most NEAREST of them
    stack = np.full((NEAREST, *values.shape[1:]), np.nan, np.float32)
    filled = np.zeros(values.shape[2], int)
    for j in near:
        take = np.nonzero(known & (filled < NEAREST) & np.isfinite(expected[j]).all(0))[0]
        stack[filled[take], :, take] = expected[j][:, take].T
        filled[take] += 1
        if (filled[known] == NEAREST).all():
            break
    both = known & (filled > 0)
    if both.sum() < LEAST:
        return None
    difference = values[k][:, both] - np.nanmedian(stack[:, :, both], axis=0)
    bands = np.median(difference, axis=1).astype(np.float64)
    # of the sign in which the date stands off as a whole
    off = np.median(difference, axis=0) * np.sign(np.median(bands))
    return _Apart(bands, float((np.abs(off - STEP) <= WIDTH).mean()), int(both.sum()))


def _warning(verdict: Verdict, scene: Scene, plan: Plan) -> str:
    used = plan.radiometry[scene.items[0]]
    assert verdict.shift is not None
    expected = used.offset - STEP if verdict.shift > 0 else used.offset + STEP
    way = "bright" if verdict.shift > 0 else "dark"
    names = scene.items[0] if len(scene.items) == 1 else f"one or more of {', '.join(scene.items)}"
    against = "Landsat" if verdict.basis == "landsat" else "the Sentinel-2 dates around it"
    remedy = " ".join(f"--radiometry {i}={plan.radiometry[i].scale:g},{round(expected, 6):g}" for i in scene.items)
    return (
        f"{scene.label}: item {names} is about {STEP:g} too {way} in all bands: offset {used.offset:g} was used "
        f"({used.rule}), {round(expected, 6):g} is expected; {verdict.shift:+.3f} from {against} over {verdict.pixels} "
        f"pixels, {100 * verdict.negative:.0f} % of them negative. It was used as it is, and spoils what is fused with "
        f"it. Look at the date, then run into another --store with {remedy}"
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
        return Audit(raw["fingerprint"], tuple(Verdict(**v) for v in raw["verdicts"]))
    except (ValueError, TypeError, KeyError) as error:
        raise CubeError(f"{store.join(NAME)} cannot be read ({error}); delete it and it is made again") from error
