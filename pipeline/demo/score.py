"""How near a fused simulated year comes to its exact truth, date by date, beside what a user has without fusing."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from marstfn.bands import BANDS, RATIO
from marstfn.baselines import upsample
from marstfn.metrics import fill_empty, psnr, rmse, ssim
from marstfn.simulate import Simulation
from pipeline import cube, job, workers
from pipeline import harmonise as radiometry
from pipeline.cube import CLEAR, unpack
from pipeline.demo.products import FALSE_NORTHING
from pipeline.errors import CubeError, PlanError
from pipeline.harmonise import Harmonisation
from pipeline.pairing import Pair
from pipeline.plan import Plan
from pipeline.registered import Registered
from pipeline.store import FUSED, INPUTS, Store

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]

METHODS = ("fusion", "bicubic", "copy", "ceiling")
"""The run's own method, Landsat enlarged, the reference as it was, and a perfect Sentinel-2 observation of the day."""
SCORES_JSON, SCORES_CSV = "report/scores.json", "report/scores.csv"
ENOUGH = 5.0
"""Percent of the pixels that a date must have scored to count in the mean over dates."""


@dataclass(frozen=True, slots=True)
class Score:
    """One method on one date: reflectance of all six bands, peak and range 1."""

    psnr: float
    """dB."""
    ssim: float
    rmse: float
    coverage: float
    """Percent of the scored pixels that the method itself gave; the others were scored with bicubic Landsat."""


@dataclass(frozen=True, slots=True)
class Row:
    """One Landsat date. The pixels scored are those clear to Landsat's mask that some reference serves."""

    date: str
    reference: str | None
    """The Sentinel-2 day that serves most scored pixels."""
    reference_age: int | None
    """Landsat day minus that day."""
    clear_percent: float
    """Of all pixels, clear to Landsat's mask."""
    scored_percent: float
    """Of all pixels, scored."""
    scores: Mapping[str, Score]
    """By method; empty where no pixel can be scored."""


def score_date(truth: Floats, made: Mapping[str, Floats], scored: Mask, fallback: Floats) -> dict[str, Score]:
    """Scores by method of images (6, H, W) against `truth` on the pixels `scored` (H, W); empty without such pixels.

    Pixels that a method leaves empty (NaN in any band) get the values of `fallback`, which has none.
    """
    if not scored.any():
        return {}
    out = {}
    for name, image in made.items():
        empty: Mask = np.asarray(np.isnan(image).any(axis=0), bool)
        whole = fill_empty(np.where(empty, np.float32(np.nan), image), fallback)
        out[name] = Score(
            psnr=psnr(whole, truth, scored),
            ssim=ssim(whole, truth, scored),
            rmse=rmse(whole, truth, scored),
            coverage=round(100 * float(1 - empty[scored].mean()), 3),
        )
    return out


def composed(days: Sequence[tuple[Callable[[], Floats], Mask, int]], wanted: Mask) -> tuple[Floats, NDArray[np.int16]]:
    """The nearest reference (6, H, W) and its age in days (fill where none) on the pixels `wanted` (H, W).

    Of the `days` (reflectance on call, clear, Landsat day minus reference day; best first) the first clear on either
    side of the date, and of these two the nearer.
    """
    chosen = np.full((2, *wanted.shape), -1)
    away = np.full((2, *wanted.shape), np.inf)
    for k, (_, clear, gap) in enumerate(days):
        take = wanted & (chosen[int(gap < 0)] < 0) & clear
        chosen[int(gap < 0)][take], away[int(gap < 0)][take] = k, abs(gap)
    nearest = np.where(away[1] < away[0], chosen[1], chosen[0])
    image = np.full((len(BANDS), *wanted.shape), np.nan, np.float32)
    age = np.full(wanted.shape, cube.FILL, np.int16)
    for k in np.unique(nearest[nearest >= 0]):
        values, _, gap = days[k]
        take = nearest == k
        image[:, take], age[take] = values()[:, take], gap
    return image, age


def score(store: Store, simulation: Simulation) -> tuple[Row, ...]:
    """A row for each Landsat date of the finished cube in `store`, which `simulation` was the catalogue of.

    Raises PlanError where the cube is not of that simulation's year and zone, CubeError where it is not complete.
    """
    plan = job.open_job(store).plan
    _check(plan, simulation)
    harmonisation = radiometry.read(store)
    if harmonisation is None:
        raise CubeError(f"{store.join(radiometry.NAME)} is missing, so the run is not complete; run it again")
    reader = _Reader(plan, store, simulation, harmonisation)
    return tuple(reader.row(pair) for pair in workers.pairs(plan, store))


def means(rows: Sequence[Row]) -> dict[str, Score]:
    """Mean of each method over the dates with at least ENOUGH percent scored; empty where there is none."""
    kept = [row.scores for row in rows if row.scores and row.scored_percent >= ENOUGH]
    if not kept:
        return {}
    return {
        name: Score(*(float(np.mean([getattr(s[name], f) for s in kept])) for f in Score.__dataclass_fields__))
        for name in kept[0]
    }


