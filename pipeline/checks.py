"""What must hold in a finished store, as pure judgements on what was read from it."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from marstfn.bands import BANDS
from pipeline import cube
from pipeline.cube import CLEAR, FILL, FUSED_PIXEL, FUSED_PIXELS, HIDDEN, MASKED, NOTHING, OBSERVED, SCALE, UPSAMPLED
from pipeline.ledger import ABSENT, Record
from pipeline.plan import Plan, Scene

REFLECTANCE = (-0.5, 3.0)
"""No surface seen through a corrected atmosphere lies outside; the detectors saturate below 3."""
COHERENCE = (0.0, 3.5)
UNCERTAINTY = (0.0, 2.0)
FLAGS = {"landsat8": (NOTHING, *FUSED_PIXELS, UPSAMPLED, HIDDEN), "sentinel2": (NOTHING, OBSERVED, HIDDEN)}
"""Values of `quality` that a date of each sensor may hold."""
AGAIN = "Delete the tile's ledger record and run again with the same store: the tile and what came of it are made anew"
ANEW = "Run again with another --store"

Stored = Mapping[str, NDArray[Any]]
"""Arrays (dates, ny, nx) as stored, by variable."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that does not hold."""

    check: str
    """Its kind: plan, format, status, attributes, grid, time, layout, ledger, objects, values or stray."""
    what: str
    where: str
    consequence: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}; {self.consequence}. {self.remedy}"


def ledger_record(
    stage: str, tile: str, record: Record | None, fingerprint: str | None, objects: Collection[str]
) -> Iterator[Finding]:
    """A tile's record is there, is of these inputs, and covers exactly `objects`; `fingerprint` None: not judged."""
    where = f"ledger/{stage}/{tile}.json"
    if record is None:
        consequence = f"tile {tile} has not finished the {stage} stage"
        yield Finding("ledger", "there is no record", where, consequence, "Run again with the same store to finish it")
        return
    if (record.stage, record.tile) != (stage, tile):
        what = f"the record is of {record.stage} {record.tile}"
        yield Finding("ledger", what, where, "the tile cannot be trusted", AGAIN)
    if fingerprint is not None and record.fingerprint != fingerprint:
        what = f"its fingerprint {record.fingerprint[:12]} is not the {fingerprint[:12]} that follows from the plan"
        consequence = "the tile was made from other scenes, options or library versions"
        remedy = "Run again with the same store: such a tile is made anew"
        yield Finding("ledger", what, where, consequence, remedy)
    missing, extra = sorted(set(objects) - set(record.checksums)), sorted(set(record.checksums) - set(objects))
    if missing:
        what = f"it has no checksum of {missing[0]}" + (f" and {len(missing) - 1} more" if len(missing) > 1 else "")
        yield Finding("ledger", what, where, "these shards cannot be checked", AGAIN)
    if extra:
        what = f"it names {extra[0]}, which is not of this tile"
        yield Finding("ledger", what, where, "the record was altered, or is of another layout", AGAIN)


def shard_objects(stage: str, tile: str, recorded: Mapping[str, str], found: Mapping[str, str]) -> Iterator[Finding]:
    """Each shard has the bytes that were recorded when it was written."""
    for name, checksum in recorded.items():
        now = found[name]
        if now == checksum:
            continue
        remedy = AGAIN
        if now == ABSENT:
            what, consequence = "the shard is gone", "its pixels read as nothing"
            remedy = "Run again with the same store: only this tile is made anew"
        elif checksum == ABSENT:
            what, consequence = "there is a shard where none was written", "its pixels come from elsewhere"
        else:
            what, consequence = "its bytes do not match their checksum", "its pixels may be wrong or unreadable"
        yield Finding("objects", what, f"{name} ({stage}, tile {tile})", consequence, remedy)


