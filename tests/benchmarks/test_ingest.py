"""What is compared gives the same pixels, and asks for what it says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks import ingest, ranges, reading
from pipeline.grid import Grid

pytestmark = pytest.mark.server


def test_all_candidates_give_the_same_pixels_and_units_fetch_each_block_once(tmp_path: Path) -> None:
    grid = Grid(32650, 600_000, 5_400_000, 40, 40, 120)
    reading.write_files(tmp_path, grid, 2)
    with ranges.serve(tmp_path) as server:
        bench = reading.Bench(tmp_path, server, grid, 2, 2)
        found = {}
        for name, run in reading.candidates(bench, 2).items():
            server.counted()
            found[name] = run(), server.counted()
    whole, _ = found["warp, each block once"]
    assert all(np.ptp(pixels) > 1000 for pixels in whole.values())
    for pixels, _ in found.values():
        # the kernel of GDAL's own warp follows the shape of the window, a little
        assert reading.agree(pixels, whole) < 50
    tiles, units = found["ours tile by tile"][0], found["ours by units"][0]
    assert reading.agree(tiles, units) == 0
    asked = found["ours by units"][1]
    assert asked.bytes <= 1.05 * reading.block_bytes(bench, [grid.window])
    assert asked.heads == len(bench.files())


def test_the_tables_can_be_made() -> None:
    tables = ingest.tables(quick=True)
    assert [len(table.figures) > 0 for table in tables] == [True] * 4
    met = {figure.what: figure.met for table in tables for figure in table.figures if "bytes" in figure.what}
    assert met["bytes by units / blocks of the unit"]
