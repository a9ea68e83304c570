"""Fusing a tile: references per pixel, no seams, honest flags, the same twice; and nothing but numbers."""

from __future__ import annotations

import dataclasses
import errno
import os
import shutil
import threading
import time
import warnings
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import rioxarray  # noqa: F401 - the accessor
import xarray as xr
import zarr
from odc.geo.xr import ODCExtension  # noqa: F401 - the accessor

from marstfn.bands import BANDS
from marstfn.baselines import METHODS, bicubic, degrade
from marstfn.methods import Method
from marstfn.patches import blend, fill_holes, starts
from marstfn.reference import Reference
from pipeline import cube, encoding, fuse, ledger, shards, tasks
from pipeline.days import Days
from pipeline.encoding import LAYERS
from pipeline.errors import CubeError, MarstfnError, StoreError, WeightsError
from pipeline.fuse import fuse_fingerprint, fuse_tile
from pipeline.grid import Grid, Window
from pipeline.harmonise import Fit, Harmonisation, SceneFit
from pipeline.inputs import Reading
from pipeline.methods import methods
from pipeline.pairing import Pair, pair
from pipeline.plan import Options, Plan, Scene, WeightsRef
from pipeline.store import FUSED, INPUTS, Store

GRID = Grid(32650, 600_000, 5_400_000, 30, 25, 60)
START = datetime(2023, 5, 1, 2, 50, tzinfo=UTC)
PLAIN = Harmonisation("plain", False, ())


def scene(sensor: str, day: int, pan: bool = False) -> Scene:
    time = START + timedelta(days=day, minutes=15 * (sensor == "sentinel2"))
    platform = "landsat-8" if sensor == "landsat8" else "sentinel-2a"
    extra = (f"P{day}",) if pan else ()
    name = f"{sensor}{day}"
    return Scene(sensor=sensor, platform=platform, time=time, day=date(2023, 5, 1) + timedelta(days=day),
                 items=(name,), pan_items=extra)  # fmt: skip


def make_plan(grid: Grid = GRID, pan: bool = False, **options: object) -> Plan:
    days = [("landsat8", d) for d in (3, 19)] + [("sentinel2", d) for d in (0, 5, 10, 20)]
    scenes = sorted((scene(s, d, pan and s == "landsat8") for s, d in days), key=lambda s: s.time)
    chosen = Options(**{"method": "copy", "stride": 42, "time_shard": 3, "threads": 1, "batch": 4} | options)
    return Plan(
        name="test", aoi={}, aoi_source="test", year=2023, grid=grid, catalog="simulated@http://127.0.0.1:9",
        scenes=tuple(scenes), radiometry={}, weights=(), options=chosen, items_sha256="0" * 64, simulated=True,
    )  # fmt: skip


@dataclasses.dataclass
class World:
    """Inputs of a plan, known to the last pixel, in a store."""

    plan: Plan
    store: Store
    s2: np.ndarray
    s2_clear: np.ndarray
    l8: np.ndarray
    l8_clear: np.ndarray

    def pairs(self) -> tuple[Pair, ...]:
        times = {s: [x.time for x in self.plan.of(s)] for s in ("landsat8", "sentinel2")}
        clear = (self.s2_clear == 1).mean((1, 2)).tolist()
        return pair(times["landsat8"], times["sentinel2"], clear, self.plan.options)

    def fuse(self, predicts=None, harmonisation: Harmonisation = PLAIN, chosen=None) -> dict[str, np.ndarray]:
        cube.create_fused(self.plan, self.store)
        for tile in self.plan.grid.tiles():
            fuse_tile(self.plan, self.store, tile, harmonisation, self.pairs(), chosen, predicts)
        names = LAYERS
        return {n: np.asarray(cube.array(self.store, FUSED, n)[:]) for n in names}


