"""What a finished run leaves for people and catalogues: scene tables, pictures and the STAC item."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from datetime import date, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

from marstfn.bands import BANDS
from pipeline import audit, cube, harmonise, stac_item, views, yields
from pipeline.audit import Audit
from pipeline.cube import FILL, FUSED_PIXELS, HIDDEN, NOTHING, OBSERVED, UPSAMPLED
from pipeline.encoding import QUALITY
from pipeline.events import Listener, Note, silent
from pipeline.grid import Tile
from pipeline.harmonise import Harmonisation
from pipeline.plan import Plan, Scene
from pipeline.shifts import SceneShift
from pipeline.store import FUSED, Store
from pipeline.yields import Missed

REPORT = "report"
SCENES_JSON, SCENES_CSV = f"{REPORT}/scenes.json", f"{REPORT}/scenes.csv"
QUICKLOOK, NDVI = f"{REPORT}/quicklook.png", f"{REPORT}/ndvi.png"


@dataclass(frozen=True, slots=True)
class LandsatRow:
    """One Landsat date of the cube; percentages are of all pixels of the grid."""

    date: str
    time: str
    platform: str
    reference: str | None
    """The Sentinel-2 day that most fused pixels refer to."""
    reference_age_days: int | None
    """Landsat day minus that day."""
    references: dict[str, float]
    """Share of the fused pixels by Sentinel-2 day."""
    clear_percent: float
    fused_percent: float
    upsampled_percent: float
    masked_percent: float
    nothing_percent: float
    coherence: float | None
    """Mean |degraded fused - Landsat|, reflectance."""
    corrected: tuple[str, ...]
    """Bands to which the check against clear Sentinel-2 applied a gain and offset."""
    method: str
    """What the date was fused with."""
    items: tuple[str, ...]
    shift_east: float | None = None
    """Metres by which Landsat lay east of Sentinel-2, as measured; None where it was not."""
    shift_north: float | None = None
    shift_error: float | None = None
    """Standard error of either."""
    registration: str = ""
    """What was done about it, and why."""


@dataclass(frozen=True, slots=True)
class SentinelRow:
    """One Sentinel-2 date of the cube; percentages are of all pixels of the grid."""

    date: str
    time: str
    platform: str
    clear_percent: float
    masked_percent: float
    nothing_percent: float
    items: tuple[str, ...]
    radiometry: tuple[str, ...] = ()
    """By item: scale, offset and the rule they come from."""
    audit: str = ""
    """What the pixels say of the offset."""


@dataclass(frozen=True, slots=True)
class Published:
    """What was written: names in the store, and the tables."""

    files: tuple[str, ...]
    landsat: tuple[LandsatRow, ...]
    sentinel: tuple[SentinelRow, ...]


@dataclass(slots=True)
class Tally:
    """Counts over the pixels seen so far; sums are exact, so that the order of tiles does not matter."""

    quality: NDArray[np.int64]
    """(dates, flags) pixels by flag."""
    ages: list[Counter[int]]
    coherence: NDArray[np.int64]
    """(dates, 2) sum in stored units, and pixels."""
    by_tile: dict[str, NDArray[np.int64]] = field(default_factory=dict)

    @classmethod
    def empty(cls, dates: int) -> Tally:
        return cls(
            np.zeros((dates, len(QUALITY)), np.int64), [Counter() for _ in range(dates)], np.zeros((dates, 2), np.int64)
        )

    def add(
        self, dates: slice, tile: str, quality: NDArray[np.uint8], age: NDArray[np.int16], coherence: NDArray[np.int16]
    ) -> None:
        """Count one block, each (dates, ny, nx) as stored."""
        counts = np.stack([np.bincount(plane.ravel(), minlength=len(QUALITY))[: len(QUALITY)] for plane in quality])
        self.quality[dates] += counts
        self.by_tile.setdefault(tile, np.zeros_like(self.quality))[dates] += counts
        for k, (ages, residuals) in enumerate(zip(age, coherence, strict=True), start=dates.start):
            values, number = np.unique(ages[ages != FILL], return_counts=True)
            self.ages[k].update(dict(zip(values.tolist(), number.tolist(), strict=True)))
            known = residuals[residuals != FILL]
            self.coherence[k] += (int(known.sum(dtype=np.int64)), known.size)


def tally(store: Store, plan: Plan) -> Tally:
    """Quality, reference age and coherence of the whole cube counted, one tile and time block in memory at a time."""
    counted = Tally.empty(len(plan.scenes))
    arrays = [cube.array(store, FUSED, name) for name in ("quality", "reference_age", "coherence")]
    for tile in plan.tiles:
        for dates in cube.fused_blocks(plan):
            quality, age, coherence = (np.asarray(array[(dates, *tile.roi(10))]) for array in arrays)
            counted.add(dates, tile.name, quality, age, coherence)
    return counted


def rows(
    plan: Plan,
    counted: Tally,
    fits: Harmonisation | None = None,
    methods: Sequence[str] | None = None,
    checked: Audit | None = None,
) -> tuple[tuple[LandsatRow, ...], tuple[SentinelRow, ...]]:
    """The tables of both sensors, in order of time."""
    landsat: list[LandsatRow] = []
    sentinel: list[SentinelRow] = []
    judged = checked.texts if checked else {}
    by_date = methods or (plan.options.method,) * len(plan.scenes)
    scenes = fits.scenes if fits else ()
    shifts = {s.label: s for s in fits.shifts} if fits else {}
    corrected = {s.label: tuple(b for b, f in zip(BANDS, s.bands, strict=True) if f.applied) for s in scenes}
    for k, scene in enumerate(plan.scenes):
        if scene.sensor == "landsat8":
            fitted, shift = corrected.get(scene.label, ()), shifts.get(scene.label)
            landsat.append(_landsat_row(scene, counted, k, fitted, by_date[len(landsat)], shift))
        else:
            percent = _percent(counted.quality[k])
            rules = (plan.radiometry[i] for i in scene.items if i in plan.radiometry)
            used = tuple(f"{r.scale:g}, {r.offset:g}: {r.rule}" for r in rules)
            shares = percent[OBSERVED], percent[HIDDEN], percent[NOTHING]
            said = judged.get(scene.label, "")
            sentinel.append(SentinelRow(*_identity(scene), *shares, scene.items, used, said))
    return tuple(landsat), tuple(sentinel)


def finish(
    store: Store,
    plan: Plan,
    *,
    methods: Sequence[str] | None = None,
    truth: views.Truth | None = None,
    listener: Listener = silent,
) -> Published:
    """Write report/ (scenes.json, scenes.csv, quicklook.png, ndvi.png) and fused.stac.json of a fused store.

    `methods`: that of each Landsat date, by default the plan's. `truth(time, x0, y0, shape)` gives the exact
    (6, ny, nx) reflectance of a simulated run. Says what it wrote as notes `scenes`, `quicklook`, `ndvi` and `item`.
    Raises StoreError where the store cannot be written.
    """
    counted = tally(store, plan)
    landsat, sentinel = rows(plan, counted, harmonise.read(store), methods, audit.read(store))
    store.write(SCENES_JSON, scenes_json(plan, landsat, sentinel, yields.read(store)).encode())
    store.write(SCENES_CSV, scenes_csv(landsat).encode())
    text = f"{len(landsat)} Landsat and {len(sentinel)} Sentinel-2 dates"
    listener(Note("scenes", text, [asdict(row) for row in landsat]))
    files = [SCENES_JSON, SCENES_CSV, *pictures(store, plan, counted, truth=truth, listener=listener)]
    keys = {QUICKLOOK: "quicklook", NDVI: "ndvi", SCENES_JSON: "scenes"}
    files.append(stac_item.write(store, plan, report={keys[name]: f"./{name}" for name in files if name in keys}))
    listener(Note("item", store.join(stac_item.NAME)))
    return Published(tuple(files), landsat, sentinel)


def pictures(
    store: Store, plan: Plan, counted: Tally, *, truth: views.Truth | None = None, listener: Listener = silent
) -> tuple[str, ...]:
    """Draw quicklook.png and ndvi.png and return the names written; none where no Landsat date holds a pixel."""
    known = counted.quality[:, [OBSERVED, *FUSED_PIXELS, UPSAMPLED]].sum(axis=1)
    if not known[[s.sensor == "landsat8" for s in plan.scenes]].any():
        listener(Note("warning", "no Landsat date of the cube holds a pixel, so there is no picture to draw"))
        return ()
    ages = [ranked[0][0] if (ranked := _ranked(ages)) else None for ages in counted.ages]
    view = views.choose(store, plan, best_tile(plan, counted), counted.quality, ages, truth)
    drawn = (
        (QUICKLOOK, "quicklook", "30 m input, 10 m output and comparison", views.quicklook),
        (NDVI, "ndvi", "NDVI through the year at a few places", views.ndvi),
    )
    for name, kind, text, draw in drawn:
        store.write(name, draw(view))
        listener(Note(kind, text, store.join(name)))
    return QUICKLOOK, NDVI


def best_tile(plan: Plan, counted: Tally) -> Tile:
    """The tile whose Landsat dates hold most pixels; of those within 2 % of it the one nearest the middle."""
    of_landsat = [k for k, scene in enumerate(plan.scenes) if scene.sensor == "landsat8"]
    tiles = list(plan.tiles)
    known = [
        counted.by_tile[t.name][of_landsat][:, [*FUSED_PIXELS, UPSAMPLED]].sum() / max(1, counted.by_tile[t.name].sum())
        for t in tiles
    ]
    middle = plan.grid.rows / 2, plan.grid.columns / 2

    def off_centre(tile: Tile) -> float:
        return abs((tile.row0 + tile.row1) / 2 - middle[0]) + abs((tile.col0 + tile.col1) / 2 - middle[1])

    return min((t for t, share in zip(tiles, known, strict=True) if share >= 0.98 * max(known)), key=off_centre)


def scenes_json(
    plan: Plan,
    landsat: tuple[LandsatRow, ...],
    sentinel: tuple[SentinelRow, ...],
    missed: Sequence[Missed] = (),
) -> str:
    """Both tables, the items left out and those that gave no pixel, as JSON."""
    content: dict[str, Any] = {
        "name": plan.name,
        "year": plan.year,
        "simulated": plan.simulated,
        "plan_fingerprint": plan.fingerprint,
        "landsat": [asdict(row) for row in landsat],
        "sentinel2": [asdict(row) for row in sentinel],
        "dropped": [entry.model_dump() for entry in plan.dropped],
        "without_pixels": [asdict(entry) for entry in missed],
    }
    return json.dumps(content, indent=1, allow_nan=False)


def scenes_csv(landsat: tuple[LandsatRow, ...]) -> str:
    """The Landsat table as CSV with a header; several references or items are joined by a blank."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    names = [f.name for f in fields(LandsatRow)]
    writer.writerow(names)
    for row in landsat:
        flat = asdict(row) | {
            "references": " ".join(f"{day}:{share:.3f}" for day, share in row.references.items()),
            "corrected": " ".join(row.corrected),
            "items": " ".join(row.items),
        }
        writer.writerow(["" if flat[name] is None else flat[name] for name in names])
    return out.getvalue()


