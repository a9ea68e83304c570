"""The stage runs on a stand-in that does what it asks of a network."""

from __future__ import annotations

import numpy as np

from benchmarks import ground, stage
from pipeline import cube, ledger
from pipeline.store import FUSED, Store


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
