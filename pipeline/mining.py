"""Training samples out of the input cube, one tile at a time: first how clear its patches are, then those wanted.

Two protocols. *cross-sensor*: Sentinel-2 of the same or a near day is the truth at 10 m, everything as `fuse` sees it.
*reduced*: everything is three times coarser, Sentinel-2 30 m, Landsat 90 m, pan 45 m, and the real Landsat, brought to
the cube's one radiometric frame, is the truth at 30 m; what is learnt there is used three times finer. Degrading is
the mean of 3 x 3 pixels for all: on real pairs it brought Sentinel-2 nearest to Landsat, so that one factor holds
between the two sensors before as after.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from marstfn.bands import BANDS, COARSE, FINE, RATIO
from marstfn.baselines import degrade
from marstfn.dataset import Sample, finish, generate
from marstfn.reference import Reference
from pipeline import cube, ledger, split
from pipeline.days import KEPT, Days
from pipeline.errors import CubeError, StoreError
from pipeline.grid import CELL, Tile, Window
from pipeline.harmonise import Harmonisation
from pipeline.plan import Plan, fingerprint
from pipeline.registered import Registered
from pipeline.split import SETS, Cut, Pick, Protocol, Rule
from pipeline.store import Store

log = logging.getLogger(__name__)

Array = NDArray[np.float32]

FOLDER = "training"
"""Of everything about training in a store."""
WANTED = f"{FOLDER}/cut.json"
UNLIKE = 0.05
"""Median difference between Landsat and the truth at 30 m, in any band, beyond which one of them is taken for cloud
that its mask missed, and the patch is left out."""
LEAST_SCORED = 0.3
"""Share of a patch that must be known in Landsat and truth for it to teach anything."""
LATE = 0.5
"""Share of reference days, at most, that wait until the others are used up: so that ages vary as under all skies."""


@dataclass(frozen=True, slots=True)
class Lattice:
    """Patches over the whole plane from its upper-left corner on; what is left over at the other edges is not used."""

    patch: int
    """Side in pixels of the network's fine grid, a multiple of 6."""
    protocol: Protocol

    @property
    def side(self) -> int:
        """Side on the ground in 10 m pixels."""
        return self.patch * (RATIO if self.protocol == "reduced" else 1)

    def shape(self, plan: Plan) -> tuple[int, int]:
        """(rows, columns) of patches in the plane."""
        height, width = plan.grid.shape(FINE)
        return height // self.side, width // self.side

    def of(self, plan: Plan, tile: Tile) -> list[tuple[int, int]]:
        """(row, column) of the patches whose upper-left corner lies in the tile."""
        rows, cols = (
            range(-(-span.start // self.side), min(-(-span.stop // self.side), count))
            for span, count in zip(tile.roi(FINE), self.shape(plan), strict=True)
        )
        return [(row, col) for row in rows for col in cols]

    def window(self, plan: Plan, places: Sequence[tuple[int, int]]) -> Window:
        """The smallest window that holds all of `places`."""
        cells = self.side * FINE // CELL
        rows, cols = zip(*places, strict=True)
        return Window(plan.grid, min(rows) * cells, (max(rows) + 1) * cells, min(cols) * cells, (max(cols) + 1) * cells)


@dataclass(frozen=True, slots=True, eq=False)
class Census:
    """How clear a tile's patches are: (patches, days) shares 0..1 of both sensors."""

    places: tuple[tuple[int, int], ...]
    landsat: NDArray[np.float32]
    sentinel2: NDArray[np.float32]


def census(plan: Plan, store: Store, tile: Tile, lattice: Lattice) -> Census:
    """Count the clear pixels of a tile's patches, day by day."""
    places = lattice.of(plan, tile)
    out = []
    for group in (cube.LANDSAT8, cube.SENTINEL2):
        days = len(cube.group_scenes(plan, group))
        shares = np.zeros((len(places), days), np.float32)
        if places:
            window = lattice.window(plan, places)
            read = Days(store, group, window, days, 1)
            side = lattice.side * FINE // group.resolution
            for day in range(days):
                seen = read.seen(day)
                rows, cols = seen.shape[0] // side, seen.shape[1] // side
                mean = seen.reshape(rows, side, cols, side).mean((1, 3), dtype=np.float32)
                shares[:, day] = [mean[_at(lattice, window, *place)] for place in places]
        out.append(shares)
    return Census(tuple(places), *out)


@dataclass(frozen=True, slots=True)
class Mined:
    """What a tile gave: samples by set, and patches left out because Landsat and truth were unlike."""

    tile: str
    counts: tuple[int, int, int]
    unlike: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is mined from a store: the patches, the rule and the cut."""

    identity: str
    """Of the inputs and options that it follows from."""
    lattice: Lattice
    rule: Rule
    cut: Cut

    @property
    def basis(self) -> str:
        """Hash of all of it."""
        return fingerprint({**asdict(self), "cut": split.as_dict(self.cut)})

    def tiles(self, plan: Plan) -> list[Tile]:
        """The tiles of the plan in which samples lie."""
        places = {(p.row, p.col) for part in self.cut.picks for p in part}
        return [tile for tile in plan.tiles if places.intersection(self.lattice.of(plan, tile))]


def wanted(store: Store) -> Wanted | None:
    """What an earlier run decided to mine, or None. Raises CubeError where it cannot be understood."""
    data = store.read(WANTED)
    if data is None:
        return None
    try:
        raw = json.loads(data)
        return Wanted(raw["identity"], Lattice(**raw["lattice"]), Rule(**raw["rule"]), split.from_dict(raw["cut"]))
    except (ValueError, TypeError, KeyError) as error:
        raise CubeError(f"{store.join(WANTED)} cannot be read ({error}); delete it and it is made again") from error


def decide(store: Store, value: Wanted) -> None:
    """Keep what is to be mined where workers find it."""
    raw = {**asdict(value), "cut": split.as_dict(value.cut)}
    store.write(WANTED, json.dumps(raw, allow_nan=False).encode())


def mine_fingerprint(want: Wanted, tile: Tile) -> str:
    """Of everything that shapes the samples of a tile."""
    return fingerprint([want.basis, tile.name])


def mine(plan: Plan, store: Store, tile: Tile, fits: Harmonisation, want: Wanted) -> Mined:
    """Write the tile's samples, a file for each Landsat day, to the folder of its set, then enter the ledger.

    Raises StoreError where the store is no folder.
    """
    began = time.perf_counter()
    if store.local is None:
        raise StoreError(
            f"{store.url} is no folder; training reads its samples as files. Choose a folder that all workers share "
            "(--store)"
        )
    lattice, rule, cut = want.lattice, want.rule, want.cut
    places = set(lattice.of(plan, tile))
    rejected = {s.landsat for s in fits.shifts if s.decision == "rejected"}
    counts, unlike = [0, 0, 0], 0
    for index, (name, picks) in enumerate(zip(SETS, cut.picks, strict=True)):
        folder = store.local / FOLDER / name
        for path in folder.glob(f"{tile.name}-*.npz"):
            path.unlink()
        mine_ = [p for p in picks if (p.row, p.col) in places and p.landsat not in rejected]
        if not mine_:
            continue
        view = _View(plan, store, lattice.window(plan, [(p.row, p.col) for p in mine_]), fits, lattice)
        for day in sorted({p.landsat for p in mine_}):
            today = [p for p in mine_ if p.landsat == day]
            days = _days(plan, rule, cut, index, today[0])
            # the survey counts what the masks call clear; a scene set aside since has nothing to score
            made = [s for s in view.samples(today, days, rule.seed) if s.scored.mean() >= LEAST_SCORED]
            alike = [s for s in made if rule.protocol == "reduced" or _alike(s)]
            unlike += len(made) - len(alike)
            counts[index] += len(alike)
            if alike:
                list(generate(folder, _Given(alike), [day], name=tile.name, processes=1))
    seconds = time.perf_counter() - began
    stats = {"samples": counts, "unlike": unlike}
    ledger.write(store, ledger.Record("mine", tile.name, mine_fingerprint(want, tile), {}, stats, round(seconds, 3)))
    return Mined(tile.name, (counts[0], counts[1], counts[2]), unlike, seconds)


def sight(plan: Plan, lattice: Lattice, found: Sequence[Census]) -> split.Sight:
    """What all tiles saw, on the whole lattice; patches of no tile saw nothing."""
    landsat, sentinel2 = (plan.of(sensor) for sensor in ("landsat8", "sentinel2"))
    shape = lattice.shape(plan)
    out = [np.zeros((*shape, len(scenes)), np.float32) for scenes in (landsat, sentinel2)]
    for part in found:
        for k, (row, col) in enumerate(part.places):
            out[0][row, col], out[1][row, col] = part.landsat[k], part.sentinel2[k]
    days = [tuple(s.day.toordinal() for s in scenes) for scenes in (landsat, sentinel2)]
    return split.Sight(out[0], out[1], days[0], days[1])


def order(days: Sequence[tuple[int, int]], late: Sequence[bool]) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """(day, distance) before and after the date out of (day, gap; positive before it): the nearest first, those that
    are late after all others."""
    marked = sorted(zip(late, days, strict=True), key=lambda entry: (entry[0], abs(entry[1][1]), entry[1][0]))
    before = [(day, gap) for _, (day, gap) in marked if gap > 0]
    after = [(day, -gap) for _, (day, gap) in marked if gap < 0]
    return before, after


@dataclass(frozen=True, slots=True)
class _Given:
    """Samples that are there already, as `marstfn.dataset.generate` asks for them."""

    samples: list[Sample]

    def __call__(self, seed: int) -> list[Sample]:
        return self.samples


class _View:
    """One window of the input cube at the scale of the protocol."""

    def __init__(self, plan: Plan, store: Store, window: Window, fits: Harmonisation, lattice: Lattice) -> None:
        self._lattice, self._window, self._fits = lattice, window, fits
        self._sentinel2 = Days(store, cube.SENTINEL2, window, len(plan.of("sentinel2")), KEPT)
        self._landsat8 = Registered(plan, store, window, fits.shifts)
        self._pan = [bool(scene.pan_items) for scene in plan.of("landsat8")]
        self._fine = lru_cache(maxsize=8)(self._read_fine)

    def samples(self, picks: Sequence[Pick], days: Sequence[tuple[int, int]], seed: int) -> Iterator[Sample]:
        """The samples of one Landsat day, whose references are `days` (day, gap), less the day that is the truth."""
        index = picks[0].landsat
        landsat, pan = self._landsat(index), self._sharp(index)
        truths = sorted({p.truth for p in picks})
        rng = np.random.default_rng((6, seed, index, self._window.row0, self._window.col0))
        late = rng.random(len(days)) < rng.uniform(0, LATE)
        for truth in truths:
            others = [(entry, bool(last)) for entry, last in zip(days, late, strict=True) if entry[0] != truth]
            reference = self._reference([e for e, _ in others], [last for _, last in others])
            fine = landsat if truth < 0 else self._fine(truth)
            for pick in (p for p in picks if p.truth == truth):
                yield self._sample(pick, reference, landsat, pan, fine)

    def _sample(self, pick: Pick, reference: Reference, landsat: Array, pan: Array | None, fine: Array) -> Sample:
        patch = self._lattice.patch
        row, col = _at(self._lattice, self._window, pick.row, pick.col)
        rows, cols = slice(row * patch, (row + 1) * patch), slice(col * patch, (col + 1) * patch)
        truth = np.array(fine[:, rows, cols])
        if self._lattice.protocol == "reduced":
            coarse = degrade(truth)
        else:
            third = slice(rows.start // 3, rows.stop // 3), slice(cols.start // 3, cols.stop // 3)
            coarse = np.array(landsat[:, *third])
        sharp = np.full((1, patch * 2 // 3, patch * 2 // 3), np.nan, np.float32)
        if pan is not None:
            at = slice(rows.start * 2 // 3, rows.stop * 2 // 3), slice(cols.start * 2 // 3, cols.stop * 2 // 3)
            sharp = np.array(pan[:, *at])
        return finish(reference.cut(rows, cols), coarse, sharp, truth)

    def _reference(self, days: Sequence[tuple[int, int]], late: Sequence[bool]) -> Reference:
        sides = [self._side(side) for side in order(days, late)]
        return Reference(sides[0][0], sides[1][0], sides[0][1], sides[1][1])

    def _side(self, side: Sequence[tuple[int, int]]) -> tuple[Array, Array]:
        """(6, H, W) of the first clear day of each pixel, and (H, W) its distance in days."""
        shape = self._window.shape(COARSE if self._lattice.protocol == "reduced" else FINE)
        values = np.full((len(BANDS), *shape), np.nan, np.float32)
        away = np.full(shape, np.inf, np.float32)
        for day, distance in side:
            open_ = ~np.isfinite(away)
            if not open_.any():
                break
            seen = self._fine(day)
            take = open_ & ~np.isnan(seen).any(0)
            values[:, take], away[take] = seen[:, take], distance
        return values, away

    def _read_fine(self, day: int) -> Array:
        """(6, H, W) Sentinel-2 of a day, NaN where it is not clear; at 30 m under the reduced protocol."""
        values = self._sentinel2.reflectance(day)
        values[:, ~self._sentinel2.seen(day)] = np.nan
        return degrade(values) if self._lattice.protocol == "reduced" else values

    def _landsat(self, index: int) -> Array:
        """(6, h, w) at 30 m in the cube's frame, NaN where it is not clear."""
        return self._fits.apply(self._landsat8.reflectance(index), index)

    def _sharp(self, index: int) -> Array | None:
        """(1, 2h, 2w) at 15 m, or at 45 m under the reduced protocol; None where the day has none."""
        if not self._pan[index]:
            return None
        values = self._landsat8.pan(index)
        return degrade(values) if self._lattice.protocol == "reduced" else values


def _days(plan: Plan, rule: Rule, cut: Cut, owner: int, pick: Pick) -> list[tuple[int, int]]:
    """(day, gap) of the Sentinel-2 days that may be references of a Landsat day: of its own set, of other days."""
    when = plan.of("landsat8")[pick.landsat].day
    gaps = [(j, (when - scene.day).days) for j, scene in enumerate(plan.of("sentinel2"))]
    return [(j, gap) for j, gap in gaps if 1 <= abs(gap) <= rule.reach and cut.sentinel2[j] == owner]


def _alike(sample: Sample) -> bool:
    """Whether Landsat and the truth show the same land, as far as 30 m tells."""
    known = sample.scored.reshape(len(sample.scored) // RATIO, RATIO, -1, RATIO).all((1, 3))
    if not known.any():
        return False
    apart: Any = np.abs(degrade(sample.truth) - sample.landsat)[:, known]
    return bool((np.median(apart, axis=1) <= UNLIKE).all())


def _at(lattice: Lattice, window: Window, row: int, col: int) -> tuple[int, int]:
    """Place of a patch in the window, counted in patches."""
    cells = lattice.side * FINE // CELL
    return row - window.row0 // cells, col - window.col0 // cells


__all__ = [
    "FOLDER",
    "Census",
    "Lattice",
    "Mined",
    "Wanted",
    "census",
    "decide",
    "mine",
    "mine_fingerprint",
    "order",
    "sight",
    "wanted",
]
