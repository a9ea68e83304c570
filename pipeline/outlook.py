"""What a plan will cost and yield, told before any pixel is read."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

import pystac
from odc.geo.geom import Geometry
from shapely.geometry.base import BaseGeometry

from marstfn.bands import BANDS
from pipeline import memory, settings, units
from pipeline.cluster import SLOTS
from pipeline.duration import (
    UNKNOWN,
    Duration,
    Rates,
    Work,
    assumed,
    duration,
    gate_pixels,
    looked_pixels,
    patch_pixels,
)
from pipeline.facts import footprint
from pipeline.grid import Tile, Window
from pipeline.plan import Plan, Scene, SensorName

OPTICAL = 2 * len(BANDS)
"""Bytes of one pixel of reflectance, int16."""

LAYERS = 7
"""Bytes of one pixel of what stands beside reflectance: quality, age, coherence, uncertainty."""

COMPRESSED = 0.61
"""Share that is left of int16 reflectance after zstd-3 with bitshuffle (measured on real and simulated scenes)."""

PACKED = 0.85
"""Bytes in a file for each byte of a band: Sentinel-2 Collection 1 items that are full state 0.81 at 10 m and 0.90 at
20 m (`file:size`)."""

PACKED_MASK = 0.06
"""The same of a mask: 1.7 MB of SCL in 30 MB."""

BLOCK = 512
"""Side in pixels of a file's inner blocks, which are read whole: on the average one more a tile than it is wide."""

LOOPBACK = ("127.0.0.1", "localhost", "::1")
"""Hosts between which and here there is no network."""


@dataclass(frozen=True, slots=True)
class Month:
    """Scenes of one month."""

    month: str
    landsat: int
    with_pan: int
    sentinel2: int
    landsat_clear: float | None = None
    """Mean share of clear sky that the catalogue reports for the items, 0..1; None where it reports none."""
    sentinel2_clear: float | None = None


@dataclass(frozen=True, slots=True)
class Outlook:
    """A plan in figures; sizes in megabytes (10^6 bytes)."""

    name: str
    year: int
    km2: float
    """Of the grid."""
    tiles: int
    tile_px: int
    shape: tuple[int, int]
    """10 m pixels, rows and columns."""
    months: tuple[Month, ...]
    store_mb: float
    """Expected size of inputs and output on disk, both compressed."""
    raw_mb: float
    """The same uncompressed: an upper bound."""
    worker_mb: float
    """Bound of the memory of a fusing worker."""
    dropped: tuple[tuple[str, int], ...]
    """Reasons and numbers of items left out, the commonest first."""
    landsats: str = "Landsat 8"
    reader_mb: float = 0.0
    """Bound of the memory of a worker that reads, as many units at once as on this machine."""
    read_mb: float = 0.0
    """Expected to be read from the catalogue's files; 0 where the items are not known."""
    duration: Duration | None = None
    """Expected length of the run by its parts; None where the items or the method's speed are not known."""
    rates: Rates = UNKNOWN
    """What it was reckoned with."""
    threads: int = 1
    holes: tuple[str, ...] = ()
    """What the catalogue should list and does not, a line each."""

    @property
    def headline(self) -> str:
        """The outlook in one line."""
        landsat, sentinel2 = (sum(getattr(m, key) for m in self.months) for key in ("landsat", "sentinel2"))
        return (
            f"{self.name} {self.year}: {landsat} {self.landsats} and {sentinel2} Sentinel-2 days, {self.tiles} tiles, "
            f"about {_size(self.store_mb)} on disk"
        )

    def lines(self) -> list[str]:
        """The outlook as plain text, a line each."""
        rows, columns = self.shape
        out = [
            f"{self.name} {self.year}: {columns} x {rows} px of 10 m ({self.km2:,.1f} km2), "
            f"{self.tiles} tiles of {self.tile_px} px",
            f"{'month':<8}{'Landsat':>9}{'clear':>7}{'with pan':>10}{'Sentinel-2':>12}{'clear':>7}",
        ]
        out += [_row(m) for m in (*self.months, self.year_row)]
        if self.read_mb:
            out.append(f"expected to be read {_size(self.read_mb)}; {self.time}")
        out.append(
            f"expected size of the store {_size(self.store_mb)} (at most {_size(self.raw_mb)}); "
            f"memory of a worker at most {_size(self.worker_mb)} fusing, {_size(self.reader_mb)} reading"
        )
        out += [f"left out: {count} x {why}" for why, count in self.dropped]
        return [*out, *self.holes]

    @property
    def year_row(self) -> Month:
        """All months in one."""

        def mean(counts: str, clear: str) -> float | None:
            told = [(getattr(m, counts), getattr(m, clear)) for m in self.months if getattr(m, clear) is not None]
            weight = sum(n for n, _ in told)
            return sum(n * share for n, share in told) / weight if weight else None

        landsat, pan, sentinel2 = (
            sum(getattr(m, k) for m in self.months) for k in ("landsat", "with_pan", "sentinel2")
        )
        return Month(
            "year", landsat, pan, sentinel2, mean("landsat", "landsat_clear"), mean("sentinel2", "sentinel2_clear")
        )

    @property
    def time(self) -> str:
        """How long it will take, in words."""
        if self.duration is None:
            return "how long it takes was not measured: no run of this kind has told, and this machine cannot"
        each, on = self.duration, "1 core" if self.threads == 1 else f"{self.threads} cores"
        between = each.start + each.harmonise + each.gate + each.finish
        return (
            f"about {span(each.total)}: {span(each.ingest)} to read, {span(each.fuse)} to fuse on {on}, "
            f"{span(between)} for the rest (rates: {self.rates.source})"
        )


