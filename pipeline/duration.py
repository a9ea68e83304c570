"""How long a run will take: its work, counted from the plan, over rates measured here or told by earlier runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from marstfn.bands import FINE
from marstfn.patches import covering, starts
from pipeline.plan import Plan

READ_MB_S = 10.0
"""Megabytes a second that a run is expected to get from a catalogue, all threads together: an assumption about the
network, until a run has told."""

NETWORK_PX_S = 4.0e4
"""10 m pixels of patches a second and core through the network in a run, where nothing was measured: half of what one
virtual core does by itself (marstfn-pan, 60 px; `python -m benchmarks network`), for other machines are slower."""

FREE_PX_S = 2.0e5
"""The same of a method without a network: an assumption, for reading and writing outweigh it."""

CORE_MB_S = 600.0
"""Megabytes a second that one core of the machine packed (zstd-3, bitshuffle) on which the seconds below were taken:
two virtual cores with nothing else to do."""

SERVED = 1.0
"""Seconds of a read in units over HTTP, this machine's own server and the masks' work included, over one of a file at
hand: the demo's 2872 reads took 4.7 to 5.1 s where the calibration had told 566 a second. Tile by tile it was 3."""

SHARED = 1.75
"""Seconds of a method on the processor in a run over those it takes by itself: what reads ahead of it and stores behind
it has the same cores. The demo's fuse stage took 24 to 26 s where 12.2 had been told, a smaller one 18 to 19 for 8."""

START_S = 4.0
"""Seconds until a cluster on this machine works."""

LOOK_PX_S = 2.0e5
"""Pixels of registration windows, times Landsat dates, a second: registration, audit and fit together. The demo's
57 600 px x 23 dates took 6.3 to 6.8 s."""

LOOKED_PX = 12 * 480**2
"""Pixels of all registration windows at most: importing what defines them would take longer than the estimate."""

FINISH_S = 5.0
"""Seconds of pictures, tables and the item at the end; with the start 9 s of the demo's."""

SERIES_MB_S = 150.0
"""Megabytes a second of output, read, ordered and written by the fusing worker beside its method."""

GATE_PLACES, GATE_PASSES = 16, 2
"""Places at most on which the gate tries the network, and times that it does so for each date, about."""


@dataclass(frozen=True, slots=True)
class Rates:
    """How fast this machine is; None: that was not measured here."""

    method_px_s: float | None = None
    """10 m pixels of patches a second through the plan's method, on the plan's threads, batch and device."""
    pack_mb_s: float = CORE_MB_S
    """Megabytes of int16 a second and core through the codec of the cubes."""
    reads_s: float | None = None
    """Files opened, warped onto one tile and closed a second, all threads together, from a disk."""
    ingest_mb_s: float | None = None
    """Expected megabytes a second that earlier runs read from this catalogue."""
    fuse_px_s: float | None = None
    """10 m pixels of patches a second that the fuse stage of earlier runs made, reading and writing included."""
    source: str = "assumed"
    """Where they come from, in words."""


UNKNOWN = Rates()
"""Nothing was measured."""


@dataclass(frozen=True, slots=True)
class Work:
    """What a plan asks of a machine."""

    read_mb: float
    """Expected to be read from the catalogue; 0 where its items are not known."""
    reads: float
    """Reads of one asset for one tile."""
    at_hand: bool
    """Whether the catalogue's files are served by this machine, so that no network bounds them."""
    patch_px: float
    """10 m pixels of the patches that go through the method, overlaps counted as often as they are computed."""
    looked_px: float
    """10 m pixels of the registration windows, times Landsat dates."""
    gate_px: float
    output_mb: float
    """Of the fused cube, uncompressed."""


@dataclass(frozen=True, slots=True)
class Duration:
    """Expected seconds of a run by what is done."""

    start: float
    ingest: float
    harmonise: float
    gate: float
    fuse: float
    finish: float

    @property
    def total(self) -> float:
        """All of it: the stages follow one another."""
        return self.start + self.ingest + self.harmonise + self.gate + self.fuse + self.finish


def patch_pixels(plan: Plan, clear: Mapping[str, float]) -> float:
    """10 m pixels of patches that fusing computes. `clear`: share of clear sky, 0..1, by label of a Landsat scene;
    one without counts as clear. A patch without a clear pixel is not computed, so cloud saves about its share."""
    side = plan.weights[0].patch if plan.weights else 60
    counts: list[list[int]] = []
    for axis, length in enumerate(plan.grid.shape(FINE)):
        every = starts(max(length, side), side, plan.options.stride)
        step = plan.grid.tile_px
        counts.append([
            len(covering(k * step, min((k + 1) * step, length), every, side)) for k in range(plan.grid.tile_shape[axis])
        ])  # fmt: skip
    patches = sum(counts[0][tile.row] * counts[1][tile.col] for tile in plan.tiles)
    dates = sum(clear.get(scene.label, 1.0) for scene in plan.of("landsat8"))
    return float(patches * side * side * dates)


def looked_pixels(plan: Plan) -> float:
    """10 m pixels of the registration windows (pipeline.registration: at most 12 of 4.8 km), times Landsat dates."""
    rows, columns = plan.grid.shape(FINE)
    return float(min(rows * columns, LOOKED_PX) * len(plan.of("landsat8")))


def gate_pixels(plan: Plan) -> float:
    """10 m pixels of patches that the stage `gate` computes, at most about; 0 where a method is forced."""
    if plan.options.method != "auto" or not plan.weights:
        return 0.0
    side = plan.weights[0].patch
    rows, columns = (length // (3 * side) for length in plan.grid.shape(FINE))
    places = min(GATE_PLACES, max(1, rows * columns))
    return float(places * GATE_PASSES * len(plan.of("landsat8")) * side * side)


def duration(work: Work, rates: Rates) -> Duration | None:
    """Seconds of each part of `work`; None where nothing is known of what is to be read, or of the method's speed."""
    if not work.read_mb or (rates.method_px_s is None and rates.fuse_px_s is None):
        return None
    slow = CORE_MB_S / rates.pack_mb_s
    beside = work.output_mb / SERIES_MB_S * slow
    method = rates.method_px_s or rates.fuse_px_s or 1.0
    fuse = work.patch_px / method + beside if rates.fuse_px_s is None else work.patch_px / rates.fuse_px_s
    return Duration(
        START_S * slow,
        _ingest(work, rates),
        work.looked_px / LOOK_PX_S * slow,
        work.gate_px / method,
        fuse,
        FINISH_S * slow,
    )


def _ingest(work: Work, rates: Rates) -> float:
    if rates.ingest_mb_s is not None:
        return work.read_mb / rates.ingest_mb_s
    network = 0.0 if work.at_hand else work.read_mb / READ_MB_S
    processors = 0.0 if rates.reads_s is None else work.reads * SERVED / rates.reads_s
    return max(network, processors)


def assumed(plan: Plan) -> Rates:
    """What is taken for granted where nothing was measured: of a processor; on another device the method's speed is
    not made up."""
    if plan.weights and plan.options.device != "cpu":
        return UNKNOWN
    per_core = NETWORK_PX_S if plan.weights else FREE_PX_S
    return Rates(per_core * max(1, plan.options.threads))