def world(folder: Path, plan: Plan, seed: int = 1) -> World:
    rng = np.random.default_rng(seed)
    store = Store(str(folder))
    cube.create_inputs(plan, store)
    fine, coarse, sharp = (plan.grid.shape(r) for r in (10, 30, 15))
    n2, n8 = len(plan.of("sentinel2")), len(plan.of("landsat8"))
    s2 = rng.integers(100, 4000, (6, n2, *fine)).astype(np.int16)
    l8 = rng.integers(100, 4000, (6, n8, *coarse)).astype(np.int16)
    s2_clear = np.ones((n2, *fine), np.uint8)
    l8_clear = np.ones((n8, *coarse), np.uint8)
    # clouds: day 5 half, day 0 a band, day 10 a corner; Landsat a block over a tile border; an edge with nothing
    s2_clear[1, :, : fine[1] // 2] = 2
    s2_clear[0, 40:80] = 2
    s2_clear[2, 70:, 50:] = 2
    s2_clear[:, 50:56, 20:26] = 2
    l8_clear[0, 15:25, 15:25] = 2
    l8_clear[1, :, -3:] = 0
    l8[:, 1, :, -3:] = -9999
    for band, name in enumerate(BANDS):
        for group, data in (("sentinel2", s2), ("landsat8", l8)):
            cube.array(store, INPUTS, f"{group}/{name}", "r+")[:] = data[band]
    cube.array(store, INPUTS, "sentinel2/clear", "r+")[:] = s2_clear
    cube.array(store, INPUTS, "landsat8/clear", "r+")[:] = l8_clear
    if plan.has_pan:
        pan = rng.integers(500, 3000, (n8, *sharp)).astype(np.int16)
        cube.array(store, INPUTS, "landsat8_pan/pan", "r+")[:] = pan
    return World(plan, store, s2, s2_clear, l8, l8_clear)


def around(w: World, index: int) -> Reference:
    """The references of a Landsat date before and after, pixel by pixel, the slow way."""
    pair_, shape = w.pairs()[index], w.plan.grid.shape(10)
    images = np.full((2, 6, *shape), np.nan, np.float32)
    days = np.full((2, *shape), np.inf, np.float32)
    for row, col in np.ndindex(shape):
        for side, sign in ((0, 1), (1, -1)):
            for day, gap in zip(pair_.references, pair_.days, strict=True):
                if w.s2_clear[day, row, col] == 1 and (gap >= 0) == (sign > 0):
                    images[side, :, row, col] = w.s2[:, day, row, col] * np.float32(1e-4)
                    days[side, row, col] = abs(gap)
                    break
    return Reference(*images, *days)


def composed(w: World, index: int) -> tuple[np.ndarray, np.ndarray]:
    """The nearest reference of a Landsat date, as stored, and its age."""
    found = around(w, index)
    return np.nan_to_num(np.rint(found.nearest() * 1e4), nan=-9999).astype(int), found.age()


@pytest.fixture(scope="module")
def w(tmp_path_factory: pytest.TempPathFactory) -> World:
    return world(tmp_path_factory.mktemp("world"), make_plan())


@pytest.fixture(scope="module")
def copied(w: World) -> dict[str, np.ndarray]:
    return w.fuse()


def fused_dates(plan: Plan) -> list[int]:
    return [k for k, s in enumerate(plan.scenes) if s.sensor == "landsat8"]


def test_the_reference_is_the_nearest_clear_day_of_each_pixel_and_leaves_no_seam(w, copied):
    """Method `copy` is the identity network: what comes out is the composed reference to the last bit, on every tile
    and patch border alike."""
    for index, k in enumerate(fused_dates(w.plan)):
        want, age = composed(w, index)
        clear = np.repeat(np.repeat(w.l8_clear[index], 3, 0), 3, 1) == 1
        there = clear & (age != -9999)
        for band, name in enumerate(BANDS):
            assert (copied[name][k][there] == want[band][there]).all(), name
            assert (copied[name][k][~clear] == -9999).all()
        assert (copied["reference_age"][k] == np.where(clear, age, -9999)).all()


def test_flags_say_what_each_pixel_is(w, copied):
    for index, k in enumerate(fused_dates(w.plan)):
        _, age = composed(w, index)
        mask = np.repeat(np.repeat(w.l8_clear[index], 3, 0), 3, 1)
        want = np.select([mask == 2, mask == 0, age == -9999], [4, 0, 3], 6)
        assert (copied["quality"][k] == want).all()
        assert 3 in want
        for name in BANDS:
            assert ((copied[name][k] == -9999) == np.isin(want, (0, 4))).all()
    for index, k in enumerate(k for k, s in enumerate(w.plan.scenes) if s.sensor == "sentinel2"):
        clear = w.s2_clear[index]
        assert (copied["quality"][k] == np.select([clear == 1, clear == 2], [1, 4], 0)).all()
        for band, name in enumerate(BANDS):
            assert (copied[name][k] == np.where(clear == 1, w.s2[band, index], -9999)).all()
        assert (copied["reference_age"][k] == -9999).all()
        assert (copied["coherence"][k] == -9999).all()


def test_both_sides_reach_the_methods_that_look_at_both(w, tmp_path):
    """`linear` is the identity of the interpolated reference."""
    out = dataclasses.replace(w, plan=make_plan(method="linear"), store=Store(str(tmp_path)))
    shutil.copytree(w.store.local / INPUTS, tmp_path / INPUTS)
    made = out.fuse()
    for index, k in enumerate(fused_dates(w.plan)):
        want = around(w, index)
        both = np.isfinite(want.days_before) & np.isfinite(want.days_after)
        assert (both & (want.days_before > 0)).any()
        there = made["quality"][k] == 6
        between, age = want.between() * 1e4, want.age()
        assert (made["reference_age"][k][there] == age[there]).all()
        for band, name in enumerate(BANDS):
            assert np.abs(made[name][k][there] - between[band][there]).max() <= 0.501, name


def test_context_is_cut_like_the_reference_it_belongs_to(w, tmp_path, monkeypatch):
    """A network that gives back what it was told of time: every pixel its own, whatever tile and patch it lies in."""

    def told(s2, landsat, pan, context):
        assert context.shape == (len(s2), 8, 60, 60)
        out = np.repeat(context[:, 6:7], 6, 1)
        out[:, 1] = context[:, 7]
        out[:, 2] = context[:, 2]
        return out

    told_of = {False: Method("network", told, "between", context=True)}
    monkeypatch.setattr(fuse, "methods", lambda plan, name: told_of)
    out = dataclasses.replace(w, store=Store(str(tmp_path)))
    shutil.copytree(w.store.local / INPUTS, tmp_path / INPUTS)
    made = out.fuse()
    for index, k in enumerate(fused_dates(w.plan)):
        want = around(w, index).context()
        there = made["quality"][k] == 2
        for name, channel in (("blue", 6), ("green", 7), ("red", 2)):
            assert np.abs(made[name][k][there] * 1e-4 - want[channel][there]).max() < 1e-4, name


def test_of_reflectance_only_the_days_that_serve_a_pixel_are_read(w, monkeypatch):
    """One side's reference costs its masks and nothing else where a method wants the nearest day alone."""
    values, read = Days.values, []

    def noted(self, day):
        if self._clear is not None and self._roi[0].stop > 50:
            read.append(day)
        return values(self, day)

    monkeypatch.setattr(Days, "values", noted)
    scene = w.plan.of("landsat8")[1]
    reading = Reading(w.plan, w.store, Window(GRID, 0, 25, 0, 30), PLAIN, w.pairs())
    nearest = reading.inputs(scene, both=False, pan=False).reference
    once = [day for day in read if day is not None]
    read.clear()
    whole = reading.inputs(scene, both=True, pan=False).reference
    assert len(once) < len(read)
    want = around(w, 1)
    np.testing.assert_array_equal(nearest.nearest(), want.nearest())
    np.testing.assert_array_equal(whole.before, want.before)
    np.testing.assert_array_equal(whole.after, want.after)
    np.testing.assert_array_equal(whole.days_after, want.days_after)


@pytest.mark.parametrize(
    ("method", "flag"),
    [("additive", 5), ("additive-linear", 5), ("linear", 6), ("copy", 6), ("bicubic", 3)],
)
def test_flags_tell_the_family_of_the_method(method, flag, w, tmp_path):
    """Landsat enlarged is what it is, whether a reference was in reach or not, and then it has no age."""
    out = dataclasses.replace(w, plan=make_plan(method=method), store=Store(str(tmp_path)))
    cube.create_inputs(out.plan, out.store)
    for name in ("sentinel2", "landsat8"):
        for band in (*BANDS, "clear"):
            cube.array(out.store, INPUTS, f"{name}/{band}", "r+")[:] = cube.array(w.store, INPUTS, f"{name}/{band}")[:]
    made = out.fuse()
    for index, k in enumerate(fused_dates(w.plan)):
        age = around(w, index).age()
        clear = np.repeat(np.repeat(w.l8_clear[index], 3, 0), 3, 1) == 1
        want = np.where(age != -9999, flag, 3)
        assert (made["quality"][k][clear] == want[clear]).all()
        assert ((made["reference_age"][k] != -9999) == (clear & (want != 3))).all()
    assert (made["uncertainty"] == -9999).all()


def unsure(u: float):
    """A network that says of itself how far it may be off, in a seventh channel: `u`, more to the right of a patch."""

    def predict(s2, landsat, pan, context):
        rising = np.broadcast_to(np.float32(u) + np.arange(60, dtype=np.float32) * 1e-5, (len(s2), 1, 60, 60))
        return np.concatenate([s2, rising], 1)

    return predict


def test_uncertainty_is_stored_where_the_network_fused_and_bands_say_what_makes_it_an_interval(tmp_path, monkeypatch):
    interval = (1.0, 1.5, 2.0, 2.5, 3.0, 3.5)
    ref = WeightsRef(source="w", sha256="a" * 64, pan=False, patch=60, interval=interval)
    plan = make_plan(method="network").model_copy(update={"weights": (ref,)})
    offered = {False: Method("network", unsure(0.02), interval=interval)}
    monkeypatch.setattr(fuse, "methods", lambda plan, name: offered)
    w = world(tmp_path, plan)
    out = w.fuse()
    known = out["uncertainty"] != -9999
    assert (known == (out["quality"] == 2)).all()
    assert known.any()
    assert 200 <= out["uncertainty"][known].min() < out["uncertainty"][known].max() <= 206
    ds = cube.open_cube(str(tmp_path))
    assert [ds[band].attrs["interval90_factor"] for band in BANDS] == list(interval)
    half = ds.red.attrs["interval90_factor"] * ds.uncertainty
    assert 0.04 <= float(half.max()) <= 0.0412


def test_weights_with_and_without_pan_share_one_factor_a_band(tmp_path, monkeypatch):
    """Uncertainty of the set without pan is brought to the factors of the other: half-widths stay what they were."""
    sets = {True: (1.0, 1.5, 2.0, 2.5, 3.0, 3.5), False: (2.0, 3.0, 4.0, 5.0, 6.0, 7.0)}
    refs = tuple(WeightsRef(source="w", sha256=str(int(p)) * 64, pan=p, patch=60, interval=f) for p, f in sets.items())
    plan = make_plan(pan=True, method="network")
    bare = plan.scenes[fused_dates(plan)[1]].model_copy(update={"pan_items": ()})
    scenes = tuple(bare if s.items == bare.items else s for s in plan.scenes)
    plan = plan.model_copy(update={"scenes": scenes, "weights": refs})
    offered = {p: Method("network", unsure(0.02), interval=f) for p, f in sets.items()}
    monkeypatch.setattr(fuse, "methods", lambda plan, name: offered)
    out = world(tmp_path, plan).fuse()
    least = [int(u[u != -9999].min()) for u in out["uncertainty"][fused_dates(plan)]]
    assert least[1] == pytest.approx(2 * least[0], abs=2)
    assert cube.open_cube(str(tmp_path)).swir22.attrs["interval90_factor"] == 3.5


def test_a_choice_by_season_changes_whole_dates_and_leaves_no_border_in_any(w, tmp_path):
    """Each date is fused by one method everywhere, so that no border between methods lies on the ground."""
    chosen = ("additive", "linear")
    made = {}
    for name in (None, "additive", "linear"):
        out = dataclasses.replace(w, plan=make_plan(method="auto" if name is None else name))
        out.store = Store(str(tmp_path / str(name)))
        shutil.copytree(w.store.local / INPUTS, tmp_path / str(name) / INPUTS)
        made[name] = out.fuse(chosen=chosen if name is None else None)
    for k, name, flag in zip(fused_dates(w.plan), chosen, (5, 6), strict=True):
        assert set(np.unique(made[None]["quality"][k])) <= {0, 3, 4, flag}
        for layer in LAYERS:
            assert (made[None][layer][k] == made[name][layer][k]).all(), layer


def test_without_a_reference_a_pixel_is_landsat_enlarged(w, copied):
    """The hole 50:56 x 20:26 lies inside one patch: there it is the bicubic enlargement."""
    k = fused_dates(w.plan)[0]
    landsat = np.where(w.l8_clear[0] == 1, w.l8[:, 0], -9999).astype(np.float32)
    want = bicubic(np.zeros((6, 1, 1), np.float32), landsat[:, 12:24, 2:14] * np.float32(1e-4))[:, 14:20, 14:20]
    got = np.stack([copied[n][k][50:56, 20:26] for n in BANDS]) * 1e-4
    assert np.abs(got - want).max() < 1e-4


def test_coherence_is_what_the_fused_pixels_say_against_landsat(w, copied):
    for index, k in enumerate(fused_dates(w.plan)):
        fused = np.stack([copied[n][k] for n in BANDS]).astype(float)
        fused[fused == -9999] = np.nan
        h, width = w.l8_clear[index].shape
        mean = fused.reshape(6, h, 3, width, 3).mean((2, 4))
        want = np.abs(mean - w.l8[:, index]).mean(0)
        got = copied["coherence"][k].astype(float)
        got[got == -9999] = np.nan
        want = np.where(w.l8_clear[index] == 1, want, np.nan)
        np.testing.assert_allclose(got, np.repeat(np.repeat(want, 3, 0), 3, 1), atol=1)


@pytest.mark.parametrize("method", sorted(METHODS))
def test_tiles_equal_the_whole(method, tmp_path):
    """The tile side changes not one stored value, for any method."""
    outs = []
    for side in (60, 240):
        plan = make_plan(dataclasses.replace(GRID, tile_px=side), method=method, time_shard=48)
        outs.append(world(tmp_path / str(side), plan).fuse())
    for other in outs[1:]:
        for name, values in outs[0].items():
            assert (values == other[name]).all(), f"{name}: {(values != other[name]).sum()} differ"


def blurry(s2, landsat, pan, context):
    """A stand-in for a network: looks at the whole patch, so that a patch cut elsewhere would give other values."""
    weights = np.linspace(0, 1, s2.shape[-1], dtype=np.float32)
    return s2 * 0.5 + (landsat.mean((2, 3)) * 0.5)[..., None, None] + weights * np.float32(0.01)


def test_what_looks_at_whole_patches_shows_no_tile_border_either(tmp_path):
    outs = []
    for side in (60, 240):
        plan = make_plan(dataclasses.replace(GRID, tile_px=side))
        outs.append(world(tmp_path / str(side), plan).fuse({False: blurry}))
    for name in BANDS:
        assert (outs[0][name] == outs[1][name]).all()


def one_by_one(w: World, predict) -> dict[str, np.ndarray]:
    """The whole plane without tiles, blocks or threads: date by date, patch by patch, the slow way."""
    plan, patch = w.plan, 60
    height, width = plan.grid.shape(10)
    out = {n: np.full((len(plan.scenes), height, width), -9999, np.int16) for n in LAYERS}
    out["quality"] = np.zeros((len(plan.scenes), height, width), np.uint8)
    weights = blend(patch, patch - plan.options.stride)
    index = {"landsat8": 0, "sentinel2": 0}
    for k, a_scene in enumerate(plan.scenes):
        i = index[a_scene.sensor]
        index[a_scene.sensor] += 1
        if a_scene.sensor == "sentinel2":
            out["quality"][k] = np.select([w.s2_clear[i] == 1, w.s2_clear[i] == 2], [1, 4], 0)
            for band, name in enumerate(BANDS):
                out[name][k] = np.where(w.s2_clear[i] == 1, w.s2[band, i], -9999)
            continue
        found = around(w, i)
        s2, landsat = found.nearest(), cube.unpack(w.l8[:, i])
        landsat[:, w.l8_clear[i] != 1] = np.nan
        total, norm = np.zeros((6, height, width)), np.zeros((height, width))
        for r in starts(height, patch, plan.options.stride):
            for c in starts(width, patch, plan.options.stride):
                at = slice(r, r + patch), slice(c, c + patch)
                coarse = landsat[:, r // 3 : (r + patch) // 3, c // 3 : (c + patch) // 3]
                fine, rough, _ = fill_holes(s2[:, *at], coarse)
                made = np.where(np.isnan(s2[:, *at]).any(0), fine, predict(fine[None], rough[None], None, None)[0])
                total[:, *at] += weights * made
                norm[at] += weights
        fused = (total / norm).astype(np.float32)
        mask = np.repeat(np.repeat(w.l8_clear[i], 3, 0), 3, 1)
        age = found.age()
        for band, name in enumerate(BANDS):
            out[name][k] = np.where(mask == 1, cube.pack(fused[band]), -9999)
        out["quality"][k] = np.select([mask == 2, (mask == 1) & (age != -9999), mask == 1], [4, 2, 3], 0)
        out["reference_age"][k] = np.where((mask == 1) & (age != -9999), age, -9999)
        residual = np.abs(degrade(np.where(mask == 1, fused, np.nan)) - landsat).mean(0)
        out["coherence"][k] = np.repeat(np.repeat(cube.pack(residual), 3, 0), 3, 1)
    return out


@pytest.mark.parametrize(("batch", "time_shard"), [(1, 2), (7, 1), (64, 3)])
def test_all_at_once_makes_what_one_after_another_makes(batch, time_shard, tmp_path):
    """Read ahead, in batches of several dates, stored behind: not one stored value is another."""
    w = world(tmp_path, make_plan(batch=batch, time_shard=time_shard))
    out, want = w.fuse({False: as_network(blurry)}), one_by_one(w, blurry)
    for name in LAYERS:
        assert (out[name] == want[name]).all(), f"{name}: {(out[name] != want[name]).sum()} differ"


def as_network(predict):
    """Copies what it was given, so that it may not show through in what it gave."""

    def called(s2, landsat, pan, context):
        return predict(np.array(s2), np.array(landsat), pan, context)

    return called


def test_short_batches_are_filled_up_by_the_next_date(tmp_path):
    w, sizes = world(tmp_path, make_plan(dataclasses.replace(GRID, tile_px=240), batch=12)), []

    def noted(s2, landsat, pan, context):
        sizes.append(len(s2))
        return np.array(s2)

    w.fuse({False: noted})
    assert ledger.read(w.store, "fuse", "r000c000").stats["patches"] == 32
    # of 16 patches of a date 4 wait for 8 of the next
    assert sizes == [12, 12, 8]


def test_the_next_date_is_read_and_the_last_block_stored_while_the_network_works(tmp_path, monkeypatch):
    """The network refuses to go on until what should happen beside it has happened."""
    w = world(tmp_path, make_plan(dataclasses.replace(GRID, tile_px=240), time_shard=2, batch=1))
    cube.create_fused(w.plan, w.store)
    read, seen, first = threading.Event(), [], w.store.local / FUSED / "blue" / "c" / "0" / "0" / "0"
    inputs = Reading.inputs

    def noted(self, scene, **how):
        out = inputs(self, scene, **how)
        seen.append(scene.items)
        if len(seen) == 2:
            read.set()
        return out

    monkeypatch.setattr(Reading, "inputs", noted)
    calls = []

    def waiting(s2, landsat, pan, context):
        calls.append(len(s2))
        assert read.wait(60), "the second date is not read while the first is in the network"
        if len(calls) > 1:
            until = time.monotonic() + 60
            while not first.exists():
                assert time.monotonic() < until, "the first block is not stored while the second is in the network"
                time.sleep(0.01)
        return np.array(s2)

    fuse_tile(w.plan, w.store, w.plan.grid.tile(0, 0), PLAIN, w.pairs(), predicts={False: waiting})
    assert len(calls) == 2
    assert ledger.read(w.store, "fuse", "r000c000") is not None


def test_a_full_disk_behind_the_network_fails_the_tile_and_leaves_no_entry(tmp_path, monkeypatch):
    w = world(tmp_path, make_plan())
    write = shards._write

    def full(target, pieces):
        if "nir08" in target.parts:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(target, pieces)

    monkeypatch.setattr(shards, "_write", full)
    said = (
        r"cannot write .*fused\.zarr/nir08, tile r000c000, dates 0\.\.2: .*No space left.*not entered.*Make room.*again"
    )
    with pytest.raises(StoreError, match=said):
        w.fuse({False: blurry})
    assert ledger.read(w.store, "fuse", "r000c000") is None
    assert not [t.name for t in threading.enumerate() if t.name.startswith(("ahead", "behind"))]
    monkeypatch.undo()
    out = w.fuse({False: blurry})
    undisturbed = world(tmp_path / "other", make_plan()).fuse({False: blurry})
    for name in LAYERS:
        assert (out[name] == undisturbed[name]).all()


def test_a_store_that_stumbles_is_an_error_that_may_be_tried_again(tmp_path, monkeypatch):
    """503 or a lost connection is no full disk: StoreError would be final."""
    w = world(tmp_path, make_plan())

    def stumble(*_):
        raise TimeoutError("the server did not answer")

    monkeypatch.setattr(shards, "_write", stumble)
    with pytest.raises(MarstfnError, match=r"tile r000c000.*did not answer.*can be reached") as error:
        w.fuse({False: blurry})
    assert not isinstance(error.value, tasks.HOPELESS)
    assert ledger.read(w.store, "fuse", "r000c000") is None


def test_no_numbers_in_one_date_of_a_shared_batch_name_that_date(tmp_path):
    w, seen = world(tmp_path, make_plan(dataclasses.replace(GRID, tile_px=240), batch=64)), []

    def broken(s2, landsat, pan, context):
        seen.append(len(s2))
        out = np.array(s2)
        out[-1, 2, 30, 30] = np.nan
        return out

    with pytest.raises(WeightsError, match=r"no numbers for tile r000c000, landsat-8 2023-05-20"):
        w.fuse({False: broken})
    assert len(seen) == 1
    assert ledger.read(w.store, "fuse", "r000c000") is None


def test_a_cube_begun_with_other_chunks_is_gone_on_with(tmp_path, monkeypatch):
    w = world(tmp_path, make_plan())
    monkeypatch.setattr(cube, "inner_side", lambda side: 30)
    cube.create_fused(w.plan, w.store)
    monkeypatch.undo()
    out = w.fuse({False: blurry})
    assert cube.array(w.store, FUSED, "red").chunks == (3, 30, 30)
    same = world(tmp_path / "other", make_plan()).fuse({False: blurry})
    for name in LAYERS:
        assert (out[name] == same[name]).all()


def test_two_runs_are_equal_to_the_byte(tmp_path):
    records = []
    for run in ("a", "b"):
        w = world(tmp_path / run, make_plan(method="additive"))
        w.fuse()
        records.append([ledger.read(w.store, "fuse", t.name) for t in w.plan.grid.tiles()])
    for a, b in zip(*records, strict=True):
        assert a.checksums == b.checksums
        assert a.stats == b.stats
        assert set(a.timings) == {"read", "predict", "write", "check"}


def test_a_plane_smaller_than_a_patch_is_mirrored(tmp_path):
    grid = Grid(32650, 600_000, 5_400_000, 7, 4, 60)
    plan = make_plan(grid)
    w = World(plan, Store(str(tmp_path)), *_tiny(plan, Store(str(tmp_path))))
    out = w.fuse()
    for index, k in enumerate(fused_dates(plan)):
        want, _ = composed(w, index)
        assert (np.stack([out[n][k] for n in BANDS]) == want).all()


def _tiny(plan: Plan, store: Store) -> tuple[np.ndarray, ...]:
    cube.create_inputs(plan, store)
    rng = np.random.default_rng(5)
    s2 = rng.integers(100, 4000, (6, 4, *plan.grid.shape(10))).astype(np.int16)
    l8 = rng.integers(100, 4000, (6, 2, *plan.grid.shape(30))).astype(np.int16)
    clear = [np.ones(a.shape[1:], np.uint8) for a in (s2, l8)]
    for band, name in enumerate(BANDS):
        cube.array(store, INPUTS, f"sentinel2/{name}", "r+")[:] = s2[band]
        cube.array(store, INPUTS, f"landsat8/{name}", "r+")[:] = l8[band]
    cube.array(store, INPUTS, "sentinel2/clear", "r+")[:] = clear[0]
    cube.array(store, INPUTS, "landsat8/clear", "r+")[:] = clear[1]
    return s2, clear[0], l8, clear[1]


def test_pan_goes_to_the_weights_with_pan_and_only_there(tmp_path):
    plan = make_plan(pan=True)
    bare = plan.scenes[fused_dates(plan)[1]].model_copy(update={"pan_items": ()})
    plan = plan.model_copy(update={"scenes": tuple(bare if s.items == bare.items else s for s in plan.scenes)})
    seen = {True: set(), False: set()}

    def spy(kind):
        def predict(s2, landsat, pan, context):
            seen[kind].add(None if pan is None else pan.shape[1:])
            assert all(np.isfinite(a).all() for a in (s2, landsat, *([] if pan is None else [pan])))
            return np.array(s2)

        return predict

    world(tmp_path, plan).fuse({True: spy(True), False: spy(False)})
    assert seen == {True: {(1, 40, 40)}, False: {None}}


def test_only_patches_with_something_to_make_are_computed(tmp_path):
    w = world(tmp_path, make_plan())
    for clear in (w.l8_clear,):
        clear[:] = 2
        clear[0, 2, 2] = 1
    cube.array(w.store, INPUTS, "landsat8/clear", "r+")[:] = w.l8_clear
    patches = []

    def count(s2, landsat, pan, context):
        patches.append(len(s2))
        return np.array(s2)

    out = w.fuse({False: count})
    assert sum(patches) == 1
    k = fused_dates(w.plan)[0]
    assert (out["quality"][k] == 2).sum() == 9


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_network_that_gives_no_numbers_fails_the_tile_by_name(value, tmp_path):
    w = world(tmp_path, make_plan())

    def broken(s2, landsat, pan, context):
        out = np.array(s2)
        out[:, 3, 10, 10] = value
        return out

    with pytest.raises(WeightsError, match=r"no numbers for tile r000c000, landsat-8 2023-05-04"):
        w.fuse({False: broken})
    assert ledger.read(w.store, "fuse", "r000c000") is None


def test_landsat_is_harmonised_before_any_method_sees_it(tmp_path):
    def cloudless(folder: Path) -> World:
        made = world(folder, make_plan(dataclasses.replace(GRID, tile_px=240), method="bicubic"))
        made.l8_clear[:] = 1
        cube.array(made.store, INPUTS, "landsat8/clear", "r+")[:] = 1
        return made

    w = cloudless(tmp_path / "one")
    plain = w.fuse()
    good = Fit(1.1, -0.01, "scene", "")
    refused = Fit(1.0, 0.0, "none", "gain")
    fits = tuple(SceneFit(i, "x", (good, refused, good, good, good, good)) for i in range(2))
    corrected = cloudless(tmp_path / "two").fuse(harmonisation=Harmonisation("two", False, fits))
    k = fused_dates(w.plan)[0]
    there = corrected["quality"][k] == 3
    assert np.abs(corrected["red"][k][there] - (plain["red"][k][there] * 1.1 - 100)).max() <= 2
    assert (corrected["green"][k] == plain["green"][k]).all()


def test_fingerprint_follows_neighbours_weights_options_pairs_and_harmonisation(w):
    plan, pairs = w.plan, w.pairs()
    tile = plan.grid.tile(0, 0)
    base = fuse_fingerprint(plan, tile, PLAIN, pairs)
    weights = (WeightsRef(source="marstfn-nopan", sha256="a" * 64, pan=False, patch=60),)
    for change in (
        {"weights": weights},
        {"items_sha256": "1" * 64},
        *({"options": plan.options.model_copy(update=o)} for o in
          ({"batch": 1}, {"threads": 2}, {"stride": 30}, {"device": "cuda"}, {"method": "additive"})),
    ):  # fmt: skip
        assert fuse_fingerprint(plan.model_copy(update=change), tile, PLAIN, pairs) != base, change
    assert fuse_fingerprint(plan, tile, Harmonisation("other", False, ()), pairs) != base
    assert fuse_fingerprint(plan, tile, PLAIN, pairs[:1]) != base
    assert fuse_fingerprint(plan, tile, PLAIN, pairs, ("copy", "copy")) == base
    assert fuse_fingerprint(plan, tile, PLAIN, pairs, ("copy", "linear")) != base
    assert fuse_fingerprint(plan, plan.grid.tile(1, 1), PLAIN, pairs) != base


def test_weights_that_are_not_the_plans_are_refused(w):
    lost = WeightsRef(source="/nowhere/w.safetensors", sha256="a" * 64, pan=False, patch=60)
    plan = w.plan.model_copy(
        update={"weights": (lost,), "options": w.plan.options.model_copy(update={"method": "network"})}
    )
    with pytest.raises(WeightsError, match=r"not found.*aaaaaaaaaaaa"):
        methods(plan, "network")
    other = lost.model_copy(update={"source": "marstfn-nopan"})
    with pytest.raises(WeightsError, match="no longer those of the plan"):
        methods(plan.model_copy(update={"weights": (other,)}), "network")


def test_plain_open_zarr_reads_numbers_and_georeference_without_a_word(w, copied):
    path = str(Path(w.store.join(FUSED)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ds = xr.open_zarr(path)
        values = {n: ds[n].dtype for n in LAYERS}
        blue = ds.blue.isel(time=1).load()
        source = [str(s) for s in ds.source.values]
    assert values.pop("quality") == np.uint8
    assert {v.kind for v in values.values()} == {"f"}
    assert set(ds.data_vars) == set(LAYERS)
    assert ds.sizes == {"time": 6, "y": 150, "x": 180}
    raw = copied["blue"][1]
    assert np.isnan(blue.values[raw == -9999]).all()
    np.testing.assert_allclose(blue.values[raw != -9999], raw[raw != -9999] * 1e-4, rtol=1e-6)
    assert (np.diff(ds.time.values) > np.timedelta64(0)).all()
    assert source == ["landsat-8 fused" if s.sensor == "landsat8" else "sentinel-2 observed" for s in w.plan.scenes]
    assert ds.odc.geobox == w.plan.grid.geobox(10)
    assert ds.rio.crs.to_epsg() == 32650
    assert ds.blue.rio.transform()[:6] == w.plan.grid.geobox(10).transform[:6]
    attrs = ds.attrs
    assert attrs["radiometry"] == "Sentinel-2 MSI"
    assert attrs["plan_fingerprint"] == w.plan.fingerprint
    assert attrs["status"] == "in progress"
    assert attrs["simulated"] == "true"
    assert attrs["credits"] == "with simulated scenes: no record of the ground"
    real = encoding.fused_attrs(w.plan.model_copy(update={"simulated": False}), {})
    assert "Contains modified Copernicus Sentinel data [2023]" in real["credits"]
    assert "Landsat-8 image courtesy of the U.S. Geological Survey" in real["credits"]
    assert attrs["item_ids"] == [i for s in w.plan.scenes for i in s.items]
    assert attrs["bounds"] == [600000.0, 5398500.0, 601800.0, 5400000.0]


def test_nothing_written_reads_as_nothing(tmp_path):
    plan = make_plan()
    store = Store(str(tmp_path))
    cube.create_fused(plan, store)
    ds = cube.open_cube(str(tmp_path))
    assert np.isnan(ds.blue.values).all()
    assert np.isnan(ds.reference_age.values).all()
    assert (ds.quality.values == 0).all()


def test_another_plans_cube_is_left_alone(tmp_path):
    store = Store(str(tmp_path))
    plan = make_plan()
    assert cube.create_fused(plan, store) is True
    assert cube.create_fused(plan, store) is False
    before = sorted((p, p.stat().st_mtime_ns) for p in tmp_path.rglob("*") if p.is_file())
    with pytest.raises(StoreError, match=r"another plan.*--store"):
        cube.create_fused(plan.model_copy(update={"name": "other"}), store)
    assert sorted((p, p.stat().st_mtime_ns) for p in tmp_path.rglob("*") if p.is_file()) == before


def test_another_format_version_is_refused_on_open_and_on_resume(tmp_path):
    store = Store(str(tmp_path))
    cube.create_fused(make_plan(), store)
    zarr.open_group(store.zarr(FUSED), mode="r+").attrs["format_version"] = "0"
    with pytest.raises(CubeError, match=r"format version '0'.*reads '3'"):
        cube.open_cube(str(tmp_path / "fused.zarr"))
    with pytest.raises(StoreError, match=r"format version '0'.*--store"):
        cube.create_fused(make_plan(), store)


def test_memory_does_not_grow_with_the_year(tmp_path, monkeypatch):
    """Of 324 dates or 108 the peak is the same: two blocks of dates and the runs of reference days that are kept, which
    both fill. The further dates cost less than the smallest layer of theirs would, their names and times included.

    How much of it is there at once is a matter of threads, so one reads and one stores. The very first tile pays for
    what is compiled.
    """
    import tracemalloc

    monkeypatch.setattr(fuse, "AHEAD", 1)
    monkeypatch.setattr(fuse, "hands", lambda: 1)

    peaks = []
    for copies, runs in ((18, 3), (54, 1)):
        plan = make_plan(Grid(32650, 600_000, 5_400_000, 20, 20, 120), time_shard=6)
        scenes = [
            s.model_copy(update={"items": (f"{s.items[0]}-{i}",), "time": s.time + timedelta(days=40 * i)})
            for i in range(copies)
            for s in plan.scenes
        ]
        plan = plan.model_copy(update={"scenes": tuple(scenes)})
        store = Store(str(tmp_path / str(copies)))
        cube.create_inputs(plan, store)
        cube.create_fused(plan, store)
        for group, n in (("sentinel2", 4), ("landsat8", 2)):
            cube.array(store, INPUTS, f"{group}/clear", "r+")[:] = 1
            for name in BANDS:
                cube.array(store, INPUTS, f"{group}/{name}", "r+")[:] = 1234
            assert len(plan.of(group)) == n * copies
        times = {s: [x.time for x in plan.of(s)] for s in ("landsat8", "sentinel2")}
        pairs = pair(times["landsat8"], times["sentinel2"], [1.0] * len(times["sentinel2"]), plan.options)
        found = []
        for _ in range(runs):
            tracemalloc.start()
            fuse_tile(plan, store, plan.grid.tile(0, 0), PLAIN, pairs)
            found.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
        peaks.append(max(found[-2:]))
    print(f"peak {peaks[0] / 1e6:.1f} MB for 108 dates, {peaks[1] / 1e6:.1f} MB for 324")
    assert peaks[1] - peaks[0] < (324 - 108) * 120 * 120 * np.uint8().nbytes
