"""Writing is measured on shards that are those of the cube."""

from __future__ import annotations

import numpy as np

from benchmarks import ground, writing
from pipeline import cube


def test_writing_is_measured_on_shards_that_hold_what_was_written(tmp_path):
    data = ground.landscape(np.random.default_rng(0), 4, (writing.BAND, writing.BAND))
    array = writing.layout(tmp_path, 4, 60)
    cube.write_block(array, slice(4, 8), writing.TILE, 10, data)
    assert (np.asarray(array[4:]) == data).all()
    size = (tmp_path / "60.zarr" / "c" / "1" / "0" / "0").stat().st_size
    assert size == writing.encode(data, 60) + 16 * 64 + 4
    assert 0.5 < size / data.nbytes < 0.75
