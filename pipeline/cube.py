"""The two Zarr cubes of a run: their layout, their empty templates, and how they are opened."""

from __future__ import annotations

import importlib.metadata
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import xarray as xr
import zarr
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords
from zarr.codecs import BloscCodec

from marstfn.bands import BANDS, COARSE, FINE, PAN, PAN_RES
from pipeline.errors import CubeError, StoreError
from pipeline.grid import Grid, Window
from pipeline.plan import FORMAT, Plan, Scene
from pipeline.store import FUSED, INPUTS, Store

FILL = -9999
"""Stored where nothing is known; decodes to NaN."""
SCALE = 1e-4
"""Reflectance of one stored unit."""
NOTHING, CLEAR, MASKED = 0, 1, 2
"""Values of `clear` in the inputs."""
OBSERVED, FUSED_PIXEL, UPSAMPLED, HIDDEN = 1, 2, 3, 4
"""Values of `quality` in the fused cube besides NOTHING."""
FUSED_SOURCE, OBSERVED_SOURCE = "landsat-8 fused", "sentinel-2 observed"
RADIOMETRY = "Sentinel-2 MSI"
"""The one radiometric frame of all reflectance in the fused cube."""


@dataclass(frozen=True, slots=True)
class Group:
    """One group of the input cube: its sensor, pixel size in metres and bands."""

    name: str
    resolution: int
    bands: tuple[str, ...]
    masked: bool
    """Whether it has the variable `clear`."""


SENTINEL2 = Group("sentinel2", FINE, BANDS, True)
LANDSAT8 = Group("landsat8", COARSE, BANDS, True)
LANDSAT8_PAN = Group("landsat8_pan", PAN_RES, (PAN,), False)


def groups(plan: Plan) -> tuple[Group, ...]:
    """The groups of the plan's input cube; the panchromatic one only where the plan has pan."""
    return (SENTINEL2, LANDSAT8, LANDSAT8_PAN) if plan.has_pan else (SENTINEL2, LANDSAT8)


def group_scenes(plan: Plan, group: Group) -> tuple[Scene, ...]:
    """The scenes along the time axis of a group."""
    return plan.of("sentinel2" if group is SENTINEL2 else "landsat8")


def blocks(dates: int, time_shard: int) -> tuple[slice, ...]:
    """Shards along a time axis of `dates`: equal steps of at most `time_shard`, the last one shorter."""
    step = block_length(dates, time_shard)
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


def pack(reflectance: NDArray[np.floating[Any]]) -> NDArray[np.int16]:
    """Reflectance (NaN = nothing) as int16 in units of 1e-4, rounded to nearest, clipped to -0.9998..3.2767."""
    scaled = np.rint(reflectance / np.float32(SCALE))
    np.clip(scaled, FILL + 1, np.iinfo(np.int16).max, out=scaled)
    return np.where(np.isnan(scaled), np.float32(FILL), scaled).astype(np.int16)


def unpack(stored: NDArray[np.int16]) -> NDArray[np.float32]:
    """int16 in units of 1e-4 as float32 reflectance, NaN where it is the fill value."""
    out = stored.astype(np.float32) * np.float32(SCALE)
    out[stored == FILL] = np.nan
    return out


def create_inputs(plan: Plan, store: Store) -> bool:
    """Write the empty input cube, or find the plan's own there; True where it was made anew.

    Raises StoreError where another plan's cube is in the way.
    """
    if _holds(plan, store, INPUTS):
        return False
    root = _root(store, INPUTS, {**_identity(plan), "title": f"Inputs of {plan.name} {plan.year}"})
    for group in groups(plan):
        scenes = group_scenes(plan, group)
        node = root.create_group(group.name)
        _coordinates(node, plan.grid.geobox(group.resolution), scenes)
        side = plan.grid.tile_px * FINE // group.resolution
        shape = (len(scenes), *plan.grid.shape(group.resolution))
        shard = (block_length(len(scenes), plan.options.time_shard), side, side)
        for band in group.bands:
            _array(node, band, shape, shard, (1, side, side), "int16", FILL, _reflectance_attrs(band))
        if group.masked:
            _array(node, "clear", shape, shard, (1, side, side), "uint8", NOTHING, _flags("nothing", "clear", "masked"))
    _consolidate(root)
    return True