def outlook(plan: Plan, items: Iterable[pystac.Item] = (), rates: Rates | None = None) -> Outlook:
    """The figures of `plan`; with its `items` also the sky they report, the bytes to be read and, by `rates`
    (pipeline.calibration; None: assumptions), the time it takes."""
    tiles, known, fast = plan.tiles, {item.id: item for item in items}, rates or assumed(plan)
    defaults = settings.load()
    side = units.side(plan, defaults.unit_mb * 1e6, threads=defaults.io_threads) if defaults.unit_mb else 1
    read, reads = _reading(plan, tiles, known, side)
    pixels = sum(rows * columns for rows, columns in (tile.shape(10) for tile in tiles))
    observed, coarse = len(plan.of("sentinel2")), len(plan.of("landsat8"))
    pan = coarse if plan.has_pan else 0
    # reflectance compresses to COMPRESSED of its size; masks and quality nearly vanish
    reflectance = pixels * (OPTICAL * (observed + coarse / 9 + observed + coarse) + 2 * pan * 4 / 9)
    extras = pixels * (observed + coarse / 9 + LAYERS * (observed + coarse))
    return Outlook(
        name=plan.name,
        year=plan.year,
        km2=plan.grid.columns * plan.grid.rows * 0.0036,
        tiles=len(tiles),
        tile_px=plan.grid.tile_px,
        shape=plan.grid.shape(10),
        months=_months(plan, known),
        read_mb=read,
        duration=duration(_work(plan, known, read, reads, (observed + coarse) * pixels * (OPTICAL + LAYERS)), fast),
        rates=fast,
        threads=plan.options.threads or 1,
        holes=tuple(hole.text for hole in plan.holes),
        store_mb=(COMPRESSED * reflectance + 0.05 * extras) / 1e6,
        raw_mb=(reflectance + extras) / 1e6,
        worker_mb=memory.fusing(plan).megabytes,
        reader_mb=memory.reading(plan, slots=SLOTS, threads=defaults.io_threads, side=side).megabytes,
        dropped=tuple(Counter(_kind(d.why) for d in plan.dropped).most_common()),
        landsats=plan.landsats,
    )


def summary(plan: Plan) -> str:
    """The figures of `plan` as plain text: scenes a month, tiles, sizes, what was left out and why."""
    return "\n".join(outlook(plan).lines())


def _months(plan: Plan, items: Mapping[str, pystac.Item]) -> tuple[Month, ...]:
    labels = sorted({f"{s.day:%Y-%m}" for s in plan.scenes})

    def of(label: str, sensor: SensorName) -> list[Scene]:
        return [s for s in plan.of(sensor) if f"{s.day:%Y-%m}" == label]

    def mean(scenes: Iterable[Scene]) -> float | None:
        told = [share for share in (clear_share(s, items) for s in scenes) if share is not None]
        return sum(told) / len(told) if told else None

    out = []
    for label in labels:
        landsat, sentinel2 = of(label, "landsat8"), of(label, "sentinel2")
        pan = sum(1 for s in landsat if s.pan_items)
        out.append(Month(label, len(landsat), pan, len(sentinel2), mean(landsat), mean(sentinel2)))
    return tuple(out)


def clear_share(scene: Scene, items: Mapping[str, pystac.Item]) -> float | None:
    """Share of clear sky, 0..1, that the items of a scene report for the whole of them; None where none does."""
    told = [items[name].properties.get("eo:cloud_cover") for name in scene.items if name in items]
    known = [float(cloud) for cloud in told if cloud is not None]
    return 1 - sum(known) / len(known) / 100 if known else None


