"""Writing: whole shards beside their codec alone, Zarr's own writing and a plain file; a pixel's series."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numcodecs import Blosc  # type: ignore[import-untyped]
from numpy.typing import NDArray
from zarr.codecs import BloscCodec

from benchmarks import ground
from benchmarks.measure import Figure, Table, at_least, at_most, ratios
from marstfn.bands import FINE
from pipeline import cube
from pipeline.grid import Grid

SIDES = (60, 120, 240)
"""Of inner chunks, 10 m pixels."""
BAND, YEAR = 480, 2
"""Side of a shard; shards of a year."""
TILE = Grid(32650, 600_000, 5_400_000, BAND // 6, BAND // 6, BAND).tile(0, 0)


def tables(quick: bool) -> list[Table]:
    """The share of the codec's rate that a shard reaches, and the time of one pixel over a year."""
    dates, rounds = (16, 3) if quick else (46, 7)
    data = ground.landscape(np.random.default_rng(1), dates, (BAND, BAND))
    with tempfile.TemporaryDirectory(prefix="marstfn-writing-", dir=_memory()) as folder:
        return _tables(Path(folder), data, rounds)


def pieces(data: NDArray[np.int16], side: int) -> Iterator[bytes]:
    """All chunks (dates, side, side) of `data` by the codec of the cubes, in one thread."""
    codec = Blosc("zstd", 3, Blosc.BITSHUFFLE)
    for y in range(0, data.shape[1], side):
        for x in range(0, data.shape[2], side):
            yield codec.encode(np.ascontiguousarray(data[:, y : y + side, x : x + side]))


def encode(data: NDArray[np.int16], side: int) -> int:
    """Bytes of the pieces."""
    return sum(len(piece) for piece in pieces(data, side))


def floor(data: NDArray[np.int16], side: int, path: Path) -> None:
    """What no writer can spare: the codec, and its bytes into a file chunk by chunk, in one thread."""
    with path.with_suffix(".new").open("wb", buffering=0) as file:
        for piece in pieces(data, side):
            file.write(piece)
    path.with_suffix(".new").replace(path)


def layout(folder: Path, dates: int, side: int, shards: int = YEAR) -> zarr.Array[Any]:
    """An empty band as the fused cube has it, of `shards` blocks of dates, with inner chunks of `side`."""
    return zarr.create_array(
        zarr.storage.LocalStore(folder / f"{side}.zarr"), shape=(shards * dates, BAND, BAND),
        shards=(dates, BAND, BAND), chunks=(dates, side, side), dtype="int16", fill_value=cube.FILL, overwrite=True,
        compressors=[BloscCodec(cname="zstd", clevel=3, shuffle="bitshuffle")], filters=None,
    )  # fmt: skip


def _tables(folder: Path, data: NDArray[np.int16], rounds: int) -> list[Table]:
    dates = len(data)
    arrays = {side: layout(folder, dates, side) for side in SIDES}
    # a machine under load gives no wall clock to speak of: the processor's own, all threads together
    spent: dict[str, list[float]] = {}
    waited: dict[str, list[float]] = {}
    raw = folder / "raw"
    candidates: dict[str, Callable[[], object]] = {"raw": lambda: data.tofile(raw)}
    made = {"raw": raw} | {f"floor {side}": raw.with_name("floor") for side in SIDES}
    for side in SIDES:
        made[f"zarr {side}"] = made[f"shard {side}"] = folder / f"{side}.zarr" / "c" / "0" / "0" / "0"
        candidates[f"codec {side}"] = lambda s=side: encode(data, s)  # type: ignore[misc]
        candidates[f"floor {side}"] = lambda s=side: floor(data, s, raw.with_name("floor"))  # type: ignore[misc]
        candidates[f"zarr {side}"] = lambda s=side: arrays[s].__setitem__(slice(0, dates), data)  # type: ignore[misc]
        candidates[f"shard {side}"] = lambda s=side: cube.write_block(  # type: ignore[misc]
            arrays[s], slice(0, dates), TILE, FINE, data
        )
    for turn in range(rounds + 1):
        for name in list(candidates)[:: 1 if turn % 2 else -1]:
            if name in made:  # a run writes each object once: to free an earlier one is no part of it
                made[name].unlink(missing_ok=True)
            start, wall = time.process_time(), time.perf_counter()
            candidates[name]()
            if turn:
                spent.setdefault(name, []).append(time.process_time() - start)
                waited.setdefault(name, []).append(time.perf_counter() - wall)
    mega = data.nbytes / 1e6
    chosen = cube.inner_side(BAND)
    figures = [Figure("raw file", tuple(mega / s for s in spent["raw"]), "MB/core-s")]
    for side in SIDES:
        share = ratios(spent[f"codec {side}"], spent[f"shard {side}"])
        what = f"shard, inner chunks of {side} px{' (the cubes)' if side == chosen else ''}"
        figures += [
            Figure(f"codec alone, {side} px", tuple(mega / s for s in spent[f"codec {side}"]), "MB/core-s"),
            Figure(what, tuple(mega / s for s in spent[f"shard {side}"]), "MB/core-s"),
            at_least(f"  its share of the codec, {side} px", share, 0.85)
            if side == chosen
            else Figure(f"  its share of the codec, {side} px", share),
            *(
                Figure(f"  {what}, {side} px", ratios(of[f"codec {side}"], of[f"{name} {side}"]))
                for what, of, name in (
                    ("share that the codec with a plain write reaches", spent, "floor"),
                    ("wall clock: times the codec in one thread", waited, "shard"),
                )
            ),
            Figure(f"  share of Zarr's own writing, {side} px", ratios(spent[f"codec {side}"], spent[f"zarr {side}"])),
        ]
    series = [_series(arrays[side], data, side == chosen, side, 3 * rounds) for side in SIDES]
    notes = (
        f"{dates} dates x {BAND}^2 int16 = {mega:.1f} MB, blosc zstd-3 bitshuffle keeps "
        f"{encode(data, chosen) / data.nbytes:.2f} of it; processor time of all threads; files in memory",
        f"series: one pixel of two bands over {YEAR} x {dates} dates, one after the other, wall clock",
    )
    return [Table("Writing: whole shards", (*figures, *series), notes)]


def _series(array: zarr.Array[Any], data: NDArray[np.int16], target: bool, side: int, rounds: int) -> Figure:
    for shard in range(YEAR):
        array[shard * len(data) : (shard + 1) * len(data)] = data
    took = []
    for k in range(rounds):
        start = time.perf_counter()
        for _ in ("red", "nir08"):
            array[:, (37 * k) % BAND, (91 * k) % BAND]
        took.append(1e3 * (time.perf_counter() - start))
    what = f"series of a pixel, two bands, {side} px"
    return at_most(what, took, 50, "ms") if target else Figure(what, tuple(took), "ms")


def _memory() -> str | None:
    """A folder in memory, where there is one: the disk of a shared machine is not what is measured."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None