def fused_values(plan: Plan, tile: str, dates: slice, stored: Stored) -> Iterator[Finding]:
    """A block of the fused cube: ranges, flags each sensor may have, and values present exactly where the flag says."""
    scenes = plan.scenes[dates]
    quality = stored["quality"]
    fused, known = np.isin(quality, FUSED_PIXELS), np.isin(quality, (OBSERVED, *FUSED_PIXELS, UPSAMPLED))
    landsat_made = np.isin(quality, (*FUSED_PIXELS, UPSAMPLED))
    allowed = np.stack([np.isin(plane, FLAGS[s.sensor]) for plane, s in zip(quality, scenes, strict=True)])
    judge = _judge("fused.zarr", tile, scenes)
    yield from judge("quality", ~allowed, quality, "a flag that a date of this source cannot have")
    for band in BANDS:
        present = stored[band] != FILL
        yield from judge(band, known & ~present, stored[band], "no value where `quality` says there is one")
        yield from judge(band, present & ~known, quality, "a value where `quality` says there is none")
        yield from judge(band, present & _outside(stored[band], REFLECTANCE), stored[band], _range(REFLECTANCE), SCALE)
    age, options = stored["reference_age"], plan.options
    span = f"not {options.min_reference_days} to {options.max_reference_days} days before or after"
    aged = age != FILL
    yield from judge("reference_age", fused & ~aged, age, "no age where `quality` says fused")
    yield from judge("reference_age", aged & ~fused, age, "an age where nothing is fused")
    days = np.abs(age.astype(np.int32))
    far = (days > options.max_reference_days) | (days < options.min_reference_days)
    yield from judge("reference_age", aged & far, age, span)
    residual = stored["coherence"]
    there = residual != FILL
    yield from judge("coherence", there & ~landsat_made, residual, "a residual where no Landsat went in", SCALE)
    yield from judge("coherence", fused & ~there, residual, "no residual where `quality` says fused")
    yield from judge("coherence", there & _outside(residual, COHERENCE), residual, _range(COHERENCE), SCALE)


def uncertainties(plan: Plan, tile: str, dates: slice, stored: Stored) -> Iterator[Finding]:
    """A block of the fused cube: uncertainty in its range, where the network fused with weights that give it, and
    nowhere else."""
    scenes = plan.scenes[dates]
    values, by_network = stored["uncertainty"], stored["quality"] == FUSED_PIXEL
    given = np.array([_gives_uncertainty(plan, scene) for scene in scenes])[:, None, None]
    there = values != FILL
    judge = _judge("fused.zarr", tile, scenes)
    yield from judge("uncertainty", by_network & given & ~there, values, "none where the network fused", SCALE)
    yield from judge("uncertainty", there & ~(by_network & given), values, "one where no method gave it", SCALE)
    yield from judge("uncertainty", there & _outside(values, UNCERTAINTY), values, _range(UNCERTAINTY), SCALE)


def _gives_uncertainty(plan: Plan, scene: Scene) -> bool:
    """Whether the weights that serve a date give an uncertainty."""
    pan = bool(scene.pan_items) and any(ref.pan for ref in plan.weights)
    return any(ref.pan == pan and ref.interval is not None for ref in plan.weights)


def input_values(
    group: str, scenes: Sequence[Scene], tile: str, bands: Sequence[str], stored: Stored
) -> Iterator[Finding]:
    """A block of one group of the input cube: mask values, ranges where clear, no hole where the mask says clear."""
    judge = _judge(f"inputs.zarr/{group}", tile, scenes)
    clear = stored.get("clear")
    if clear is not None:
        yield from judge("clear", ~np.isin(clear, (NOTHING, CLEAR, MASKED)), clear, "a mask value that has no meaning")
    for band in bands:
        values = stored[band]
        judged = values != FILL
        if clear is not None:
            yield from judge(band, (clear == CLEAR) & ~judged, values, "no value where the mask says clear")
            judged &= clear == CLEAR  # a cloud may be brighter than any surface
            yield from judge(band, judged & _outside(values, REFLECTANCE), values, _range(REFLECTANCE), SCALE)


def time_axis(where: str, found: Sequence[datetime], planned: Sequence[datetime]) -> Iterator[Finding]:
    """Times increase strictly and are the plan's; both in UTC."""
    remedy = ANEW + ": the time axis is written once, with the template"
    for k, (earlier, later) in enumerate(itertools.pairwise(found)):
        if later <= earlier:
            what = f"time {later.isoformat()} at position {k + 1} does not follow {earlier.isoformat()}"
            yield Finding("time", what, where, "selecting by time fails or takes the wrong date", remedy)
    if len(found) != len(planned):
        what = f"{len(found)} dates where the plan has {len(planned)}"
        yield Finding("time", what, where, "dates and pixels do not belong together", remedy)
        return
    for k, (is_time, should) in enumerate(zip(found, planned, strict=True)):
        if is_time != should:
            what = f"time {is_time.isoformat()} at position {k}, the plan says {should.isoformat()}"
            yield Finding("time", what, where, "a date's pixels carry the wrong date", remedy)


