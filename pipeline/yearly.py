"""Cases out of the input cube of a year: windows of one's own land on which what Landsat became can be told.

*cross-sensor*: a Landsat date on whose own day Sentinel-2 came by, too. That day is the truth and is withheld: from the
references, and from the fit that brings Landsat into the cube's frame, which is made anew on other days alone (the fit
in the store leans on days as near as the plan allows, the same day with its defaults). Landsat's shift on the ground is
the store's own, two numbers a date that may have been measured against that day. *reduced*: every image three times
coarser, Landsat as it came, in the frame of the store, is the truth (Wald's protocol).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import get_args

import numpy as np

from marstfn.baselines import degrade
from marstfn.comparison import Case, Counted
from marstfn.reduced import reduced
from marstfn.reference import Reference
from marstfn.scenes import Scene as View
from pipeline import sampling, workers
from pipeline.errors import CubeError, PlanError
from pipeline.grid import Tile
from pipeline.harmonise import Harmonisation, fit_scenes
from pipeline.inputs import Array, Reading
from pipeline.mining import LEAST_SCORED, UNLIKE, Lattice
from pipeline.pairing import Pair, day_gap
from pipeline.plan import Plan, Scene
from pipeline.split import Protocol
from pipeline.store import Store

TRIES = 4
"""Windows looked at for each one wanted: under cloud the first may tell nothing."""
LEAST_SIDE = 18
"""Of a case in its own fine pixels."""

CLOUDED = "Landsat under cloud"
REJECTED = "Landsat rejected for where it lies"
NO_DAY = "without Sentinel-2 of the same day"
VEILED = "Sentinel-2 of the same day under cloud"
ALONE = "without a clear reference of another day"
UNALIKE = "Landsat and Sentinel-2 unlike, a mask having missed cloud in one of them"
GROUNDS = (NO_DAY, REJECTED, CLOUDED, VEILED, ALONE, UNALIKE)
"""Why a date gives no case; the later ones are nearer to one."""


@dataclass(frozen=True, slots=True)
class Draw:
    """What is drawn from a year. Raises PlanError for values that make no window."""

    protocol: Protocol = "cross-sensor"
    windows: int = 4
    """That give at least one case."""
    side: int = 216
    """Of a case in its own fine pixels (10 m; 30 m if reduced), a multiple of 6; less where the plan is smaller."""
    apart: int = 1
    """cross-sensor: days around Landsat's in which no reference may lie."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.protocol not in get_args(Protocol):
            raise PlanError(f"protocol {self.protocol} is unknown; choose {', '.join(get_args(Protocol))}")
        if self.windows < 1 or self.side < LEAST_SIDE or self.side % 6 or self.apart < 1:
            raise PlanError(
                f"{self.windows} windows of {self.side} px, references {self.apart} days away: give at least one "
                f"window, a side that is a multiple of 6 px of at least {LEAST_SIDE}, and at least one day"
            )


def cases(store: Store, draw: Draw | None = None) -> Iterator[Case]:
    """The cases of a store whose inputs are read and harmonised, window by window; the same at every call.

    Raises StoreError where there is no plan, CubeError where inputs or fits are missing or where not one date gives a
    case, saying how many fail on which ground, and PlanError where no window fits.
    """
    draw = draw or Draw()
    plan, _ = workers.opened(store.url, workers.stamped(store))
    stored, found = workers.harmonised(plan, store), workers.pairs(plan, store)
    places = drawn(plan, draw)
    if draw.protocol == "reduced":
        return _counted(_Year(plan, store, draw, stored, found), places)
    fits = without(plan, store, stored, draw, places)
    return _counted(_Year(plan, store, draw, fits, [_apart(p, draw.apart) for p in found]), places)


