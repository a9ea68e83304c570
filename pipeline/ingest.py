"""One tile of a year, or several read together, from assets to whole shards of the input cube."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextvars import copy_context
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import pystac
from numpy.typing import NDArray

from pipeline import bandpass, cube, growth, ledger, settings, units
from pipeline.around import Around
from pipeline.cube import CLEAR, FILL, MASKED, NOTHING, Group
from pipeline.grid import Tile
from pipeline.growth import Earlier
from pipeline.plan import FORMAT, Plan, Scene, fingerprint
from pipeline.retries import Repeats
from pipeline.store import INPUTS, Store

MASKING = ("mask_dilation", "snow", "cirrus", "dilated_cloud", "cloud_mask")
"""Options that shape the masks."""

LIBRARIES = ("rasterio", "odc-stac", "odc-loader", "odc-geo", "numpy", "scipy")
"""Whose versions shape the pixels of the inputs."""

REPEATED = "repeated"
"""Name, in the statistics of a tile's record, of the requests that had to be repeated, by host."""

UNIT = "unit"
"""Name, in the statistics of a tile's record, of the unit it was read in; none where it was read by itself."""


@dataclass(frozen=True, slots=True)
class TileResult:
    """What a tile task returns: small, whatever the tile."""

    stage: str
    tile: str
    seconds: float
    timings: dict[str, float] = field(default_factory=dict)
    repeats: dict[str, int] = field(default_factory=dict)
    """Requests that had to be repeated, by host."""


def ingest_fingerprint(plan: Plan, tile: Tile) -> str:
    """Of everything that shapes the stored inputs of a tile."""
    return fingerprint([_common_fingerprint(plan), tile.name])


def _common_fingerprint(plan: Plan) -> str:
    """What the tiles of a plan share; kept, for thousands of tiles ask."""
    global _last
    if _last is not None and _last[0] is plan:
        return _last[1]
    found = fingerprint(
        {
            **reading_rules(plan),
            "scenes": [s.model_dump(mode="json") for s in plan.scenes],
            "items": plan.items_sha256,
            "radiometry": {k: v.model_dump(mode="json") for k, v in plan.radiometry.items()},
            "nbar": {k: v.model_dump(mode="json") for k, v in plan.nbar.items()},
        }
    )
    _last = plan, found
    return found


def reading_rules(plan: Plan) -> dict[str, Any]:
    """All that shapes the inputs beside the scenes: a date read under equal rules need not be read again."""
    grid = plan.grid
    adjusted = [a.model_dump(mode="json") for a in bandpass.of_sentinel2(plan.options.adjustments)]
    return {
        **({"bandpass": adjusted} if adjusted else {}),
        "format": FORMAT,
        "grid": [grid.epsg, grid.left, grid.top, grid.columns, grid.rows, grid.tile_px],
        # how it is read, not where it was served
        "catalog": "+".join(part.partition("@")[0] for part in plan.catalog.split("+")),
        "masks": [getattr(plan.options, name) for name in MASKING],
        "time_shard": plan.options.time_shard,
        "versions": {k: v for k, v in plan.versions.items() if k in LIBRARIES},
    }


_last: tuple[Plan, str] | None = None


def ingest_tile(plan: Plan, store: Store, tile: Tile, items: Mapping[str, pystac.Item]) -> TileResult:
    """Read all scenes of the plan for one tile and store them, block by block in time, then enter the ledger.

    Raises AssetError naming item, asset and tile where an asset cannot be read; the tile is then not in the ledger.
    """
    return ingest_tiles(plan, store, [tile], items, tile.name)