def _landsat_row(
    scene: Scene, counted: Tally, k: int, corrected: tuple[str, ...], method: str, shift: SceneShift | None
) -> LandsatRow:
    percent = _percent(counted.quality[k])
    fused = round(sum(percent[flag] for flag in FUSED_PIXELS), 2)
    ages = counted.ages[k]
    pixels = sum(ages.values())
    ranked = _ranked(ages)
    total, number = counted.coherence[k].tolist()
    return LandsatRow(
        *_identity(scene),
        reference=_reference(scene.day, ranked[0][0]) if ranked else None,
        reference_age_days=ranked[0][0] if ranked else None,
        references={_reference(scene.day, age): round(count / pixels, 4) for age, count in ranked},
        clear_percent=round(fused + percent[UPSAMPLED], 2),
        fused_percent=fused,
        upsampled_percent=percent[UPSAMPLED],
        masked_percent=percent[HIDDEN],
        nothing_percent=percent[NOTHING],
        coherence=round(total / number * cube.SCALE, 6) if number else None,
        corrected=corrected,
        method=method,
        items=(*scene.items, *scene.pan_items),
        shift_east=shift.east if shift else None,
        shift_north=shift.north if shift else None,
        shift_error=shift.error if shift else None,
        registration=shift.text if shift else "",
    )


def _ranked(ages: Counter[int]) -> list[tuple[int, int]]:
    """(age, pixels), most pixels first; equal shares: the nearer day, then the earlier."""
    return sorted(ages.items(), key=lambda entry: (-entry[1], abs(entry[0]), -entry[0]))


def _identity(scene: Scene) -> tuple[str, str, str]:
    return scene.day.isoformat(), scene.time.isoformat(), scene.platform


def _reference(day: date, age: int) -> str:
    return (day - timedelta(days=age)).isoformat()


def _percent(counts: NDArray[np.int64]) -> list[float]:
    return [round(float(v), 2) for v in 100 * counts / max(1, counts.sum())]