def write(store: Store, rows: Sequence[Row]) -> tuple[str, str]:
    """Write report/scores.json and report/scores.csv; the names written."""
    table: dict[str, Any] = {
        "simulated": True,
        "pixels": "clear to Landsat's mask and served by a reference; empty ones scored with bicubic Landsat",
        "peak": 1.0,
        "rows": [asdict(row) for row in rows],
        "mean": {name: asdict(value) for name, value in means(rows).items()},
    }
    store.write(SCORES_JSON, json.dumps(table, indent=1).encode())
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    fields = tuple(Score.__dataclass_fields__)
    head = ("date", "reference", "reference_age", "clear_percent", "scored_percent")
    writer.writerow([*head, *(f"{name}_{f}" for name in METHODS for f in fields)])
    for row in rows:
        values = [getattr(row.scores[name], f) if name in row.scores else "" for name in METHODS for f in fields]
        plain = ["" if getattr(row, f) is None else getattr(row, f) for f in head]
        writer.writerow([*plain, *(round(v, 5) if isinstance(v, float) else v for v in values)])
    store.write(SCORES_CSV, out.getvalue().encode())
    return SCORES_JSON, SCORES_CSV


def _check(plan: Plan, simulation: Simulation) -> None:
    if not plan.simulated or plan.year != simulation.year or plan.grid.epsg % 100 != simulation.epsg % 100:
        raise PlanError(
            f"the plan of {plan.name} {plan.year} (EPSG:{plan.grid.epsg}, simulated: {plan.simulated}) is not of the "
            f"simulation of {simulation.year} in EPSG:{simulation.epsg}; its truth would be another land's. "
            "Score a run over the catalogue that this simulation was written to"
        )


class _Reader:
    """The planes of a finished store, one date at a time, and the truth behind them."""

    def __init__(self, plan: Plan, store: Store, simulation: Simulation, harmonisation: Harmonisation) -> None:
        self.plan, self.store, self.simulation, self.harmonisation = plan, store, simulation, harmonisation
        self.landsat = plan.of("landsat8")
        self.registered = Registered(plan, store, plan.grid.window, harmonisation.shifts)
        self.shape = plan.grid.shape(10)
        shift = FALSE_NORTHING if plan.grid.epsg != simulation.epsg else 0
        self.corner = plan.grid.left, plan.grid.top - shift
        self._array = lru_cache(maxsize=None)(lambda name, array: cube.array(store, name, array))

    def row(self, pair: Pair) -> Row:
        """The row of one Landsat date."""
        scene = self.landsat[pair.landsat]
        clear30 = self.registered.clear(pair.landsat) == CLEAR
        clear = np.repeat(np.repeat(clear30, RATIO, 0), RATIO, 1)
        reference, age = composed([self._day(d, g) for d, g in zip(pair.references, pair.days, strict=True)], clear)
        scored = clear & (age != cube.FILL)
        percent = 100 * float(clear.mean()), 100 * float(scored.mean())
        if not scored.any():
            return Row(scene.day.isoformat(), None, None, round(percent[0], 2), 0.0, {})
        enlarged = self._enlarged(pair.landsat, clear30)
        made = {
            "fusion": self._stack(FUSED, "", self.plan.scenes.index(scene)),
            "bicubic": enlarged,
            "copy": reference,
            "ceiling": self.simulation.sentinel2(scene.time, *self.corner, self.shape),
        }
        truth = self.simulation.truth(scene.time, *self.corner, self.shape)
        ages, counts = np.unique(age[scored], return_counts=True)
        most = int(ages[np.argmax(counts)])
        return Row(
            scene.day.isoformat(),
            (scene.day - timedelta(days=most)).isoformat(),
            most,
            round(percent[0], 2),
            round(percent[1], 2),
            score_date(truth, made, scored, enlarged),
        )

    def _enlarged(self, index: int, clear: Mask) -> Floats:
        """Bicubic Landsat in the cube's radiometric frame, moved as for any method; masked pixels stand in with their
        nearest clear neighbour, for the kernel reaches over the edge of a mask."""
        values = self.registered.reflectance(index)
        nearest = distance_transform_edt(~clear, return_distances=False, return_indices=True)
        return upsample(self.harmonisation.apply(values[:, nearest[0], nearest[1]], index))

    def _day(self, index: int, gap: int) -> tuple[Callable[[], Floats], Mask, int]:
        clear = self._plane(INPUTS, "sentinel2/clear", index) == CLEAR
        return lambda: self._stack(INPUTS, "sentinel2/", index), clear, gap

    def _stack(self, name: str, group: str, index: int) -> Floats:
        return np.stack([unpack(self._plane(name, f"{group}{band}", index)) for band in BANDS])

    def _plane(self, name: str, array: str, index: int) -> NDArray[Any]:
        return np.asarray(self._array(name, array)[index])