def ingest_tiles(
    plan: Plan, store: Store, tiles: Sequence[Tile], items: Mapping[str, pystac.Item], name: str
) -> TileResult:
    """Read all scenes of the plan for several tiles (at least one) at once and store them tile by tile, then enter each
    in the ledger with its share of the time; what is stored is what each tile read by itself gives.

    At a time a few bands of a block of dates are read, over the window around the tiles, while those before are
    written. Raises AssetError naming item, asset and `name` where an asset cannot be read; none of the tiles is then in
    the ledger.
    """
    began = time.perf_counter()
    spent = {"read": 0.0, "write": 0.0, "check": 0.0}
    repeats = Repeats()
    around = Around(plan, items, tuple(tiles), name, _threads(), repeats)
    blocks = [block for group in cube.groups(plan) for block in _blocks(around, store, group)]
    counts: dict[str, dict[str, list[list[int]]]] = {tile.name: {} for tile in tiles}
    for block, data, seconds in _read_ahead(blocks):
        spent["read"] += seconds
        start = time.perf_counter()
        _write(store, tiles, block, data, counts)
        data.clear()  # else it is held until the next is there
        spent["write"] += time.perf_counter() - start
    for index, tile in enumerate(tiles):
        start = time.perf_counter()
        checksums = ledger.checksum(store, cube.input_objects(plan, tile))
        checked = time.perf_counter() - start
        spent["check"] += checked
        stats: dict[str, Any] = dict(counts[tile.name])
        if len(tiles) > 1:
            stats[UNIT] = name
        if repeats.counts and not index:
            stats[REPEATED] = repeats.counts  # of all of them, told once
        timings = _rounded({k: v / len(tiles) for k, v in spent.items()} | {"check": checked})
        seconds = sum(timings.values())
        made_from = ingest_fingerprint(plan, tile)
        ledger.write(store, ledger.Record("ingest", tile.name, made_from, checksums, stats, round(seconds, 3), timings))
    return TileResult("ingest", name, time.perf_counter() - began, _rounded(spent), repeats.counts)


def _write(
    store: Store,
    tiles: Sequence[Tile],
    block: _Block,
    data: Mapping[str, NDArray[Any]],
    counts: Mapping[str, dict[str, list[list[int]]]],
) -> None:
    """Write what was read of a block as whole shards, tile by tile, and add to the `counts` of pixels by tile."""
    for name, values in data.items():
        target = cube.array(store, INPUTS, f"{block.group.name}/{name}", "r+")
        for tile in tiles:
            whole = block.completed(name, tile, values)
            cube.write_block(target, block.dates, tile, block.group.resolution, whole)
            if name == block.counted:
                counts[tile.name].setdefault(block.group.name, []).extend(block.counts(whole))


@dataclass(frozen=True, slots=True)
class _Block:
    """A block of dates of one group: what of it is read, and what the inputs of an earlier plan give."""

    group: Group
    dates: slice
    fresh: list[int]
    """Places in the block of the dates that are read."""
    known: Mapping[str, Mapping[int, int]]
    """By tile, place of a date along the earlier axis by its place in the block."""
    earlier: Earlier | None
    around: Around
    scenes: Sequence[Scene]

    @property
    def steps(self) -> list[tuple[str, ...]]:
        """What is read together, the mask last: bands take from it what they lack."""
        count = units.bands_at_once(self.group, len(self.fresh), self.around.window)
        bands = self.group.bands
        parts = [bands[k : k + count] for k in range(0, len(bands), count)]
        return [*parts, ("clear",)] if self.group.masked else parts

    @property
    def counted(self) -> str:
        """The variable whose pixels are counted for the ledger."""
        return "clear" if self.group.masked else self.group.bands[0]

    def size(self, names: tuple[str, ...]) -> int:
        """Bytes of what `read` gives."""
        ny, nx = self.around.window.shape(self.group.resolution)
        return len(self.fresh) * ny * nx * (1 if names == ("clear",) else 2 * len(names))

    def read(self, names: tuple[str, ...]) -> dict[str, NDArray[Any]]:
        """Arrays (fresh dates, ny, nx) over the window. Raises AssetError."""
        scenes = [self.scenes[k] for k in self.fresh]
        if not scenes:
            return {name: np.empty((0, 0, 0), np.uint8) for name in names}
        if names == ("clear",):
            return {"clear": self.around.clear(self.group, scenes)}
        return self.around.bands(self.group, scenes, names)

    def completed(self, name: str, tile: Tile, values: NDArray[Any]) -> NDArray[Any]:
        """All dates of the block (dates, ny, nx) of a tile: those read over the window, or taken over."""
        resolution = self.group.resolution
        rows, columns = units.within(tile, self.around.window, resolution)
        known = self.known[tile.name]
        if not known or self.earlier is None:
            return values[:, rows, columns]
        kept = self.earlier.read(self.group, name, list(known.values()), tile)
        out = np.empty((len(self.scenes), *tile.shape(resolution)), kept.dtype)
        if self.fresh:
            out[self.fresh] = values[:, rows, columns]
        out[list(known)] = kept
        return out

    def counts(self, days: NDArray[Any]) -> list[list[int]]:
        """Pixels that are clear, masked, nothing, day by day."""
        if self.group.masked:
            return [[int((day == v).sum()) for v in (CLEAR, MASKED, NOTHING)] for day in days]
        there = [int((day != FILL).sum()) for day in days]
        return [[n, 0, day.size - n] for n, day in zip(there, days, strict=True)]


