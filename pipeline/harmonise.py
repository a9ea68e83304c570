"""Landsat into the cube's one radiometric frame: band-pass first, then a bounded check against clear Sentinel-2."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

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
LEAST_PIXELS = 500
LEAST_CORRELATION = 0.7
BOTH_SIDES = 20
"""Days on either side within which clear Sentinel-2 before and after is interpolated to the Landsat date."""
ONE_SIDE = 4
"""Days within which Sentinel-2 on one side only may stand for the Landsat date."""
TILES = 12
"""Tiles sampled, spread evenly: bounds the work whatever the area."""
SAMPLE = 6000
"""Pixels sampled per Landsat date over all tiles."""
TRIM = 2.5
"""Robust standard deviations beyond which a pixel has changed rather than been miscalibrated."""
ROUNDS = 6


@dataclass(frozen=True, slots=True)
class Fit:
    """One band of one Landsat date: Sentinel-2 = gain * Landsat + offset."""

    gain: float
    offset: float
    correlation: float
    pixels: int
    before: float
    """Robust spread of Sentinel-2 minus Landsat, reflectance."""
    after: float
    """The same after the fit."""
    applied: bool
    reason: str


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
                if fit.applied:
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
            "bounds": [GAIN, OFFSET, LEAST_PIXELS, LEAST_CORRELATION, BOTH_SIDES, ONE_SIDE, TILES, SAMPLE, TRIM],
        }
    )


def sampled(tiles: Sequence[Tile]) -> list[Tile]:
    """At most TILES of the tiles, evenly spread over their order."""
    if len(tiles) <= TILES:
        return list(tiles)
    return [tiles[round(i * (len(tiles) - 1) / (TILES - 1))] for i in range(TILES)]


def sample_tile(plan: Plan, store: Store, tile: Tile, count: int) -> dict[int, NDArray[np.float32]]:
    """By Landsat index (n, 2, 6): Landsat at the cube's band-pass and Sentinel-2 at 30 m of the same day, n <= count.

    Sentinel-2 is interpolated in time between the nearest clear days before and after, per pixel.
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
        mean: Array = values.reshape(bands, h // RATIO, RATIO, w // RATIO, RATIO).mean((2, 4), dtype=np.float32)
        return mean

    times = [s.time for s in plan.of("sentinel2")]
    out = {}
    for index, scene in enumerate(plan.of("landsat8")):
        known = landsat8.seen(index)
        if not known.any():
            continue
        gaps = [day_gap(scene.time, t) for t in times]
        same_day = _interpolated(coarse, gaps, known, plan)
        usable = known & np.isfinite(same_day).all(0)
        rows, cols = np.nonzero(usable)
        if not len(rows):
            continue
        picked = np.unique(np.linspace(0, len(rows) - 1, min(count, len(rows))).round().astype(int))
        rows, cols = rows[picked], cols[picked]
        own = landsat8.reflectance(index)
        if plan.options.bandpass:
            own = to_msi(own)
        out[index] = np.stack([own[:, rows, cols].T, same_day[:, rows, cols].T], axis=1)
    return out


def fit_scenes(plan: Plan, samples: Sequence[dict[int, NDArray[np.float32]]], identity: str) -> Harmonisation:
    """The fits of all Landsat dates from the samples of all tiles, in the order of the tiles."""
    if not plan.options.scene_check:
        return Harmonisation(identity, plan.options.bandpass, ())
    scenes = []
    for index, scene in enumerate(plan.of("landsat8")):
        parts = [s[index] for s in samples if index in s]
        pairs = np.concatenate(parts) if parts else np.empty((0, 2, len(BANDS)), np.float32)
        fits = tuple(fit(pairs[:, 0, b], pairs[:, 1, b]) for b in range(len(BANDS)))
        scenes.append(SceneFit(index, scene.label, fits))
    return Harmonisation(identity, plan.options.bandpass, tuple(scenes))


def fit(landsat: Array, sentinel2: Array) -> Fit:
    """Robust linear fit of one band, applied only within the bounds of this module; all reflectance.

    Reduced major axis (ratio of the spreads), for noise sits on both sides and least squares of one on the other would
    flatten the gain; pixels that changed are trimmed by their distance from the line, round by round.
    """
    x, y = landsat.astype(np.float64), sentinel2.astype(np.float64)
    if len(x) < LEAST_PIXELS:
        return Fit(1.0, 0.0, 0.0, len(x), 0.0, 0.0, False, f"{len(x)} pixels clear in both, {LEAST_PIXELS} needed")
    keep = np.ones(len(x), bool)
    gain, offset = 1.0, float(np.median(y - x))
    for _ in range(ROUNDS):
        residual = y - (gain * x + offset)
        centre, spread = float(np.median(residual[keep])), _spread(residual[keep])
        keep = np.abs(residual - centre) <= TRIM * max(spread, 1e-5)
        if keep.sum() < LEAST_PIXELS or x[keep].std() < 1e-6 or y[keep].std() < 1e-6:
            break
        gain = float(y[keep].std() / x[keep].std())
        offset = float(y[keep].mean() - gain * x[keep].mean())
    constant = x[keep].std() < 1e-6 or y[keep].std() < 1e-6
    correlation = 0.0 if constant else float(np.corrcoef(x[keep], y[keep])[0, 1])
    before, after = _spread(y - x, 0.0), _spread(y - (gain * x + offset), 0.0)
    reason = _refused(gain, offset, correlation, int(keep.sum()))
    numbers = [round(float(v), 6) for v in (gain, offset, correlation)]
    return Fit(
        numbers[0], numbers[1], numbers[2], int(keep.sum()), round(before, 6), round(after, 6), not reason, reason
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


def _interpolated(coarse: Any, gaps: Sequence[int], known: NDArray[np.bool_], plan: Plan) -> Array:
    """(6, h, w) Sentinel-2 at the Landsat date: nearest clear before and after, weighted by time; NaN where unfit.

    Days that pairing must not use as reference are not used here either.
    """
    least, most = plan.options.min_reference_days, min(plan.options.max_reference_days, BOTH_SIDES)
    usable = [j for j, gap in enumerate(gaps) if least <= abs(gap) <= most]
    sides = []
    for side in (
        sorted((j for j in usable if gaps[j] >= 0), key=lambda j: gaps[j]),
        sorted((j for j in usable if gaps[j] < 0), key=lambda j: -gaps[j]),
    ):
        value = np.full((len(BANDS), *known.shape), np.nan, np.float32)
        away = np.full(known.shape, np.inf, np.float32)
        for j in side:
            open_ = known & ~np.isfinite(away)
            if not open_.any():
                break
            day = coarse(j)
            take = open_ & np.isfinite(day).all(0)
            value[:, take], away[take] = day[:, take], abs(gaps[j])
        sides.append((value, away))
    (before, a), (after, b) = sides
    both = np.isfinite(a) & np.isfinite(b)
    with np.errstate(invalid="ignore"):
        weight = np.where(both, b / np.maximum(a + b, 1e-6), 0).astype(np.float32)
        mixed = before * weight + after * (1 - weight)
    out = np.where(both, mixed, np.nan)
    for value, away in sides:
        near = ~both & (away <= ONE_SIDE)
        out[:, near] = value[:, near]
    return np.asarray(out, np.float32)


def _spread(values: NDArray[np.float64], centre: float | None = None) -> float:
    """Standard deviation of a normal distribution with the same median distance from the centre (default: median)."""
    middle = float(np.median(values)) if centre is None else centre
    return 1.4826 * float(np.median(np.abs(values - middle)))


def _refused(gain: float, offset: float, correlation: float, pixels: int) -> str:
    """Why a fit must not be applied; empty if it may."""
    if pixels < LEAST_PIXELS:
        return f"{pixels} pixels left of the changes, {LEAST_PIXELS} needed"
    if correlation < LEAST_CORRELATION:
        return f"correlation {correlation:.2f} below {LEAST_CORRELATION}"
    if not GAIN[0] <= gain <= GAIN[1]:
        return f"gain {gain:.3f} outside {GAIN[0]} to {GAIN[1]}"
    if abs(offset) > OFFSET:
        return f"offset {offset:.4f} beyond {OFFSET}"
    return ""
