"""Landsat into the cube's one radiometric frame: band-pass first, then a bounded check against clear Sentinel-2."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from marstfn.bands import BANDS, RATIO
from pipeline import cube
from pipeline.days import Days
from pipeline.errors import CubeError
from pipeline.grid import Tile
from pipeline.pairing import day_gap
from pipeline.plan import FORMAT, Plan, fingerprint
from pipeline.sensors import to_msi
from pipeline.store import LEDGER, Store

Array = NDArray[np.float32]

NAME = f"{LEDGER}/harmonise.json"
GAIN = (0.85, 1.15)
"""A fitted gain outside is no calibration error: the land changed, or a cloud was missed."""
OFFSET = 0.03
"""Largest offset, in reflectance."""
LEAST_PIXELS = 150
"""Fewer tell nothing: 150 are an area of 400 m by 400 m."""
LEAST_CORRELATION = 0.7
BOTH_SIDES = 16
"""Days on either side within which clear Sentinel-2 before and after is interpolated to the Landsat date."""
ONE_SIDE = 2
"""Days within which Sentinel-2 on one side only may stand for the Landsat date."""
TILES = 12
"""Tiles sampled, spread evenly: bounds the work whatever the area."""
SAMPLE = 6000
"""Pixels sampled per Landsat date over all tiles."""
TRIM = 2.5
"""Robust standard deviations beyond which a pixel has changed rather than been miscalibrated."""
ROUNDS = 6
YEAR_SPREAD = (0.05, 0.02)
"""How far sensor, processing and band-pass may stand off all year: standard deviation of gain and of reflectance."""
SCENE_SPREAD = (0.02, 0.004)
"""How far one date stands off the others: atmosphere, angles."""
DRIFT = (0.006, 0.0012)
"""Change of the land, per square root of the days between Landsat and Sentinel-2, at the least."""
OTHER_SPREAD = (0.02, 0.003)
"""How far one Sentinel-2 date stands off the others: it is no more perfect than Landsat."""


@dataclass(frozen=True, slots=True)
class Fit:
    """One band of one Landsat date: Sentinel-2 = gain * Landsat + offset is what is applied."""

    gain: float
    offset: float
    source: Literal["scene", "year", "none"]
    """What it comes from: the date's own fit drawn towards the year's, the year's alone, or nothing (gain 1)."""
    reason: str
    """Why the date's own fit was refused; empty if it was not."""
    own_gain: float = 1.0
    own_offset: float = 0.0
    """The date's own fit, as it came."""
    correlation: float = 0.0
    pixels: int = 0
    before: float = 0.0
    """Robust spread of Sentinel-2 minus Landsat about 0, reflectance."""
    after: float = 0.0
    """The same after what is applied."""

    @property
    def applied(self) -> bool:
        return self.source != "none"


@dataclass(frozen=True, slots=True)
class SceneFit:
    """The fits of one Landsat date, in the order of BANDS."""

    landsat: int
    """Index along Landsat's own time axis."""
    label: str
    bands: tuple[Fit, ...]


@dataclass(frozen=True, slots=True)
class Harmonisation:
    """What is done to each Landsat date before any method sees it."""

    fingerprint: str
    bandpass: bool
    scenes: tuple[SceneFit, ...]

    def apply(self, landsat: Array, index: int) -> Array:
        """(6, h, w) OLI reflectance of the Landsat date `index` in the cube's frame; NaN kept."""
        out = to_msi(landsat) if self.bandpass else np.array(landsat, np.float32)
        if self.scenes:
            for band, fit in enumerate(self.scenes[index].bands):
                out[band] = out[band] * np.float32(fit.gain) + np.float32(fit.offset)
        return out


def harmonise_fingerprint(plan: Plan, ingested: Sequence[str]) -> str:
    """Of everything that shapes the fits: inputs of all tiles, the options, and this module's bounds."""
    options = plan.options
    return fingerprint(
        {
            "format": FORMAT,
            "ingested": list(ingested),
            "options": [options.bandpass, options.scene_check, options.min_reference_days, options.max_reference_days],
            "bounds": [GAIN, OFFSET, LEAST_PIXELS, LEAST_CORRELATION, BOTH_SIDES, ONE_SIDE, TRIM, ROUNDS],
            "sample": [TILES, SAMPLE],
            "spreads": [YEAR_SPREAD, SCENE_SPREAD, DRIFT, OTHER_SPREAD],
        }
    )


def sampled(tiles: Sequence[Tile]) -> list[Tile]:
    """At most TILES of the tiles, evenly spread over their order."""
    if len(tiles) <= TILES:
        return list(tiles)
    return [tiles[round(i * (len(tiles) - 1) / (TILES - 1))] for i in range(TILES)]


