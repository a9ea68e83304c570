"""The two Zarr cubes of a run: their layout, their empty templates, and how they are opened."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import xarray as xr
import zarr
from numpy.typing import NDArray
from obstore.exceptions import BaseError

from marstfn.bands import BANDS, COARSE, FINE, PAN, PAN_RES
from pipeline import shards, uncertainty
from pipeline.encoding import AGE, QUALITY, RESIDUAL, SHIFTS, flags, identity, reflectance
from pipeline.encoding import CLEAR as CLEAR
from pipeline.encoding import FILL as FILL
from pipeline.encoding import FUSED_FREELY as FUSED_FREELY
from pipeline.encoding import FUSED_PIXEL as FUSED_PIXEL
from pipeline.encoding import FUSED_PIXELS as FUSED_PIXELS
from pipeline.encoding import FUSED_SOURCE as FUSED_SOURCE
from pipeline.encoding import HIDDEN as HIDDEN
from pipeline.encoding import LAYERS as LAYERS
from pipeline.encoding import MASKED as MASKED
from pipeline.encoding import NOTHING as NOTHING
from pipeline.encoding import OBSERVED as OBSERVED
from pipeline.encoding import OBSERVED_SOURCE as OBSERVED_SOURCE
from pipeline.encoding import RADIOMETRY as RADIOMETRY
from pipeline.encoding import SCALE as SCALE
from pipeline.encoding import UPSAMPLED as UPSAMPLED
from pipeline.encoding import fused_attrs as fused_attrs
from pipeline.encoding import pack as pack
from pipeline.encoding import source as source
from pipeline.encoding import unpack as unpack
from pipeline.errors import CubeError, MarstfnError, NoCubeError, StoreError
from pipeline.grid import Window
from pipeline.layers import consolidate, coordinates, layer, scene_coordinates
from pipeline.plan import FORMAT, Plan, Scene
from pipeline.shifts import SceneShift
from pipeline.store import FUSED, INPUTS, Store, plainly

HOPELESS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)
"""Errors of the system that the same write meets again."""
INNER = 120
"""Most side of an inner chunk, its own pixels."""
RUN = 8
"""Dates of the inputs that lie in one inner chunk and are read together: a read of one costs mostly its overhead."""


@dataclass(frozen=True, slots=True)
class Group:
    """One group of the input cube: its sensor, pixel size in metres and bands."""

    name: str
    resolution: int
    bands: tuple[str, ...]
    masked: bool
    """Whether it has the variable `clear`."""

    @property
    def variables(self) -> tuple[str, ...]:
        """Names of its arrays: the bands, then `clear` where it is there."""
        return (*self.bands, "clear") if self.masked else self.bands


SENTINEL2 = Group("sentinel2", FINE, BANDS, True)
LANDSAT8 = Group("landsat8", COARSE, BANDS, True)
LANDSAT8_PAN = Group("landsat8_pan", PAN_RES, (PAN,), False)


def groups(plan: Plan) -> tuple[Group, ...]:
    """The groups of the plan's input cube; the panchromatic one only where the plan has pan."""
    return (SENTINEL2, LANDSAT8, LANDSAT8_PAN) if plan.has_pan else (SENTINEL2, LANDSAT8)


def group_scenes(plan: Plan, group: Group) -> tuple[Scene, ...]:
    """The scenes along the time axis of a group."""
    return plan.of("sentinel2" if group is SENTINEL2 else "landsat8")


def fused_blocks(plan: Plan) -> tuple[slice, ...]:
    """Shards of the output along its time axis."""
    return blocks(len(plan.scenes), block_length(len(plan.scenes), plan.options.time_shard))


def input_blocks(plan: Plan, group: Group) -> tuple[slice, ...]:
    """Shards of a group of the inputs along its time axis."""
    return blocks(len(group_scenes(plan, group)), input_length(plan, group))


