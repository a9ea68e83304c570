"""Inputs for the fuse stage without any scene being read: parcels that green up, clouds, noise, in a store of a run."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, zoom

from marstfn.bands import BANDS
from pipeline import cube, pairing
from pipeline.cube import CLEAR, MASKED
from pipeline.grid import Grid
from pipeline.pairing import Pair
from pipeline.plan import Options, Plan, Scene, WeightsRef
from pipeline.store import INPUTS, Store

START = date(2023, 4, 1)
NOISE = 30.0
"""Of a stored unit: with it int16 bands keep about 0.6 of their bytes, as those of real scenes do."""


def plan(tiles: int, tile_px: int, landsat: int, sentinel2: int, *, batch: int = 8, time_shard: int = 48) -> Plan:
    """`tiles` x `tiles` tiles; Landsat dates and `sentinel2` times as many of Sentinel-2, in turn; patches of 60 px
    every 48 px, context as the weights of the package want it."""
    scenes = []
    for k in range(landsat * (1 + sentinel2)):
        sensor = "landsat8" if k % (1 + sentinel2) == 1 else "sentinel2"
        day = START + timedelta(days=4 * k)
        scenes.append(
            Scene(
                sensor=sensor,
                platform="landsat-8" if sensor == "landsat8" else "sentinel-2a",
                time=datetime(day.year, day.month, day.day, 3, tzinfo=UTC),
                day=day,
                items=(f"{sensor}-{k}",),
            )
        )
    cells = tiles * tile_px // 6
    # the weights stand for their patch side only: a stand-in for the device predicts
    weights = WeightsRef(source="marstfn-nopan", sha256="0" * 64, pan=False, patch=60, context=True)
    return Plan(
        name="ground", aoi={}, aoi_source="benchmark", year=START.year,
        grid=Grid(32650, 600_000, 5_400_000, cells, cells, tile_px), catalog="simulated@http://127.0.0.1:9",
        scenes=tuple(scenes), radiometry={}, weights=(weights,), items_sha256="0" * 64, simulated=True,
        options=Options(method="network", stride=48, batch=batch, threads=1, time_shard=time_shard),
    )  # fmt: skip


def field(rng: np.random.Generator, shape: tuple[int, int], scale: int) -> NDArray[np.float32]:
    """Standardised smooth noise (H, W) whose patterns are about `scale` px wide."""
    small = tuple(-(-n // scale) + 1 for n in shape)
    wide = zoom(gaussian_filter(rng.normal(size=small), 1), scale, order=1)[: shape[0], : shape[1]]
    return np.asarray((wide - wide.mean()) / (wide.std() + 1e-9), np.float32)


def landscape(rng: np.random.Generator, dates: int, shape: tuple[int, int]) -> NDArray[np.int16]:
    """(dates, H, W) stored reflectance of one band."""
    parcel, texture = field(rng, shape, 24), field(rng, shape, 3)
    out = np.empty((dates, *shape), np.int16)
    for k in range(dates):
        season = np.sin(np.pi * (k + 0.5) / dates)
        noise = rng.normal(0, NOISE, shape)
        out[k] = np.clip(1500 + 600 * season * parcel + 250 * texture + noise, 1, 9000).astype(np.int16)
    return out


def write(a_plan: Plan, store: Store, cloud: float = 0.3) -> None:
    """Both cubes of the plan, inputs filled; every date under clouds of its own."""
    rng = np.random.default_rng(3)
    cube.create_inputs(a_plan, store)
    cube.create_fused(a_plan, store)
    for group in cube.groups(a_plan):
        dates, shape = len(cube.group_scenes(a_plan, group)), a_plan.grid.shape(group.resolution)
        clear = np.stack(
            [np.where(field(rng, shape, 960 // group.resolution) > _limit(cloud), CLEAR, MASKED) for _ in range(dates)]
        )
        cube.array(store, INPUTS, f"{group.name}/clear", "r+")[:] = clear.astype(np.uint8)
        for band in BANDS:
            cube.array(store, INPUTS, f"{group.name}/{band}", "r+")[:] = landscape(rng, dates, shape)


def _limit(cloud: float) -> float:
    """Below which a standardised field lies over `cloud` of its area."""
    from scipy.special import ndtri

    return float(ndtri(cloud))


def pairs(a_plan: Plan, cloud: float = 0.3) -> Sequence[Pair]:
    """The references of the plan's Landsat dates."""
    landsat, sentinel2 = ([s.time for s in a_plan.of(sensor)] for sensor in ("landsat8", "sentinel2"))
    return pairing.pair(landsat, sentinel2, [1 - cloud] * len(sentinel2), a_plan.options)