def create_fused(plan: Plan, store: Store, versions: dict[str, str] | None = None) -> bool:
    """Write the empty output cube, or find the plan's own there; True where it was made anew.

    Raises StoreError where another plan's cube is in the way.
    """
    if _holds(plan, store, FUSED):
        return False
    root = _root(store, FUSED, fused_attrs(plan, versions or {}))
    scenes, side = plan.scenes, plan.grid.tile_px
    sources = [FUSED_SOURCE if s.sensor == "landsat8" else OBSERVED_SOURCE for s in scenes]
    _coordinates(root, plan.grid.geobox(FINE), scenes, sources)
    shape = (len(scenes), *plan.grid.shape(FINE))
    step = block_length(len(scenes), plan.options.time_shard)
    shard, chunk = (step, side, side), (step, inner_side(side), inner_side(side))
    for band in BANDS:
        _array(root, band, shape, shard, chunk, "int16", FILL, _reflectance_attrs(band))
    meanings = ("nothing", "observed", "fused", "landsat_upsampled", "masked")
    _array(root, "quality", shape, shard, chunk, "uint8", NOTHING, _flags(*meanings))
    # `day`, not `days`: xarray would turn the latter into time spans, and people want numbers
    age = {
        "_FillValue": FILL,
        "units": "day",
        "long_name": "Landsat day minus the day of the Sentinel-2 reference",
    }
    _array(root, "reference_age", shape, shard, chunk, "int16", FILL, age)
    residual = {
        "_FillValue": FILL,
        "scale_factor": SCALE,
        "units": "1",
        "long_name": "|fused averaged over the 30 m pixel - Landsat|, mean of the bands",
    }
    _array(root, "coherence", shape, shard, chunk, "int16", FILL, residual)
    _consolidate(root)
    return True


def fused_attrs(plan: Plan, versions: dict[str, str]) -> dict[str, Any]:
    """Attributes of the fused cube: what another run needs to repeat it, and whom to credit."""
    box = plan.grid.geobox(FINE).boundingbox
    lon_lat = plan.grid.geobox(FINE).geographic_extent.boundingbox
    ids = [i for scene in plan.scenes for i in (*scene.items, *scene.pan_items)]
    return {
        **_identity(plan),
        "Conventions": "CF-1.11",
        "title": f"Reflectance at 10 m, {plan.name} {plan.year}, Landsat 8 and Sentinel-2 fused",
        "radiometry": RADIOMETRY,
        "method": plan.options.method,
        "credits": f"Contains modified Copernicus Sentinel data [{plan.year}]. "
        "Landsat-8 image courtesy of the U.S. Geological Survey",
        "simulated": "true" if plan.simulated else "false",
        "catalog": plan.catalog,
        "weights_sha256": [w.sha256 for w in plan.weights],
        "item_ids": ids,
        "versions": {**plan.versions, "marstfn": importlib.metadata.version("marstfn"), **versions},
        "bounds": [box.left, box.bottom, box.right, box.top],
        "crs": f"EPSG:{plan.grid.epsg}",
        "geospatial_lon_min": lon_lat.left,
        "geospatial_lat_min": lon_lat.bottom,
        "geospatial_lon_max": lon_lat.right,
        "geospatial_lat_max": lon_lat.top,
        "year": plan.year,
        "status": "in progress",
    }


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
        raise CubeError(f"no cube at {store.join(name)}: {error}; give the path that the run printed") from error
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


def write_block(target: zarr.Array[Any], dates: slice, window: Window, resolution: int, data: NDArray[Any]) -> None:
    """Write whole shards and nothing but whole shards: `data` (dates, ny, nx) at a tile and a time block.

    Two tasks that share a shard would lose data without a word, so alignment is checked here. Raises CubeError.
    """
    rows, cols = window.roi(resolution)
    shards = target.shards or target.chunks
    for span, size, length in zip((dates, rows, cols), shards, target.shape, strict=True):
        if span.start % size or (span.stop % size and span.stop != length) or not 0 <= span.start < span.stop <= length:
            raise CubeError(
                f"{target.name}: a write of [{span.start}, {span.stop}) does not fill shards of {size} in {length}; "
                "the tile side or the time block differs from the cube's"
            )
    target[dates, rows, cols] = data


def shard_objects(
    plan: Plan, store_name: str, array_name: str, dates: int, window: Window, resolution: int
) -> Iterator[str]:
    """Names in the store of the shard objects that a tile fills in one array, in order of time."""
    rows, cols = window.roi(resolution)
    side = plan.grid.tile_px * FINE // resolution
    for index in range(len(blocks(dates, plan.options.time_shard))):
        yield f"{store_name}/{array_name}/c/{index}/{rows.start // side}/{cols.start // side}"


