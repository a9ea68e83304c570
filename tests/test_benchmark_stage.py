"""The benchmarks of the stage and of writing run, and the stand-in does what the stage asks of a network."""

from __future__ import annotations

import numpy as np

from benchmarks import ground, stage, writing
from pipeline import cube, ledger
from pipeline.store import FUSED, Store


def test_writing_is_measured_on_shards_that_hold_what_was_written(tmp_path):
    data = ground.landscape(np.random.default_rng(0), 4, (writing.BAND, writing.BAND))
    array = writing.layout(tmp_path, 4, 60)
    cube.write_block(array, slice(4, 8), writing.TILE, 10, data)
    assert (np.asarray(array[4:]) == data).all()
    size = (tmp_path / "60.zarr" / "c" / "1" / "0" / "0").stat().st_size
    assert size == writing.encode(data, 60) + 16 * 64 + 4
    assert 0.5 < size / data.nbytes < 0.75


def test_the_stage_runs_on_a_stand_in_and_its_pixels_are_counted(tmp_path):
    plan, store = ground.plan(2, 120, 2, 3, time_shard=4), Store(str(tmp_path))
    ground.write(plan, store)
    device, pairs = stage.Device(1e8), ground.pairs(plan)
    for tile in plan.grid.tiles():
        stage.fuse_tile(plan, store, tile, stage.PLAIN, pairs, predicts={False: device})
    records = [ledger.read(store, "fuse", t.name) for t in plan.grid.tiles()]
    assert device.pixels() == sum(r.stats["patches"] for r in records) * 3600
    quality = np.asarray(cube.array(store, FUSED, "quality")[:])
    assert {1, 2, 4} <= set(np.unique(quality)) <= {1, 2, 3, 4}