def _blocks(around: Around, store: Store, group: Group) -> list[_Block]:
    """The blocks of dates of a group, in order of time."""
    plan = around.plan
    scenes = cube.group_scenes(plan, group)
    if not scenes:
        return []
    earlier = growth.earlier(store, plan, around.items, reading_rules)
    known: dict[str, Mapping[int, int]] = {tile.name: {} for tile in around.tiles}
    if earlier is not None:
        for tile in around.tiles:
            known[tile.name] = earlier.of(tile, ingest_fingerprint(earlier.plan, tile), group)
    out = []
    for dates in cube.input_blocks(plan, group):
        places = range(dates.start, dates.stop)
        here = {name: {k - dates.start: found[k] for k in places if k in found} for name, found in known.items()}
        fresh = [k for k in range(len(places)) if any(k not in found for found in here.values())]
        out.append(_Block(group, dates, fresh, here, earlier, around, scenes[dates]))
    return out


def _read_ahead(blocks: Sequence[_Block]) -> Iterator[tuple[_Block, dict[str, NDArray[Any]], float]]:
    """What is ready to be written of each block, with the seconds it was waited for. While it is written the next is
    read, and more as far as it may be held, so that threads have work when the last files of a load are left.

    A pixel is known only where all bands are: at the edge of a scene they end at different places.
    """
    steps = [(block, names) for block in blocks for names in block.steps]
    sizes = [block.size(names) for block, names in steps]
    coming: deque[Future[dict[str, NDArray[Any]]]] = deque()
    nothing: NDArray[np.bool_] | None = None

    def begin(held: int, first: int) -> None:
        """Begin with loads from `first` on, that one in any case, while those from `held` on may be held."""
        while (last := first + len(coming)) < len(steps):
            if coming and (len(coming) == units.LOADS or sum(sizes[held : last + 1]) > 2 * units.TOGETHER):
                break
            read, names = steps[last][0].read, steps[last][1]
            coming.append(_ahead().submit(copy_context().run, read, names))  # logs there bear the tile's name, too

    try:
        for index, (block, names) in enumerate(steps):
            start = time.perf_counter()
            begin(index, index)
            data = coming.popleft().result()
            begin(index, index + 1)
            waited = time.perf_counter() - start
            if names == ("clear",):
                assert nothing is not None
                data["clear"][nothing] = NOTHING
                nothing = None
            elif block.group.masked:
                for band in data.values():
                    if nothing is None:
                        nothing = np.zeros(band.shape, np.bool_)
                    for day, values in zip(nothing, band, strict=True):
                        day |= values == FILL
            yield block, data, waited
            del data
    finally:
        for future in coming:
            future.cancel()
        wait(coming)


_kept = threading.local()


def _ahead() -> ThreadPoolExecutor:
    """Threads that wait for the loads of the tile that this thread reads; they live on, as those that read do: what
    GDAL, PROJ and the allocator keep by thread is then made once, not with every tile."""
    if not hasattr(_kept, "ahead"):
        _kept.ahead = ThreadPoolExecutor(units.LOADS, thread_name_prefix="load")
    found: ThreadPoolExecutor = _kept.ahead
    return found


@cache
def _threads() -> int:
    """Threads that read assets, shared by all tiles of a process."""
    return settings.load().io_threads


def _rounded(spent: Mapping[str, float]) -> dict[str, float]:
    return {k: round(v, 3) for k, v in spent.items()}