def sample_tile(plan: Plan, store: Store, tile: Tile, count: int) -> dict[int, Array]:
    """By Landsat index (n, 4, 6), n <= count: Landsat at the cube's band-pass, Sentinel-2 at 30 m of the nearest clear
    day before and after, and how far (days, after is negative) each lies, as (days before, days after, 0, ...).

    Where one side is missing its values are NaN and its days infinite.
    """
    landsat8 = Days(store, cube.LANDSAT8, tile, len(plan.of("landsat8")), 1)
    sentinel2 = Days(store, cube.SENTINEL2, tile, len(plan.of("sentinel2")), 3)

    # neighbouring Landsat dates lean on the same Sentinel-2 days
    @lru_cache(maxsize=2 * BOTH_SIDES)
    def coarse(day: int) -> Array:
        seen = sentinel2.seen(day)
        if not seen.any():
            return np.full((len(BANDS), *tile.shape(30)), np.nan, np.float32)
        values = sentinel2.reflectance(day)
        values[:, ~seen] = np.nan
        bands, h, w = values.shape
        return smooth(values.reshape(bands, h // RATIO, RATIO, w // RATIO, RATIO).mean((2, 4), dtype=np.float32))

    out = {}
    reachable = _reachable(plan)
    for index, gaps in enumerate(reachable):
        known = landsat8.seen(index)
        if not known.any() or not gaps:
            continue
        own = landsat8.reflectance(index)
        own[:, ~known] = np.nan
        own = smooth(to_msi(own) if plan.options.bandpass else own)
        known = np.asarray(np.isfinite(own).all(axis=0))
        (before, a), (after, b) = (_nearest(coarse, side, known) for side in _sides(gaps))
        rows, cols = np.nonzero(known & (np.isfinite(a) & np.isfinite(b) | (np.minimum(a, b) <= ONE_SIDE)))
        if not len(rows):
            continue
        picked = np.unique(np.linspace(0, len(rows) - 1, min(count, len(rows))).round().astype(int))
        rows, cols = rows[picked], cols[picked]
        days = np.zeros((len(BANDS), len(rows)), np.float32)
        days[0], days[1] = a[rows, cols], b[rows, cols]
        values = [layer[:, rows, cols] for layer in (own, before, after)]
        out[index] = np.stack([*values, days]).transpose(2, 0, 1)
    return out


def smooth(values: Array) -> Array:
    """Mean of 3 x 3 pixels, NaN where one is: at 90 m the sensors' different sharpness and a shift of some metres no
    longer look like a gain."""
    out = np.full_like(values, np.nan)
    h, w = values.shape[1:]
    total = sum(values[:, i : h - 2 + i, j : w - 2 + j] for i in range(3) for j in range(3))
    out[:, 1:-1, 1:-1] = total / np.float32(9)
    return out


def fit_scenes(plan: Plan, samples: Sequence[dict[int, Array]], identity: str) -> Harmonisation:
    """The fits of all Landsat dates from the samples of all tiles, in the order of the tiles.

    Between two dates the land changes more than a sensor errs, so a date's own fit is trusted as far as the land stood
    still (which the two Sentinel-2 days tell) and is otherwise drawn towards the mean of the year, in which changes
    cancel; the year's mean in turn is drawn towards no correction. Gaussian shrinkage with the spreads above.
    """
    if not plan.options.scene_check:
        return Harmonisation(identity, plan.options.bandpass, ())
    empty = np.empty((0, 4, len(BANDS)), np.float32)
    labels = [scene.label for scene in plan.of("landsat8")]
    data = [np.concatenate([s[i] for s in samples if i in s] or [empty]) for i in range(len(labels))]
    columns = []
    for band in range(len(BANDS)):
        own = [_own(part, band) for part in data]
        columns.append([_drawn(o, part, band, *_year(own)) for o, part in zip(own, data, strict=True)])
    scenes = tuple(
        SceneFit(i, label, tuple(column[i] for column in columns)) for i, label in enumerate(labels)
    )
    return Harmonisation(identity, plan.options.bandpass, scenes)


@dataclass(frozen=True, slots=True)
class Line:
    """y = gain * x + offset of one band, with what speaks for it."""

    gain: float
    offset: float
    correlation: float
    pixels: int
    at: float
    """Median of x: where the line is best known."""
    kept: NDArray[np.bool_]
    chance: tuple[float, float] = (0.0, 0.0)
    """Variance of gain and shift by the number of pixels alone."""

    @property
    def shift(self) -> float:
        """y - x at the median of x."""
        return (self.gain - 1) * self.at + self.offset


def line(x: NDArray[np.float64], y: NDArray[np.float64]) -> Line:
    """Robust line through (x, y), reflectance.

    Reduced major axis (ratio of the spreads), for noise sits on both sides and least squares of one on the other would
    flatten the gain; pixels that changed are trimmed by their distance from the line, round by round.
    """
    keep = np.ones(len(x), bool)
    gain, offset = 1.0, float(np.median(y - x)) if len(x) else 0.0
    for _ in range(ROUNDS):
        residual = y - (gain * x + offset)
        keep = np.abs(residual - np.median(residual[keep])) <= TRIM * max(_spread(residual[keep]), 1e-5)
        if keep.sum() < 3 or min(x[keep].std(), y[keep].std()) < 1e-6:
            return Line(gain, offset, 0.0, int(keep.sum()), float(np.median(x)), keep)
        gain = float(y[keep].std() / x[keep].std())
        offset = float(y[keep].mean() - gain * x[keep].mean())
    correlation = float(np.corrcoef(x[keep], y[keep])[0, 1])
    count = int(keep.sum())
    chance = gain**2 * (1 - correlation**2) / count, float((y - gain * x)[keep].var()) / count
    return Line(gain, offset, correlation, count, float(np.median(x[keep])), keep, chance)


@dataclass(frozen=True, slots=True)
class _Own:
    """A date's own fit, why it is refused if it is, and the variance that the land's change adds (gain, shift)."""

    line: Line | None
    reason: str
    change: tuple[float, float] = (0.0, 0.0)


def _own(part: Array, band: int) -> _Own:
    if len(part) < LEAST_PIXELS:
        return _Own(None, f"{len(part)} pixels clear in both, {LEAST_PIXELS} needed")
    x, before, after = (part[:, k, band].astype(np.float64) for k in range(3))
    a, b = part[:, 3, 0].astype(np.float64), part[:, 3, 1].astype(np.float64)
    fitted = line(x, _between(before, after, a, b))
    reason = _refused(fitted)
    # a random walk pinned at both ends strays from the straight line by this share of its whole step
    nearest = float(np.median(np.minimum(a, b)))
    both = np.isfinite(a) & np.isfinite(b) & fitted.kept
    share, step = 1.0, (0.0, 0.0)
    if both.sum() >= LEAST_PIXELS // 2:
        weight = float(np.median(b[both] / np.maximum(a + b, 1e-6)[both]))
        share = float(np.sqrt(weight * (1 - weight)))
        change = line(before[both], after[both])
        step = change.gain - 1, change.shift
    variance = [
        (share * move) ** 2 + low**2 * nearest + other**2 + chance
        for move, low, other, chance in zip(step, DRIFT, OTHER_SPREAD, fitted.chance, strict=True)
    ]
    return _Own(fitted, reason, (variance[0], variance[1]))


def _year(own: Sequence[_Own]) -> tuple[float, float]:
    """Gain and offset of the year: the mean of the usable dates, each by how still the land stood."""
    usable = [(o.line, o.change) for o in own if o.line is not None and not o.reason]
    if not usable:
        return 1.0, 0.0
    gain = _mean([x.gain - 1 for x, _ in usable], [c[0] for _, c in usable], 0) + 1
    offsets = [x.shift - (gain - 1) * x.at for x, _ in usable]
    return gain, _mean(offsets, [c[1] for _, c in usable], 1)


def _mean(values: Sequence[float], changes: Sequence[float], which: int) -> float:
    """Weighted mean, drawn towards 0 by the year's spread."""
    weights = 1 / (SCENE_SPREAD[which] ** 2 + np.asarray(changes))
    mean = float((weights * np.asarray(values)).sum() / weights.sum())
    return mean * YEAR_SPREAD[which] ** 2 / (YEAR_SPREAD[which] ** 2 + 1 / float(weights.sum()))


def _drawn(own: _Own, part: Array, band: int, gain: float, offset: float) -> Fit:
    """A date's fit drawn towards the year's; the year's alone where its own is refused."""
    fitted, source = own.line, "none" if (gain, offset) == (1.0, 0.0) else "year"
    if fitted is not None and not own.reason:
        trust = [s**2 / (s**2 + c) for s, c in zip(SCENE_SPREAD, own.change, strict=True)]
        expected = (gain - 1) * fitted.at + offset
        shift = expected + trust[1] * (fitted.shift - expected)
        gain += trust[0] * (fitted.gain - gain)
        offset, source = shift - (gain - 1) * fitted.at, "scene"
    gain, offset = round(gain, 6), round(offset, 6)
    if fitted is None:
        return Fit(gain, offset, source, own.reason, pixels=len(part))  # type: ignore[arg-type]
    x = part[:, 0, band].astype(np.float64)
    y = _between(part[:, 1, band], part[:, 2, band], part[:, 3, 0], part[:, 3, 1])
    spreads = [round(_spread(v, 0.0), 6) for v in (y - x, y - (gain * x + offset))]
    numbers = [round(v, 6) for v in (fitted.gain, fitted.offset, fitted.correlation)]
    return Fit(
        gain, offset, source, own.reason, numbers[0], numbers[1], numbers[2], fitted.pixels, *spreads  # type: ignore[arg-type]
    )


def write(store: Store, result: Harmonisation) -> None:
    """Keep the fits beside the ledger."""
    store.write(NAME, json.dumps(asdict(result), sort_keys=True, allow_nan=False).encode())


def read(store: Store) -> Harmonisation | None:
    """The fits of an earlier run, or None."""
    data = store.read(NAME)
    if data is None:
        return None
    try:
        raw: dict[str, Any] = json.loads(data)
        scenes = tuple(
            SceneFit(s["landsat"], s["label"], tuple(Fit(**band) for band in s["bands"])) for s in raw["scenes"]
        )
        return Harmonisation(raw["fingerprint"], raw["bandpass"], scenes)
    except (ValueError, TypeError, KeyError) as error:
        raise CubeError(f"{store.join(NAME)} cannot be read ({error}); delete it and it is made again") from error


def _reachable(plan: Plan) -> list[dict[int, int]]:
    """For each Landsat date the Sentinel-2 days near enough and the days between (positive: before it).

    A day too near to any Landsat date to be its reference is nobody's here: the mean of the year would carry it over.
    """
    least, most = plan.options.min_reference_days, min(plan.options.max_reference_days, BOTH_SIDES)
    landsat, sentinel2 = ([s.time for s in plan.of(sensor)] for sensor in ("landsat8", "sentinel2"))
    barred = {j for j, t in enumerate(sentinel2) if any(abs(day_gap(when, t)) < least for when in landsat)}
    gaps = [{j: day_gap(when, t) for j, t in enumerate(sentinel2) if j not in barred} for when in landsat]
    return [{j: gap for j, gap in near.items() if abs(gap) <= most} for near in gaps]


def _sides(gaps: dict[int, int]) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """(day, distance) before, the same day included, and after; the nearest first."""
    ordered = sorted(gaps.items(), key=lambda entry: abs(entry[1]))
    return [(j, gap) for j, gap in ordered if gap >= 0], [(j, -gap) for j, gap in ordered if gap < 0]


def _nearest(
    coarse: Callable[[int], Array], side: Sequence[tuple[int, int]], known: NDArray[np.bool_]
) -> tuple[Array, Array]:
    """(6, h, w) of the nearest clear day of each pixel, and its distance in days (inf where there is none)."""
    value = np.full((len(BANDS), *known.shape), np.nan, np.float32)
    away = np.full(known.shape, np.inf, np.float32)
    for j, distance in side:
        open_ = known & ~np.isfinite(away)
        if not open_.any():
            break
        day = coarse(j)
        take = open_ & np.isfinite(day).all(0)
        value[:, take], away[take] = day[:, take], distance
    return value, away


def _between(before: Any, after: Any, a: Any, b: Any) -> NDArray[np.float64]:
    """Linear in time between two days; the nearer one where the other is missing."""
    before, after, a, b = (np.asarray(v, np.float64) for v in (before, after, a, b))
    both = np.isfinite(a) & np.isfinite(b)
    with np.errstate(invalid="ignore"):
        weight = np.where(both, b / np.maximum(a + b, 1e-6), np.where(np.isfinite(a), 1.0, 0.0))
    parts = np.where(weight > 0, before, 0) * weight, np.where(weight < 1, after, 0) * (1 - weight)
    return np.asarray(parts[0] + parts[1])


def _spread(values: NDArray[np.float64], centre: float | None = None) -> float:
    """Standard deviation of a normal distribution with the same median distance from the centre (default: median)."""
    middle = float(np.median(values)) if centre is None else centre
    return 1.4826 * float(np.median(np.abs(values - middle)))


def _refused(fitted: Line) -> str:
    """Why a fit must not be used; empty if it may."""
    if fitted.pixels < LEAST_PIXELS:
        return f"{fitted.pixels} pixels left of the changes, {LEAST_PIXELS} needed"
    if fitted.correlation < LEAST_CORRELATION:
        return f"correlation {fitted.correlation:.2f} below {LEAST_CORRELATION}"
    if not GAIN[0] <= fitted.gain <= GAIN[1]:
        return f"gain {fitted.gain:.3f} outside {GAIN[0]} to {GAIN[1]}"
    if abs(fitted.offset) > OFFSET or abs(fitted.shift) > OFFSET:
        return f"offset {fitted.offset:.4f}, {fitted.shift:.4f} at the median, beyond {OFFSET}"
    return ""
