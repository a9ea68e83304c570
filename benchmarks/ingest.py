"""Reading assets over HTTP: tile by tile and in units, beside GDAL's own warp; what it asks for, what latency costs."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from benchmarks import ranges
from benchmarks.measure import Figure, Table, alternated, at_least, at_most, ratios
from benchmarks.reading import THREADS, Bench, block_bytes, candidates, cells_of, in_a_row, ours, write_files
from pipeline.cluster import SLOTS
from pipeline.grid import Grid

DATES = 5
LATENCY = 0.1


def tables(quick: bool) -> list[Table]:
    """Rates beside GDAL's warp, bytes and requests, and what a latency of 100 ms costs."""
    tile_px, count, dates, rounds = (120, 2, 1, 1) if quick else (480, 4, DATES, 3)
    often = 1 if quick else 7
    with _bench(tile_px, count, dates) as bench:
        area, unit = _area(bench, rounds, count), _unit(bench, often, count)
        cold = _cold(bench, often)
    with _bench(tile_px, 2 * count, dates) as bench:
        row = _row(bench, often, count)
    return [*area, Table("Many tiles", (*row[0], *unit[0]), (*row[1], *unit[1])), cold]


@contextmanager
def _bench(tile_px: int, count: int, dates: int) -> Iterator[Bench]:
    """Files under `count` x `count` tiles, and a server of them."""
    cells = count * tile_px // 6
    grid = Grid(32650, 600_000, 5_400_000, cells, cells, tile_px)
    with tempfile.TemporaryDirectory() as folder:
        write_files(Path(folder), grid, dates)
        with ranges.serve(Path(folder)) as server:
            yield Bench(Path(folder), server, grid, dates, dates)


def _area(bench: Bench, rounds: int, side: int) -> list[Table]:
    runs = candidates(bench, side)
    taken: dict[float, dict[str, tuple[float, ...]]] = {}
    for latency in (0.0, LATENCY):
        bench.server.latency(latency)
        taken[latency] = alternated(runs, rounds)
    bench.server.latency(0)
    asked: dict[str, ranges.Count] = {}
    for name, run in runs.items():
        bench.server.counted()
        run()
        asked[name] = bench.server.counted()
    alone, once = block_bytes(bench, bench.tiles), block_bytes(bench, [bench.grid.window])
    unit = "ours by units"
    rates: list[Figure] = []
    for latency, seconds in taken.items():
        when = f"at {1000 * latency:.0f} ms"
        rates += [Figure(f"{name}, {when}", values, "s") for name, values in seconds.items()]
        for base in ("warp tile by tile", "warp, each block once"):
            rates.append(at_least(f"rate by units over {base}, {when}", ratios(seconds[base], seconds[unit]), 0.85))
        by_tiles = ratios(seconds["warp tile by tile"], seconds["ours tile by tile"])
        rates.append(Figure(f"rate of ours tile by tile over warp tile by tile, {when}", by_tiles))
    for name in runs:
        cost = tuple(100 * (r - 1) for r in ratios(taken[LATENCY][name], taken[0.0][name]))
        rates.append(Figure(f"what 100 ms of latency cost {name}", cost, "%"))
    traffic = [
        at_most("bytes by units / blocks of the unit", [asked[unit].bytes / once], 1.05),
        at_most("bytes by units / unique blocks of the area", [asked[unit].bytes / once], 1.7),
        Figure("bytes tile by tile / blocks of each tile", (asked["ours tile by tile"].bytes / alone,)),
        Figure("bytes tile by tile / unique blocks of the area", (asked["ours tile by tile"].bytes / once,)),
        *(Figure(f"requests, {name}", (count.requests,)) for name, count in asked.items()),
        *(Figure(f"of them HEAD, {name}", (count.heads,)) for name, count in asked.items()),
        *(Figure(f"sent, {name}", (count.bytes / 1e6,), "MB") for name, count in asked.items()),
    ]
    size = f"{len(bench.tiles)} tiles of {bench.grid.tile_px} px, {len(bench.files())} files"
    how = f"{size}, {THREADS} threads; deflate, blocks of 512 and 256; server in a process of its own on these cores"
    least = f"unit of {side} x {side} tiles; {once / 1e6:.1f} MB in blocks counted once, {alone / 1e6:.1f} MB by tile"
    return [
        Table("Reading an area over HTTP", tuple(rates), (how,)),
        Table("What it asks for", tuple(traffic), (least,)),
    ]


def _at_both(bench: Bench, run: Callable[[], object], rounds: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Seconds without and with latency, in turn."""

    def late(seconds: float) -> None:
        bench.server.latency(seconds)
        run()
        bench.server.latency(0)

    taken = alternated({"at once": lambda: late(0), "late": lambda: late(LATENCY)}, rounds)
    return taken["at once"], taken["late"]


Part = tuple[tuple[Figure, ...], tuple[str, ...]]
"""Figures of a table and its notes."""


def _row(bench: Bench, rounds: int, side: int) -> Part:
    """Units one after another as in a run: its beginning and its end, when threads wait for the first files and for the
    last, are a smaller part of it than of one unit."""
    many = replace(bench, dates=3 * bench.dates)
    cells = cells_of(many, side)
    now, late = _at_both(bench, lambda: in_a_row(many, cells, many.turn()), rounds)
    size = f"{len(cells)} units of {side} x {side} tiles, {SLOTS} at a time"
    note = f"{size}: {len(many.files())} files, each read once by every unit, {THREADS} threads"
    return _costs("units in a row", now, late, 25), (note,)


def _unit(bench: Bench, rounds: int, side: int) -> Part:
    """One unit by itself with thrice the dates of the area: its beginning and its end count in full."""
    many = replace(bench, dates=3 * bench.dates)
    now, late = _at_both(bench, candidates(many, side)["ours by units"], rounds)
    note = f"one unit: {len(many.tiles)} tiles, {len(many.files())} files that no process has met before"
    return _costs("one unit", now, late, 25), (note,)


def _costs(what: str, now: Sequence[float], late: Sequence[float], most: float) -> tuple[Figure, ...]:
    """Seconds without and with latency, and what it costs."""
    return (
        Figure(f"{what} at 0 ms", tuple(now), "s"),
        Figure(f"{what} at 100 ms", tuple(late), "s"),
        at_most(f"what 100 ms of latency cost {what}", [100 * (r - 1) for r in ratios(late, now)], most, "%"),
    )


def _cold(bench: Bench, rounds: int) -> Table:
    """One tile from files that no process has met before."""
    tile = bench.tiles[len(bench.tiles) // 2]
    now, late = _at_both(bench, lambda: ours(bench, [[tile]], bench.turn(), 2), rounds)
    more = tuple(slow - fast for slow, fast in zip(late, now, strict=True))
    return Table(
        "One cold tile",
        (
            Figure("ours at 0 ms", now, "s"),
            Figure("ours at 100 ms", late, "s"),
            at_most("what 100 ms of latency cost", more, 0.8, "s"),
        ),
        (f"{len(bench.files())} files at once on {THREADS} threads",),
    )