def input_length(plan: Plan, group: Group) -> int:
    """Dates in one shard of a group: whole runs, where there is more than one and `time_shard` allows."""
    dates, most = len(group_scenes(plan, group)), plan.options.time_shard
    step = block_length(dates, most)
    return step if dates <= RUN else min(-(-step // RUN) * RUN, most)


def blocks(dates: int, step: int) -> tuple[slice, ...]:
    """A time axis of `dates` in steps, the last one shorter."""
    return tuple(slice(lo, min(lo + step, dates)) for lo in range(0, dates, step))


def block_length(dates: int, time_shard: int) -> int:
    """Dates in one shard: at most `time_shard`, spread evenly so that no shard is a sliver."""
    if dates < 1:
        return 1
    count = -(-dates // time_shard)
    return -(-dates // count)


def times(scenes: Sequence[Scene]) -> tuple[datetime, ...]:
    """Acquisition times (UTC, microseconds), strictly increasing: a tie is parted by a microsecond."""
    out: list[datetime] = []
    for scene in scenes:
        time = scene.time.astimezone(UTC)
        if out and time < out[-1] - timedelta(seconds=1):
            raise CubeError(f"scene {scene.label} stands before its predecessor in the plan; make the plan anew")
        out.append(max(time, out[-1] + timedelta(microseconds=1)) if out else time)
    return tuple(out)


def create_inputs(plan: Plan, store: Store) -> bool:
    """Write the empty input cube, or find the plan's own there; True where it was made anew.

    Raises StoreError where another plan's cube is in the way.
    """
    if _holds(plan, store, INPUTS):
        return False
    root = _root(store, INPUTS, {**identity(plan), "title": f"Inputs of {plan.name} {plan.year}"})
    for group in groups(plan):
        scenes = group_scenes(plan, group)
        node = root.create_group(group.name)
        coordinates(node, plan.grid.geobox(group.resolution), times(scenes))
        side = plan.grid.tile_px * FINE // group.resolution
        shape = (len(scenes), *plan.grid.shape(group.resolution))
        step, inner = input_length(plan, group), inner_side(side)
        shard, chunk = (step, side, side), (_divisor(step, RUN), inner, inner)
        for band in group.bands:
            layer(node, band, shape, shard, chunk, "int16", FILL, reflectance(band))
        if group.masked:
            layer(node, "clear", shape, shard, chunk, "uint8", NOTHING, flags("nothing", "clear", "masked"))
    consolidate(root)
    return True


def create_fused(plan: Plan, store: Store, versions: dict[str, str] | None = None) -> bool:
    """Write the empty output cube, or find the plan's own there; True where it was made anew.

    Raises StoreError where another plan's cube is in the way.
    """
    if _holds(plan, store, FUSED):
        return False
    root = _root(store, FUSED, fused_attrs(plan, versions or {}))
    scenes, side = plan.scenes, plan.grid.tile_px
    sources = [source(s) for s in scenes]
    coordinates(root, plan.grid.geobox(FINE), times(scenes), sources)
    scene_coordinates(root, len(scenes))
    shape = (len(scenes), *plan.grid.shape(FINE))
    step = block_length(len(scenes), plan.options.time_shard)
    shard, chunk = (step, side, side), (step, inner_side(side), inner_side(side))
    for band in BANDS:
        layer(root, band, shape, shard, chunk, "int16", FILL, reflectance(band) | uncertainty.of_band(plan, band))
    layer(root, "quality", shape, shard, chunk, "uint8", NOTHING, flags(*QUALITY))
    layer(root, "reference_age", shape, shard, chunk, "int16", FILL, AGE)
    layer(root, "coherence", shape, shard, chunk, "int16", FILL, RESIDUAL)
    layer(root, "uncertainty", shape, shard, chunk, "int16", FILL, uncertainty.ATTRS)
    consolidate(root)
    return True


def exists(store: Store, name: str) -> bool:
    """Whether a cube was begun under this name."""
    return _group(store, name) is not None


def adopt_inputs(plan: Plan, store: Store) -> None:
    """Let the inputs, where there are some, belong to a plan that reads the same scenes on the same grid."""
    if exists(store, INPUTS):
        zarr.open_group(store.zarr(INPUTS), mode="r+").attrs["plan_fingerprint"] = plan.fingerprint


def set_methods(store: Store, gate: list[dict[str, str]], methods: Sequence[str]) -> None:
    """Set the fused cube's attributes `gate` (a row a season; empty where a method was forced) and `methods_used`."""
    attrs = zarr.open_group(store.zarr(FUSED), mode="r+").attrs
    attrs.update({"gate": gate, "methods_used": sorted(set(methods))})


def set_missed(store: Store, lines: Sequence[str]) -> None:
    """Set the fused cube's attribute `items_without_pixels`: items that cover the area and gave nothing there."""
    zarr.open_group(store.zarr(FUSED), mode="r+").attrs["items_without_pixels"] = list(lines)


def shift_values(plan: Plan, shifts: Sequence[SceneShift]) -> dict[str, NDArray[Any]]:
    """The coordinates along time that tell of registration, from what was measured of the Landsat dates in order."""
    at = [k for k, scene in enumerate(plan.scenes) if scene.sensor == "landsat8"]
    out: dict[str, NDArray[Any]] = {name: np.full(len(plan.scenes), np.nan, np.float32) for name in SHIFTS}
    out["registration"] = np.full(len(plan.scenes), "", dtype=object)
    for k, shift in zip(at, shifts, strict=False):
        for name, value in zip(SHIFTS, (shift.east, shift.north, shift.error), strict=True):
            out[name][k] = np.nan if value is None else value
        out["registration"][k] = shift.text
    return out


def set_shifts(plan: Plan, store: Store, shifts: Sequence[SceneShift]) -> None:
    """Enter what was measured of the Landsat dates in the fused cube, where it does not say so already."""
    for name, values in shift_values(plan, shifts).items():
        target = array(store, FUSED, name, "r+")
        there = np.asarray(target[:])
        same = np.array_equal(there, values, equal_nan=True) if name in SHIFTS else (there == values).all()
        if not same:
            target[:] = values


def set_status(store: Store, status: str) -> None:
    """Set the fused cube's attribute `status` (`in progress` or `complete`), and nothing else."""
    zarr.open_group(store.zarr(FUSED), mode="r+").attrs["status"] = status


def open_cube(path: str) -> xr.Dataset:
    """The fused cube at a path or URL (a `fused.zarr`, or the store that holds one), decoded, lazily.

    Raises CubeError where there is none, or one of another format version.
    """
    folder, _, name = path.rstrip("/").rpartition("/")
    if not name.endswith(".zarr"):
        folder, name = path, FUSED
    store = Store(folder or ("/" if path.startswith("/") else "."))
    try:
        ds: xr.Dataset = xr.open_zarr(store.zarr(name))
    except (FileNotFoundError, ValueError, StoreError) as error:
        raise NoCubeError(f"no cube at {store.join(name)}: {error}; give the path that the run printed") from error
    version = ds.attrs.get("format_version")
    if version != FORMAT:
        raise CubeError(
            f"the cube at {store.join(name)} has format version {version!r}, this program reads {FORMAT!r}; "
            "read it with the release that wrote it, or run again into another store"
        )
    return ds


def array(store: Store, cube: str, name: str, mode: str = "r") -> zarr.Array[Any]:
    """Array `name` (`sentinel2/blue`, `quality`) of a cube; metadata is read, never written."""
    try:
        return zarr.open_array(store.zarr(cube), path=name, mode="r+" if mode == "r+" else "r")
    except FileNotFoundError as error:
        raise CubeError(f"{store.join(cube)} has no array {name}; the run that makes it has not begun") from error
    except (ValueError, KeyError, TypeError) as error:
        raise CubeError(
            f"{store.join(cube)} is damaged: the zarr.json of {name} cannot be understood ({type(error).__name__}: "
            f"{error}). Delete the folder {cube} and run again with the same store: it is made anew"
        ) from error


def values(array: zarr.Array[Any], where: tuple[Any, ...]) -> NDArray[Any]:
    """What is stored in a part of an array. Raises CubeError where a shard cannot be decoded."""
    try:
        return np.asarray(array[where])
    except (RuntimeError, ValueError) as error:
        raise CubeError(
            f"{array.store_path} is damaged: a shard cannot be decoded ({error}); nothing was made of it. `marstfn "
            "verify STORE` names the shard, and what to delete so that it is read again"
        ) from error


@contextmanager
def writing(store: Store, name: str, what: str) -> Iterator[None]:
    """Around the writing of `what` (a tile, its dates) to array `name`: an error of the system or of an object store
    comes out as StoreError where no further attempt can help (no room, no right), else as MarstfnError."""
    try:
        yield
    except (OSError, BaseError) as error:
        text = plainly(error)
        known = getattr(error, "errno", None)
        final = known in HOPELESS or any(os.strerror(n) in text for n in HOPELESS)
        remedy = "Make room there, or get the right to write there" if final else "Check that the store can be reached"
        raise (StoreError if final else MarstfnError)(
            f"cannot write {store.join(name)}, {what}: {text}; the tile is not entered in the ledger. "
            f"{remedy}, and run the same command again: finished tiles are kept"
        ) from error


def write_block(target: zarr.Array[Any], dates: slice, window: Window, resolution: int, data: NDArray[Any]) -> None:
    """Write whole shards and nothing but whole shards: `data` (dates, ny, nx) at a tile and a time block.

    Two tasks that share a shard would lose data without a word, so alignment is checked here. Raises CubeError.
    """
    rows, cols = window.roi(resolution)
    shape = target.shards or target.chunks
    for span, size, length in zip((dates, rows, cols), shape, target.shape, strict=True):
        if span.start % size or (span.stop % size and span.stop != length) or not 0 <= span.start < span.stop <= length:
            raise CubeError(
                f"{target.name}: a write of [{span.start}, {span.stop}) does not fill shards of {size} in {length}; "
                "the tile side or the time block differs from the cube's"
            )
    inside = shards.plain(target)
    if inside is None:
        target[dates, rows, cols] = data
        return
    chunk, codec = inside
    block = [span.start // size for span, size in zip((dates, rows, cols), shape, strict=True)]
    values = np.asarray(data, target.dtype)
    shards.put(target, block, shards.encoded(values, shape, chunk, target.fill_value, codec))


def shard_objects(
    store_name: str, array_name: str, blocks: Sequence[slice], window: Window, resolution: int
) -> Iterator[str]:
    """Names in the store of the shard objects that a tile fills in one array, one for each of its blocks of dates."""
    for index in range(len(blocks)):
        yield shard_object(store_name, array_name, index, window, resolution)


def input_objects(plan: Plan, tile: Window) -> Iterator[str]:
    """Names in the store of all shard objects of the inputs that a tile fills."""
    for group in groups(plan):
        blocks = input_blocks(plan, group)
        for name in group.variables:
            yield from shard_objects(INPUTS, f"{group.name}/{name}", blocks, tile, group.resolution)


def shard_object(store_name: str, array_name: str, block: int, window: Window, resolution: int) -> str:
    """Name in the store of the shard object that a tile fills in one array and block of dates."""
    rows, cols = window.roi(resolution)
    side = window.grid.tile_px * FINE // resolution
    return f"{store_name}/{array_name}/c/{block}/{rows.start // side}/{cols.start // side}"


def inner_side(tile_px: int) -> int:
    """Side of the inner chunks of a tile: the largest divisor of its side up to 120 px.

    Of the output a pixel's series reads one of them a time block, in milliseconds; those of 60 px are written more
    slowly, those of 240 px no faster (`python -m benchmarks writing`). Of the inputs a window around a tile reads those
    that it meets of its eight neighbours: where a chunk was a tile's date, it decoded nine tiles for one.
    """
    return _divisor(tile_px, INNER)


def _divisor(number: int, most: int) -> int:
    return max(d for d in range(1, most + 1) if number % d == 0)


def _holds(plan: Plan, store: Store, name: str) -> bool:
    group = _group(store, name)
    if group is None:
        return False
    attrs = group.attrs
    if attrs.get("format_version") != FORMAT:
        raise StoreError(
            f"{store.join(name)} has format version {attrs.get('format_version')!r}, this program writes {FORMAT!r}; "
            "nothing was changed there. Choose another --store, or go on with the release that began it"
        )
    if attrs.get("plan_fingerprint") != plan.fingerprint:
        raise StoreError(
            f"{store.join(name)} was made by another plan; nothing was changed there. Choose another --store"
        )
    # the consolidated metadata come last: without them a template was left half-made, and is made again
    return group.metadata.consolidated_metadata is not None


def status(store: Store) -> str | None:
    """The fused cube's attribute `status`; None before there is a cube. Raises StoreError where it is damaged."""
    group = _group(store, FUSED)
    return None if group is None else str(group.attrs.get("status"))


def _group(store: Store, name: str) -> zarr.Group | None:
    try:
        return zarr.open_group(store.zarr(name), mode="r")
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"{store.join(name)} is damaged: its zarr.json cannot be understood ({type(error).__name__}: {error}). "
            f"Delete the folder {name} and run again with the same store: it is made anew"
        ) from error


def _root(store: Store, name: str, attrs: dict[str, Any]) -> zarr.Group:
    try:
        return zarr.create_group(store.zarr(name), zarr_format=3, attributes=attrs, overwrite=True)
    except OSError as error:
        raise StoreError(
            f"cannot create {store.join(name)}: {error}; choose a folder you may write to (--store)"
        ) from error