def drawn(plan: Plan, draw: Draw) -> list[Tile]:
    """The windows that may be looked at, in the order in which they are; all lie within the plan's tiles."""
    reduces = draw.protocol == "reduced"
    smallest = min(plan.grid.shape(10))
    side = min(draw.side, smallest // (18 if reduces else 6) * 6)
    lattice = Lattice(side, draw.protocol)
    there = set(plan.tiles)
    places = []
    if side >= LEAST_SIDE:
        rows, cols = lattice.shape(plan)
        for row, col in np.ndindex(rows, cols):
            window = lattice.window(plan, [(row, col)])
            if there.issuperset(plan.grid.under(window)):
                places.append(Tile(plan.grid, window.row0, window.row1, window.col0, window.col1, row, col))
    if not places:
        raise PlanError(
            f"no window of {lattice.side} x {lattice.side} px (10 m) lies within {plan.name}, whose plane has "
            f"{' x '.join(str(n) for n in plan.grid.shape(10))} px; choose a smaller side"
        )
    order = np.random.default_rng((29, draw.seed)).permutation(len(places))
    return [places[k] for k in order[: TRIES * draw.windows]]


def without(plan: Plan, store: Store, stored: Harmonisation, draw: Draw, places: Sequence[Tile]) -> Harmonisation:
    """The fits of all Landsat dates as the run makes them, on `places`, from days at least `draw.apart` away from every
    Landsat date."""
    if plan.options.min_reference_days >= draw.apart or not plan.options.scene_check:
        return stored
    options = plan.options.model_copy(update={"min_reference_days": draw.apart})
    blind = plan.model_copy(update={"options": options})
    some = places[: sampling.TILES]
    count = -(-sampling.SAMPLE // len(some))
    samples = [sampling.sample_tile(blind, store, place, count, stored.shifts) for place in some]
    return fit_scenes(blind, samples, f"{stored.fingerprint} without {draw.apart}", stored.shifts)


@dataclass(frozen=True, slots=True)
class _Year:
    plan: Plan
    store: Store
    draw: Draw
    fits: Harmonisation
    pairs: Sequence[Pair]

    def same_day(self) -> Mapping[int, int]:
        """By Landsat date the Sentinel-2 day that is its own."""
        sentinel2 = [s.time for s in self.plan.of("sentinel2")]
        return {
            index: day
            for index, scene in enumerate(self.plan.of("landsat8"))
            for day, time in enumerate(sentinel2)
            if day_gap(scene.time, time) == 0
        }

    def of(self, place: Tile) -> Iterator[Case | tuple[int, str]]:
        """The cases of a window; for a date without, the ground it fails on."""
        reading = Reading(self.plan, self.store, place, self.fits, self.pairs)
        own = self.same_day()
        for index, scene in enumerate(self.plan.of("landsat8")):
            if self.fits.shifts and self.fits.shifts[index].decision == "rejected":
                yield index, REJECTED
            elif self.draw.protocol == "cross-sensor" and index not in own:
                yield index, NO_DAY
            else:
                made = self._case(reading, place, scene, own.get(index))
                yield (index, made) if isinstance(made, str) else made

    def _case(self, reading: Reading, place: Tile, scene: Scene, day: int | None) -> Case | str:
        seen = reading.inputs(scene, both=True, pan=True)
        if np.isfinite(seen.landsat).all(0).mean() < LEAST_SCORED:
            return CLOUDED
        name, title = f"{scene.day}, {place.name}", f"{self.plan.name} {self.plan.year}"
        data = f"{'simulated' if self.plan.simulated else 'real'}: {self.plan.catalog}"
        if self.draw.protocol == "reduced":
            trial = reduced(seen.reference, seen.landsat, seen.pan)
            view = _view(scene, trial.reference, trial.landsat, trial.pan, trial.truth)
            group = f"{title}, reduced resolution (Landsat at 30 m is the truth)"
        else:
            assert day is not None
            view = _view(scene, seen.reference, seen.landsat, seen.pan, reading.observed(day))
            apart = f"{self.draw.apart} day{'s' if self.draw.apart > 1 else ''}"
            group = f"{title}, Sentinel-2 of the same day withheld, references at least {apart} away"
        case = Case(name, group, view, data, self.plan.simulated)
        if case.scored.mean() < LEAST_SCORED:
            # of a truth that is Landsat itself, what is missing is missing in its coarser image already
            return VEILED if self.draw.protocol == "cross-sensor" else CLOUDED
        if (case.scored & np.isfinite(view.s2).all(0)).mean() < LEAST_SCORED:
            return ALONE
        if self.draw.protocol == "cross-sensor" and not _alike(view):
            return UNALIKE
        return case


def _counted(year: _Year, places: Sequence[Tile]) -> Iterator[Case]:
    dates = len(year.plan.of("landsat8") if year.draw.protocol == "reduced" else year.same_day())
    return Counted(year.draw.windows * dates, _each(year, places))


def _each(year: _Year, places: Sequence[Tile]) -> Iterator[Case]:
    failed: dict[int, str] = {}
    gave = 0
    for place in places:
        some = False
        for made in year.of(place):
            if isinstance(made, Case):
                some = True
                yield made
            else:
                index, ground = made
                failed[index] = max(failed.get(index, ground), ground, key=GROUNDS.index)
        gave += some
        if gave == year.draw.windows:
            return
    if not gave:
        counts = Counter(failed.values())
        why = "; ".join(f"{counts[ground]} {ground}" for ground in GROUNDS if counts[ground])
        dates = len(year.plan.of("landsat8"))
        raise CubeError(
            f"{year.store.url}: none of {dates} Landsat dates gives a case under the protocol {year.draw.protocol} in "
            f"{len(places)} windows: {why or 'there are none'}. Draw more windows, choose "
            f"{'the protocol reduced' if year.draw.protocol == 'cross-sensor' else 'a larger area'} or another year"
        )


def _view(scene: Scene, reference: Reference, landsat: Array, pan: Array | None, truth: Array) -> View:
    height, width = truth.shape[1:]
    sharp = np.full((1, height * 2 // 3, width * 2 // 3), np.nan, np.float32) if pan is None else pan
    return View(scene.time, reference, landsat, sharp, truth)


def _apart(pair: Pair, least: int) -> Pair:
    """The pair without the days nearer than `least`."""
    kept = [k for k, gap in enumerate(pair.days) if abs(gap) >= least]
    return replace(
        pair,
        references=tuple(pair.references[k] for k in kept),
        days=tuple(pair.days[k] for k in kept),
        clear=tuple(pair.clear[k] for k in kept),
    )


def _alike(view: View) -> bool:
    """Whether Landsat and the truth show the same land, as far as 30 m tells: the rule by which training leaves patches
    out."""
    coarse = degrade(view.truth)
    known = np.isfinite(coarse).all(0) & np.isfinite(view.landsat).all(0)
    if not known.any():
        return False
    return bool((np.median(np.abs(coarse - view.landsat)[:, known], axis=1) <= UNLIKE).all())
