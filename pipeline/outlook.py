"""What a plan will cost and yield, told before any pixel is read."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from marstfn.bands import BANDS
from pipeline.grid import Grid
from pipeline.plan import Plan, SensorName

OPTICAL = 2 * len(BANDS)
"""Bytes of one pixel of reflectance, int16."""

LAYERS = 7
"""Bytes of one pixel of what stands beside reflectance: quality, age, coherence, uncertainty."""

COMPRESSED = 0.61
"""Share that is left of int16 reflectance after zstd-3 with bitshuffle (measured on real and simulated scenes)."""

PROCESS_MB = 530
"""Resident size of a worker with everything imported, the weights loaded and input chunks decoded. With the terms
below it gives 1117 MB for tiles of 480 px and 845 MB for 240 px, batch 8; measured peaks are 1119 and 815 MB."""

NETWORK_MB = 27
"""What one patch of 60 px in a batch adds while the network runs (measured, 64 features)."""


@dataclass(frozen=True, slots=True)
class Month:
    """Scenes of one month."""

    month: str
    landsat: int
    with_pan: int
    sentinel2: int


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
    """Expected peak memory of a fusing worker."""
    dropped: tuple[tuple[str, int], ...]
    """Reasons and numbers of items left out, the commonest first."""
    landsats: str = "Landsat 8"

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
            f"{'month':<8}{self.landsats.replace(' and ', '+'):>11}{'with pan':>10}{'Sentinel-2':>12}",
        ]
        out += [f"{m.month:<8}{m.landsat:>11}{m.with_pan:>10}{m.sentinel2:>12}" for m in self.months]
        total = [sum(getattr(m, key) for m in self.months) for key in ("landsat", "with_pan", "sentinel2")]
        out.append(f"{'year':<8}{total[0]:>11}{total[1]:>10}{total[2]:>12}")
        out.append(
            f"expected size of the store {_size(self.store_mb)} (at most {_size(self.raw_mb)}); "
            f"memory of a fusing worker about {_size(self.worker_mb)}"
        )
        out += [f"left out: {count} x {why}" for why, count in self.dropped]
        return out


def outlook(plan: Plan) -> Outlook:
    """The figures of `plan`."""
    tiles = plan.tiles
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
        months=_months(plan),
        store_mb=(COMPRESSED * reflectance + 0.05 * extras) / 1e6,
        raw_mb=(reflectance + extras) / 1e6,
        worker_mb=worker_mb(
            plan.grid,
            plan.options.time_shard,
            plan.options.batch,
            max(60, *_patches(plan)),
            any(ref.context for ref in plan.weights),
        ),
        dropped=tuple(Counter(_kind(d.why) for d in plan.dropped).most_common()),
        landsats=plan.landsats,
    )


def summary(plan: Plan) -> str:
    """The figures of `plan` as plain text: scenes a month, tiles, sizes, what was left out and why."""
    return "\n".join(outlook(plan).lines())


def worker_mb(grid: Grid, time_shard: int, batch: int, patch: int = 60, context: bool = False) -> float:
    """Expected peak memory in megabytes of a worker that fuses one tile of `grid`: the process, the network on one
    batch, one time block of the output with its compressed copy, and the float32 arrays of one date; with `context`
    Sentinel-2 of both sides of the date."""
    side = min(grid.tile_px, 6 * max(grid.rows, grid.columns))
    block = time_shard * side * side * (OPTICAL + LAYERS)
    padded = (side + 2 * patch) ** 2
    date = padded * 4 * len(BANDS) * 6  # reference, Landsat brought up, prediction, weights, sums, copies
    if context:
        date += padded * 4 * len(BANDS) * 10  # the other side, here and in the date read ahead; context, its patches
    network = NETWORK_MB * batch * (patch / 60) ** 2
    return PROCESS_MB + network + (1.7 * block + date) / 1e6


def _patches(plan: Plan) -> tuple[int, ...]:
    return (60, *(ref.patch for ref in plan.weights))


def _months(plan: Plan) -> tuple[Month, ...]:
    labels = sorted({f"{s.day:%Y-%m}" for s in plan.scenes})

    def count(label: str, sensor: SensorName, pan: bool = False) -> int:
        members = (s for s in plan.of(sensor) if f"{s.day:%Y-%m}" == label)
        return sum(1 for s in members if s.pan_items or not pan)

    return tuple(
        Month(label, count(label, "landsat8"), count(label, "landsat8", pan=True), count(label, "sentinel2"))
        for label in labels
    )


def _kind(why: str) -> str:
    """A reason without the particulars of one item."""
    return (
        "same data as a newer processing" if why.startswith("same data as") else why.split(":")[0].split(" degrees")[0]
    )


def _size(megabytes: float) -> str:
    return f"{megabytes / 1000:.1f} GB" if megabytes >= 1000 else f"{megabytes:.0f} MB"