def inner_side(tile_px: int) -> int:
    """Side of the inner chunks of the output: the largest divisor of the tile side up to 60 px."""
    return max(d for d in range(1, 61) if tile_px % d == 0)


def block_bytes(plan: Plan, grid: Grid) -> int:
    """Bytes of one time block of one tile of the output, all variables."""
    return block_length(len(plan.scenes), plan.options.time_shard) * grid.tile_px**2 * (2 * len(BANDS) + 5)


def _identity(plan: Plan) -> dict[str, Any]:
    return {"format_version": FORMAT, "plan_fingerprint": plan.fingerprint}


def _holds(plan: Plan, store: Store, name: str) -> bool:
    try:
        group = zarr.open_group(store.zarr(name), mode="r")
    except FileNotFoundError:
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


def _root(store: Store, name: str, attrs: dict[str, Any]) -> zarr.Group:
    try:
        return zarr.create_group(store.zarr(name), zarr_format=3, attributes=attrs, overwrite=True)
    except OSError as error:
        raise StoreError(
            f"cannot create {store.join(name)}: {error}; choose a folder you may write to (--store)"
        ) from error


def _array(
    node: zarr.Group,
    name: str,
    shape: tuple[int, ...],
    shard: tuple[int, ...],
    chunk: tuple[int, ...],
    dtype: str,
    fill: int,
    attrs: dict[str, Any],
) -> None:
    where = "source spatial_ref" if "source" in node else "spatial_ref"
    node.create_array(
        name,
        shape=shape,
        shards=shard,
        chunks=chunk,
        dtype=dtype,
        fill_value=fill,
        compressors=[BloscCodec(cname="zstd", clevel=3, shuffle="bitshuffle")],
        filters=None,
        dimension_names=("time", "y", "x"),
        attributes={**attrs, "grid_mapping": "spatial_ref", "coordinates": where},
    )


def _coordinates(node: zarr.Group, box: GeoBox, scenes: Sequence[Scene], sources: Sequence[str] | None = None) -> None:
    stamps = np.array([np.datetime64(t.replace(tzinfo=None), "us") for t in times(scenes)]).astype(np.int64)
    attrs = {
        "standard_name": "time",
        "long_name": "acquisition time (UTC)",
        "units": "microseconds since 1970-01-01 00:00:00",
        "calendar": "proleptic_gregorian",
    }
    _coordinate(node, "time", ("time",), stamps, attrs)
    if sources is not None:
        values = np.array(list(sources), dtype=object)
        target = node.create_array(
            "source",
            shape=values.shape,
            chunks=values.shape,
            dtype=str,
            dimension_names=("time",),
            attributes={"long_name": "where the pixels of a date come from"},
        )
        target[:] = values
    for name, coord in xr_coords(box).items():
        extra = {"standard_name": f"projection_{name}_coordinate"} if name in ("x", "y") else {}
        attrs = {k: v.item() if isinstance(v, np.generic) else v for k, v in coord.attrs.items()}
        _coordinate(node, str(name), tuple(str(d) for d in coord.dims), np.asarray(coord.values), {**attrs, **extra})


def _coordinate(
    node: zarr.Group, name: str, dims: tuple[str, ...], values: NDArray[Any], attrs: dict[str, Any]
) -> None:
    target = node.create_array(
        name, shape=values.shape, chunks=values.shape, dtype=values.dtype, dimension_names=dims, attributes=attrs
    )
    target[...] = values


def _consolidate(root: zarr.Group) -> None:
    """One file with all metadata, so that opening is silent and fast; workers never touch metadata after this."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Consolidated metadata", category=UserWarning)
        zarr.consolidate_metadata(root.store)


def _reflectance_attrs(band: str) -> dict[str, Any]:
    return {
        "_FillValue": FILL,
        "scale_factor": SCALE,
        "units": "1",
        "standard_name": "surface_bidirectional_reflectance" if band != PAN else "toa_bidirectional_reflectance",
        "long_name": f"{band} reflectance",
    }


def _flags(*meanings: str) -> dict[str, Any]:
    return {"flag_values": list(range(len(meanings))), "flag_meanings": " ".join(meanings)}
