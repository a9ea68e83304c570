"""The vegetation index over a finished cube: lazily as a cube, at one point as a table, as a picture."""

from __future__ import annotations

import json
import math
import os
import shutil
import time
import uuid
import warnings
from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import xarray as xr
from dask.callbacks import Callback
from numpy.typing import NDArray
from odc.geo.geom import point as geo_point
from odc.geo.xr import ODCExtension  # noqa: F401 - registers the accessor .odc

from pipeline import outputs
from pipeline.cube import open_cube
from pipeline.encoding import SIMULATED
from pipeline.errors import CubeError, StoreError

TITLE = "NDVI at 10 m"
"""Of an NDVI cube, in its attributes: by it one is known again."""
NDVI_FILL = -32768
"""Stored where NDVI is unknown; the cube's own -9999 would be an NDVI of -0.9999."""

_CARRIED = ("credits", "simulated", "plan_fingerprint", "format_version", "radiometry", "year", "status")


def ndvi(ds: xr.Dataset) -> xr.DataArray:
    """Normalised difference vegetation index (nir08 - red) / (nir08 + red) of a decoded cube.

    float32, the dims of `red`, -1..1; NaN where a band is unknown, where red + nir08 <= 0, and where a negative
    reflectance would push the ratio out of range. Stays lazy on dask arrays. Raises CubeError on stored integers.
    (Rouse et al. 1974, NASA SP-351, p. 309.)
    """
    missing = [band for band in ("red", "nir08") if band not in ds]
    if missing:
        raise CubeError(f"NDVI needs the bands red and nir08; {missing} missing among {sorted(map(str, ds.data_vars))}")
    if ds["red"].dtype.kind != "f" or ds["nir08"].dtype.kind != "f":
        raise CubeError(
            "NDVI needs reflectance, but the bands are stored integers: fill would pass for a value. "
            "Open the cube with open_cube or xr.open_zarr, which decode"
        )
    index: xr.DataArray = xr.apply_ufunc(
        ratio, ds["red"], ds["nir08"], dask="parallelized", output_dtypes=[np.float32], keep_attrs=True
    )
    grid_mapping = ds["red"].encoding.get("grid_mapping", ds["red"].attrs.get("grid_mapping", "spatial_ref"))
    attrs = {"long_name": "normalised difference vegetation index", "units": "1", "grid_mapping": grid_mapping}
    index = index.rename("ndvi")
    index.attrs = attrs  # those of the bands go, those of the coordinates, the CRS among them, stay
    return index