def sources(where: str, found: Sequence[str], plan: Plan) -> Iterator[Finding]:
    """`source` says for each date which sensor it is of."""
    for k, scene in enumerate(plan.scenes):
        should = cube.source(scene)
        if k >= len(found) or found[k] != should:
            is_source = found[k] if k < len(found) else "missing"
            what = f"source at position {k} is {is_source!r}, the plan says {should!r}"
            yield Finding("time", what, where, "fused and observed dates are taken for one another", ANEW)


def registration(where: str, found: Stored, expected: Stored) -> Iterator[Finding]:
    """The coordinates that tell of each date's shift say what was measured."""
    for name, values in expected.items():
        there = found.get(name)
        if there is None or len(there) != len(values):
            what = "it is missing" if there is None else f"it has {len(there)} dates, the plan {len(values)}"
            yield Finding("layout", what, f"{where}/{name}", "how Landsat was laid onto Sentinel-2 is lost", ANEW)
            continue
        for k, (is_value, should) in enumerate(zip(there.tolist(), values.tolist(), strict=True)):
            if is_value != should and not (is_value != is_value and should != should):
                what = f"position {k} says {_short(is_value)}, measured was {_short(should)}"
                consequence = "how Landsat was laid onto Sentinel-2 is told wrongly"
                yield Finding("values", what, f"{where}/{name}", consequence, "Run again with the same store")
                break


def attributes(where: str, found: Mapping[str, Any], expected: Mapping[str, Any]) -> Iterator[Finding]:
    """Every expected attribute is there with its value; of `versions` at least the expected entries."""
    for name, value in expected.items():
        is_value = found.get(name)
        if name not in found:
            what = f"the attribute {name} is missing"
        elif isinstance(value, Mapping) and isinstance(is_value, Mapping):
            if dict(is_value) | dict(value) == dict(is_value):
                continue
            what = f"the attribute {name} lacks entries of the plan's"
        elif is_value != value:
            what = f"the attribute {name} is {_short(is_value)}, the plan leads to {_short(value)}"
        else:
            continue
        yield Finding("attributes", what, where, "the cube cannot be traced to its run", ANEW)


def status(where: str, found: Any) -> Iterator[Finding]:
    """The cube says that it is complete."""
    if found != "complete":
        what, consequence = f"its status is {found!r}, not 'complete'", "tiles may be missing"
        yield Finding("status", what, where, consequence, "Run again with the same store to finish it")


class _Judge(Protocol):
    """Tells the first of the pixels marked `wrong`, its value as stored times `scale`, and how many there are."""

    def __call__(
        self, name: str, wrong: NDArray[np.bool_], shown: NDArray[Any], what: str, scale: float = 1.0
    ) -> Iterator[Finding]: ...


def _judge(where: str, tile: str, scenes: Sequence[Scene]) -> _Judge:
    def judge(
        name: str, wrong: NDArray[np.bool_], shown: NDArray[Any], what: str, scale: float = 1.0
    ) -> Iterator[Finding]:
        if not wrong.any():
            return
        date, row, col = (int(i) for i in np.unravel_index(int(np.argmax(wrong)), wrong.shape))
        place = f"{where}/{name}, tile {tile}, {scenes[date].label}, row {row}, column {col}"
        value = f"{float(shown[date, row, col]) * scale:g}"
        count = int(wrong.sum())
        text = f"{what} (value {value}; {count} pixel{'s' if count > 1 else ''} in this block)"
        yield Finding("values", text, place, "these pixels mislead whoever uses them", AGAIN)

    return judge


def _outside(stored: NDArray[Any], limits: tuple[float, float]) -> NDArray[np.bool_]:
    wrong: NDArray[np.bool_] = (stored < round(limits[0] / SCALE)) | (stored > round(limits[1] / SCALE))
    return wrong


def _range(limits: tuple[float, float]) -> str:
    return f"a value outside {limits[0]:g} to {limits[1]:g}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