def particulars(plan: Plan, items: Iterable[pystac.Item] = ()) -> list[str]:
    """Scene by scene what is read, in the order in which it is laid over one another, and item by item what is not."""
    known = {item.id: item for item in items}
    out = []
    for scene in plan.scenes:
        clear = clear_share(scene, known)
        sky = "" if clear is None else f", {100 * clear:.0f} % clear"
        pan = f", pan {' '.join(scene.pan_items)}" if scene.pan_items else ""
        how = "" if len(scene.items) == 1 else f" ({len(scene.items)} items, the first on top)"
        rules = sorted({plan.radiometry[name].rule for name in scene.items if name in plan.radiometry})
        out.append(f"{scene.label}{sky}: {' '.join(scene.items)}{how}{pan}; {'; '.join(rules)}")
    return [*out, *(f"left out: {d.item}: {d.why}" for d in plan.dropped)]


def _reading(plan: Plan, tiles: Sequence[Tile], items: Mapping[str, pystac.Item], side: int) -> tuple[float, float]:
    """Megabytes of the blocks that hold the units of `side` x `side` tiles in which they are read, of every item as far
    as it covers the area, and reads of one asset for one tile."""
    if not items:
        return 0.0, 0.0
    area = Geometry(plan.aoi, "EPSG:4326").geom
    cells, alone = units.divided(plan.grid, tiles, side)
    windows = [*(units.bounding(units.wanted(plan, cell)) for cell in cells), *alone]
    total = reads = 0.0
    bytes_of = {}
    for scene in plan.scenes:
        for name in (*scene.items, *scene.pan_items):
            item = items.get(name)
            outline = footprint({"geometry": item.geometry}) if item is not None else None
            largest = float("inf") if outline is None else _metres(outline)
            kind = (scene.sensor, name in scene.items, name in scene.pan_items, float(f"{largest:.3g}"))
            if kind not in bytes_of:
                bytes_of[kind] = _bytes(windows, *kind)
            covered = 1.0 if outline is None else float(outline.intersection(area).area / area.area)
            size, count = bytes_of[kind]
            total, reads = total + size * covered, reads + count * len(tiles) * covered
    return total / 1e6, reads


def _bytes(windows: Sequence[Window], sensor: SensorName, bands: bool, pan: bool, metres2: float) -> tuple[float, int]:
    """Bytes of the blocks of one item that hold the windows, and its assets that are read; `metres2`: of its files."""

    def pixels(size: int) -> float:
        # a small file is no more than itself, however large its blocks would be
        return sum(min(_blocks(window, size), metres2 / size**2) for window in windows)

    if sensor == "sentinel2":
        return pixels(10) * 2 * 3 * PACKED + pixels(20) * (2 * 3 * PACKED + PACKED_MASK), 7
    total, assets = 0.0, 0
    if bands:
        total, assets = pixels(30) * 2 * (6 * PACKED + 2 * PACKED_MASK), 8
    if pan:
        total, assets = total + pixels(15) * 2 * PACKED, assets + 1
    return total, assets


def _metres(outline: BaseGeometry) -> float:
    """Square metres under an outline in degrees, about."""
    return float(outline.area) * 111_320.0**2 * math.cos(math.radians(outline.centroid.y))


def _work(plan: Plan, items: Mapping[str, pystac.Item], read_mb: float, reads: float, output: float) -> Work:
    """What the plan asks of a machine; `output`: bytes of the fused cube, uncompressed."""
    hosts = {urlsplit(a.href).hostname for item in items.values() for a in item.assets.values()}
    clear = {s.label: share for s in plan.of("landsat8") if (share := clear_share(s, items)) is not None}
    return Work(
        read_mb,
        reads,
        bool(hosts) and all(host is None or host in LOOPBACK for host in hosts),
        patch_pixels(plan, clear),
        looked_pixels(plan),
        gate_pixels(plan),
        output / 1e6,
    )


def _blocks(window: Window, size: int) -> float:
    """Pixels of `size` metres in the blocks that a window touches, on the average."""
    rows, columns = window.shape(10)
    return (rows * 10 / size + BLOCK) * (columns * 10 / size + BLOCK)


def _row(month: Month) -> str:
    landsat, sentinel2 = (
        "" if share is None else f"{100 * share:.0f} %" for share in (month.landsat_clear, month.sentinel2_clear)
    )
    return (
        f"{month.month:<8}{month.landsat:>9}{landsat:>7}{month.with_pan:>10}{month.sentinel2:>12}{sentinel2:>7}"
    ).rstrip()


def span(seconds: float) -> str:
    """A length of time as people say it."""
    if seconds < 100:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes / 60:.0f} h"


def _kind(why: str) -> str:
    """A reason without the particulars of one item."""
    for begin, kind in (("same data as", "a newer processing"), ("same acquisition as", "another processing")):
        if why.startswith(begin):
            return f"{begin} {kind}"
    return why.split(":")[0].split(" degrees")[0]


def _size(megabytes: float) -> str:
    return f"{megabytes / 1000:.1f} GB" if megabytes >= 1000 else f"{megabytes:.0f} MB"
