"""The layout of both cubes: shards that are tiles, axes that are plain, one pixel of a year in milliseconds."""

from __future__ import annotations

import time
from datetime import UTC, date, datetime, timedelta

import numpy as np
import pytest
import xarray as xr
import zarr
from hypothesis import given
from hypothesis import strategies as st

from marstfn.bands import BANDS
from pipeline import checks, cube
from pipeline.errors import CubeError
from pipeline.grid import Grid
from pipeline.plan import Options, Plan, Scene
from pipeline.store import FUSED, INPUTS, Store
from tests.pipeline import small_store

GRID = Grid(32650, 600_000, 5_400_000, 45, 30, 180)


def make_plan(dates: int = 95, grid: Grid = GRID, **options) -> Plan:
    start = datetime(2023, 1, 1, 2, 50, tzinfo=UTC)
    scenes = tuple(
        Scene(
            sensor="landsat8" if k % 4 == 1 else "sentinel2", platform="x", time=start + timedelta(days=3 * k),
            day=date(2023, 1, 1) + timedelta(days=3 * k), items=(f"i{k}",),
        )
        for k in range(dates)
    )  # fmt: skip
    return Plan(
        name="test", aoi={}, aoi_source="test", year=2023, grid=grid, catalog="simulated@http://127.0.0.1:9",
        scenes=scenes, radiometry={}, weights=(), options=Options(**options), items_sha256="0" * 64,
    )  # fmt: skip