def ratio(red: NDArray[np.floating[Any]], nir: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """NDVI of red and near infrared reflectance of one shape, float32 as in `ndvi`."""
    total = (red + nir).astype(np.float32)
    known = total > 0  # False for NaN too
    value = np.full(total.shape, np.nan, np.float32)
    np.divide((nir - red).astype(np.float32), total, out=value, where=known)
    value[np.abs(value) > 1] = np.nan
    return value


def ndvi_point(cube: str | Path | xr.Dataset, lon: float, lat: float) -> pd.DataFrame:
    """The year at the 10 m pixel that holds (`lon`, `lat`), degrees WGS 84: one row a date, index `time` (UTC).

    Columns ndvi, red, nir08 (reflectance, NaN where unknown), quality (flag), source. Raises CubeError where the
    point lies outside the cube or is no point on Earth.
    """
    ds = _opened(cube)
    row, col = pixel_of(ds, lon, lat)
    names = [name for name in ("red", "nir08", "quality") if name in ds]
    with dask.config.set(scheduler="synchronous"):  # a thread pool costs more than the few chunks it would share out
        pixel = ds[names].isel(y=row, x=col).load()
    table = pd.DataFrame({name: pixel[name].values for name in names}, index=pd.Index(ds["time"].values, name="time"))
    table.insert(0, "ndvi", ndvi(pixel).values)
    if "source" in ds:
        table["source"] = [str(name) for name in ds["source"].values]
    table.attrs = {"lon": lon, "lat": lat, "x": float(ds["x"][col]), "y": float(ds["y"][row])}
    table.attrs |= {key: ds.attrs[key] for key in ("credits", "simulated") if key in ds.attrs}
    return table


def pixel_of(ds: xr.Dataset, lon: float, lat: float) -> tuple[int, int]:
    """(row, column) of the pixel of `ds` that holds (`lon`, `lat`), degrees WGS 84; CubeError where there is none."""
    if not (math.isfinite(lon) and math.isfinite(lat) and -180 <= lon <= 180 and -90 <= lat <= 90):
        raise CubeError(
            f"({lon}, {lat}) is not a point on Earth: longitude runs -180..180, latitude -90..90. "
            "Give longitude first, then latitude"
        )
    geobox = ds.odc.geobox
    if geobox is None:
        raise CubeError("the cube has no georeference (spatial_ref), so no point can be found; run `verify` on it")
    x, y = geo_point(lon, lat, "EPSG:4326").to_crs(geobox.crs).coords[0]
    to_pixel = ~geobox.affine
    col, row = math.floor(to_pixel.a * x + to_pixel.c), math.floor(to_pixel.e * y + to_pixel.f)
    if not (0 <= row < geobox.shape[0] and 0 <= col < geobox.shape[1]):
        box = geobox.geographic_extent.boundingbox
        raise CubeError(
            f"the point (longitude {lon}, latitude {lat}) lies outside the cube, which covers longitude "
            f"{box.left:.4f} to {box.right:.4f} and latitude {box.bottom:.4f} to {box.top:.4f}. "
            "Choose a point inside; longitude comes first"
        )
    return row, col


def write_ndvi(
    cube: str | Path | xr.Dataset,
    out: str | Path,
    *,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """NDVI of the whole cube to the Zarr folder `out`: int16, scale 1e-4, -32768 = unknown, shards as the cube's.

    Read and written shard by shard through dask, so memory does not grow with the cube. `progress(done, total)` counts
    dask tasks. The folder appears whole or not at all. Raises StoreError where `out` exists and `overwrite` is False.
    """
    if "://" in str(out):
        raise StoreError(f"NDVI is written to a folder on disk, not to {out}; nothing was written. Choose a folder")
    target = outputs.target(out)
    if target.exists() and not overwrite:
        raise StoreError(f"{target} exists already; nothing was written. Choose another --out, or say --overwrite")
    if target.exists() and not _is_ndvi(target):
        raise StoreError(
            f"{target} is no NDVI cube that this program wrote; nothing was removed or written. Choose another --out"
        )
    ds = _opened(cube)
    shards, chunks = _layout(ds["red"])
    bands = ds[["red", "nir08"]].chunk(dict(zip(("time", "y", "x"), shards, strict=True)))
    index = ndvi(bands)
    result = index.to_dataset().assign_attrs(
        {key: ds.attrs[key] for key in _CARRIED if key in ds.attrs}
        | {"Conventions": "CF-1.11", "title": TITLE, "source_cube": str(ds.encoding.get("source", ""))}
    )
    grid_mapping = result["ndvi"].attrs.pop("grid_mapping")
    encoding: Mapping[Hashable, Any] = {
        "ndvi": {
            "dtype": "int16",
            "scale_factor": 1e-4,
            "_FillValue": NDVI_FILL,
            "fill_value": NDVI_FILL,  # with _FillValue alone a shard that was never written would decode as NDVI 0
            "chunks": chunks,
            "shards": shards,
            "grid_mapping": grid_mapping,
        }
    }
    for name in result.variables:
        result[name].encoding.clear()
    part = target.with_name(f".{target.name}.{uuid.uuid4().hex}.partial")
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Consolidated metadata", category=UserWarning)
            written = result.to_zarr(part, mode="w", zarr_format=3, consolidated=True, encoding=encoding, compute=False)
        with _Counting(progress):
            # a shard of two bands takes 0.3 GB while it is worked on: no more threads than memory bears
            written.compute(scheduler="threads", num_workers=min(4, os.cpu_count() or 1))
        if target.exists():
            shutil.rmtree(target)
        part.rename(target)
    except OSError as error:
        raise StoreError(f"cannot write {target}: {error}; nothing was left there. Choose another --out") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _is_ndvi(folder: Path) -> bool:
    try:
        return bool(json.loads((folder / "zarr.json").read_bytes())["attributes"]["title"] == TITLE)
    except (OSError, ValueError, KeyError, TypeError):
        return False


class _Counting(Callback):  # type: ignore[misc]
    """Tells `progress` how many dask tasks are done, of how many."""

    def __init__(self, progress: Callable[[int, int], None] | None) -> None:
        super().__init__(start_state=self._begin, posttask=self._count)
        self._progress, self._done, self._total = progress, 0, 0

    def _begin(self, dsk: Mapping[Any, Any], state: Mapping[str, Any]) -> None:
        self._total = sum(len(state[k]) for k in ("ready", "waiting", "running", "finished"))

    def _count(self, *_: Any) -> None:
        self._done += 1
        if self._progress is not None:
            self._progress(self._done, max(self._done, self._total))


def _layout(array: xr.DataArray) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(shard, inner chunk) of a stored (time, y, x) array, or of the whole array where it was never stored."""
    chunks = array.encoding.get("chunks") or array.shape
    shards = array.encoding.get("shards") or chunks
    return tuple(shards), tuple(chunks)


def _opened(cube: str | Path | xr.Dataset) -> xr.Dataset:
    return cube if isinstance(cube, xr.Dataset) else open_cube(str(cube))


def plot(table: pd.DataFrame, path: str | Path, *, title: str | None = None, simulated: bool = False) -> Path:
    """The table of `ndvi_point` as a PNG curve: observed dates as rings, fused dates as dots. Raises StoreError."""
    from pipeline.drawing import Curve  # matplotlib takes a second to import, and most users never plot
    from pipeline.quicklook import single_curve

    lon, lat = table.attrs.get("lon", math.nan), table.attrs.get("lat", math.nan)
    fused = table["source"].str.endswith("fused").to_numpy() if "source" in table else np.zeros(len(table), bool)
    made_up = simulated or table.attrs.get("simulated") == "true"
    curve = Curve("NDVI", table.index.to_numpy(), table["ndvi"].to_numpy(), fused)
    picture = single_curve(
        curve,
        title=title or "NDVI through the year",
        subtitle=f"the 10 m pixel at longitude {lon:.5f}, latitude {lat:.5f}",
        credits=SIMULATED if made_up else str(table.attrs.get("credits", "")),
        simulated=made_up,
    )
    target = Path(path)
    try:
        target.write_bytes(picture)
    except OSError as error:
        raise StoreError(f"cannot write {target}: {error}; no picture was made. Choose another --plot") from error
    return target


def benchmark(cube: str | Path, lon: float, lat: float, *, repeats: int = 9) -> dict[str, float]:
    """Median milliseconds, warm, of opening `cube` and reading two bands of one pixel over the year."""

    def once() -> float:
        start = time.perf_counter()
        ds = open_cube(str(cube))
        row, col = pixel_of(ds, lon, lat)
        with dask.config.set(scheduler="synchronous"):
            ds[["red", "nir08"]].isel(y=row, x=col).load()
        return (time.perf_counter() - start) * 1e3

    once()
    taken = sorted(once() for _ in range(repeats))
    return {"median_ms": taken[len(taken) // 2], "best_ms": taken[0], "worst_ms": taken[-1]}