@given(st.integers(0, 500), st.integers(1, 60))
def test_blocks_cover_the_dates_once_in_equal_steps(dates, most):
    step = cube.block_length(dates, most)
    found = cube.blocks(dates, step)
    assert [k for b in found for k in range(b.start, b.stop)] == list(range(dates))
    assert 1 <= step <= most
    assert all(b.start == i * step and b.stop - b.start <= step for i, b in enumerate(found))
    assert len(found) == -(-dates // most)


@given(st.integers(1, 300), st.integers(1, 60))
def test_shards_of_the_inputs_hold_whole_runs_where_they_may(dates, most):
    plan = make_plan(1, time_shard=most)
    plan = plan.model_copy(update={"scenes": plan.scenes * dates})
    step = cube.input_length(plan, cube.SENTINEL2)
    assert cube.input_blocks(plan, cube.SENTINEL2) == cube.blocks(dates, step)
    assert cube.block_length(dates, most) <= step <= most
    assert step % cube.RUN == 0 or step == most or step == dates <= cube.RUN
    assert cube.input_blocks(plan, cube.LANDSAT8) == ()


@given(st.integers(10, 320).map(lambda n: 6 * n))
def test_inner_chunks_divide_the_shard(side):
    inner = cube.inner_side(side)
    assert side % inner == 0
    assert inner <= 120
    assert side % 120 or inner == 120


def test_a_shard_is_a_tile_and_a_block_of_dates(tmp_path):
    store = Store(str(tmp_path))
    plan = make_plan()
    cube.create_fused(plan, store)
    cube.create_inputs(plan, store)
    blue = cube.array(store, FUSED, "blue")
    assert (blue.shape, blue.shards, blue.chunks) == ((95, 180, 270), (48, 180, 180), (48, 90, 90))
    assert blue.fill_value == -9999
    assert blue.attrs["_FillValue"] == -9999
    clear = cube.array(store, INPUTS, "landsat8/clear")
    assert (clear.shape, clear.shards, clear.chunks) == ((24, 60, 90), (24, 60, 60), (8, 60, 60))
    assert "landsat8_pan" not in zarr.open_group(store.zarr(INPUTS), mode="r")
    names = list(cube.shard_objects(FUSED, "blue", cube.fused_blocks(plan), plan.grid.tile(0, 1), 10))
    assert names == ["fused.zarr/blue/c/0/0/1", "fused.zarr/blue/c/1/0/1"]
    target = cube.array(store, FUSED, "blue", "r+")
    for block in cube.fused_blocks(plan):
        tile = plan.grid.tile(0, 1)
        cube.write_block(target, block, tile, 10, np.ones((block.stop - block.start, 180, 90), np.int16))
    assert [n for n in store.names(FUSED) if "/c/" in n and "/blue/" in n] == names


@pytest.mark.parametrize(
    ("value", "stored"),
    [(0.0, 0), (0.12344, 1234), (0.12346, 1235), (-0.05, -500), (np.nan, -9999), (9.0, 32767), (-2.0, -9998)],
)
def test_packing_rounds_once_and_never_makes_nothing_of_something(value, stored):
    packed = cube.pack(np.array([value], np.float32))
    assert packed.tolist() == [stored]
    back = cube.unpack(packed)[0]
    assert np.isnan(back) if stored == -9999 else back == pytest.approx(stored * 1e-4)


def test_packing_is_the_inverse_of_unpacking():
    every = np.arange(-9999, 32768).astype(np.int16)
    assert (cube.pack(cube.unpack(every)) == every).all()


def test_times_are_strictly_increasing_and_out_of_order_is_an_error():
    plan = make_plan(3)
    a, b, c = plan.scenes
    tied = (a, b.model_copy(update={"time": a.time}), c)
    found = cube.times(tied)
    assert found[1] - found[0] == timedelta(microseconds=1)
    with pytest.raises(CubeError, match="before its predecessor"):
        cube.times((b, a, c))


def test_a_template_left_half_made_is_made_again(tmp_path, monkeypatch):
    store, plan = Store(str(tmp_path)), make_plan()
    monkeypatch.setattr(cube, "consolidate", lambda root: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        cube.create_fused(plan, store)
    monkeypatch.undo()
    assert cube.create_fused(plan, store) is True
    assert cube.create_fused(plan, store) is False
    assert np.isnan(cube.open_cube(str(tmp_path)).blue[0, 0, 0].values)


def test_open_cube_takes_the_store_or_the_cube_and_says_what_is_missing(tmp_path):
    cube.create_fused(make_plan(), Store(str(tmp_path)))
    for path in (str(tmp_path), f"{tmp_path}/", f"{tmp_path}/fused.zarr", f"{tmp_path}/fused.zarr/"):
        assert set(BANDS) < set(cube.open_cube(path).data_vars)
    with pytest.raises(CubeError, match=r"no cube at .*/elsewhere/fused.zarr"):
        cube.open_cube(str(tmp_path / "elsewhere"))


def test_status_turns_without_losing_the_consolidated_metadata(tmp_path):
    store = Store(str(tmp_path))
    cube.create_fused(make_plan(), store)
    cube.set_status(store, "complete")
    group = zarr.open_group(store.zarr(FUSED), mode="r")
    assert group.attrs["status"] == "complete"
    assert group.metadata.consolidated_metadata is not None


def test_one_pixel_over_the_year_lies_in_one_small_chunk_a_time_block(tmp_path):
    store, plan = Store(str(tmp_path)), make_plan()
    cube.create_fused(plan, store)
    rng = np.random.default_rng(1)
    for band in ("red", "nir08"):
        target = cube.array(store, FUSED, band, "r+")
        for block in cube.fused_blocks(plan):
            for tile in plan.grid.tiles():
                shape = (block.stop - block.start, *tile.shape(10))
                cube.write_block(target, block, tile, 10, rng.integers(0, 4000, shape).astype(np.int16))
    path, took = store.join(FUSED), []
    for _ in range(25):
        start = time.perf_counter()
        ds = xr.open_zarr(path)
        pixel = ds[["red", "nir08"]].isel(y=77, x=200).load()
        took.append(time.perf_counter() - start)
        assert pixel.sizes == {"time": 95}
    print(f"open and one pixel of two bands: best {1e3 * min(took):.1f} ms, median {1e3 * np.median(took):.1f} ms")
    blocks = cube.fused_blocks(plan)
    for band in ("red", "nir08"):
        chunks = cube.array(store, FUSED, band).chunks
        assert chunks[0] == blocks[0].stop
        assert max(chunks[1:]) <= 120


def test_a_damaged_shard_is_told_by_its_array_and_with_the_remedy(tmp_path):
    store, _ = small_store.write(tmp_path)
    path = tmp_path / "inputs.zarr/sentinel2/red/c/0/0/0"
    data = bytearray(path.read_bytes())
    data[16:-200:7] = b"\xff" * len(data[16:-200:7])
    path.write_bytes(data)
    damaged = cube.array(store, INPUTS, "sentinel2/red")
    with pytest.raises(CubeError, match=r"inputs\.zarr/sentinel2/red is damaged.*`marstfn verify STORE`"):
        cube.values(damaged, (slice(0, 8), slice(0, 60), slice(0, 60)))
    whole = cube.array(store, INPUTS, "sentinel2/blue")
    assert (cube.values(whole, (0, 0, slice(0, 9))) == np.asarray(whole[0, 0, :9])).all()


def test_source_names_the_platform_as_flown(tmp_path):
    plain = small_store.plan()
    names = {"landsat-8": "landsat-9", "sentinel-2b": "sentinel-2b", "sentinel-2a": "sentinel-2a"}
    flown = [s.model_copy(update={"platform": names[s.platform]}) if s.day.month > 3 else s for s in plain.scenes]
    made, store = small_store.plan(scenes=tuple(flown)), Store(str(tmp_path))
    cube.create_fused(made, store)
    found = [str(v) for v in cube.open_cube(str(tmp_path)).source.values]
    assert set(found) == {"landsat-8 fused", "landsat-9 fused", "sentinel-2 observed"}
    assert found == [cube.source(s) for s in made.scenes]
    assert list(checks.sources("here", found, made)) == []
    assert list(checks.sources("here", ["landsat-8 fused"] * len(found), made))
    assert (made.landsats, plain.landsats) == ("Landsat 8 and 9", "Landsat 8")
