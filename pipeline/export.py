"""Dates and bands of a finished cube as cloud-optimised GeoTIFFs, for those whose tools read files."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import rioxarray  # noqa: F401 - registers the accessor .rio
import xarray as xr
from numpy.typing import NDArray

from marstfn.bands import BANDS
from pipeline import outputs
from pipeline.cube import HIDDEN, LAYERS, NOTHING, open_cube
from pipeline.errors import CubeError, StoreError

FILL = -9999

Source = Literal["fused", "observed"]
MEMORY = 2**30
"""Bytes of pixels held at a time, as far as one date fits: dates of one shard are decoded together."""

# overviews by nearest, since averaging would mix flags, and reflectance with what stands beside a cloud
_PROFILE = {
    "compress": "DEFLATE",
    "predictor": "YES",
    "blocksize": 512,
    "overview_resampling": "nearest",
    "bigtiff": "IF_SAFER",
}


def export(
    cube: str | Path | xr.Dataset,
    folder: str | Path,
    *,
    dates: Iterable[str | date] | None = None,
    bands: Sequence[str] | None = None,
    source: Source | None = None,
    dtype: Literal["int16", "float32"] = "int16",
    overwrite: bool = False,
    progress: Callable[[int, int, Path], None] | None = None,
) -> tuple[Path, ...]:
    """One cloud-optimised GeoTIFF per entry of the time axis, `DATE_SOURCE.tif`, bands in the order given.

    int16: stored values with scale 1e-4, offset 0, nodata -9999; float32: reflectance, nodata NaN. `dates` are UTC
    calendar days (all without), `source` keeps fused or observed entries only. `progress(done, total, path)` is called
    after each date. A date on which no pixel is known gets no file; the files written are returned. A file
    appears whole or not at all. Raises CubeError for a date or band the cube lacks (saying
    what there is) and StoreError where a file exists already and `overwrite` is False.
    """
    if "://" in str(folder):
        raise StoreError(
            f"files are written to a folder on disk, not to {folder}; nothing was written. Choose a folder"
        )
    target = outputs.target(folder)
    ds = cube if isinstance(cube, xr.Dataset) else open_cube(str(cube))
    if "source" in ds:
        ds = ds.assign_coords(source=ds["source"].compute())  # asked for at every date
    chosen = _bands(ds, BANDS if bands is None else bands)
    entries = _entries(ds, dates, source)
    suffix = "" if tuple(chosen) == BANDS else "_" + "-".join(chosen)
    files = [target / f"{_name(ds, k)}{suffix}.tif" for k in entries]
    existing = [path.name for path in files if path.exists()]
    if existing and not overwrite:
        shown = ", ".join(existing[:5]) + (f" and {len(existing) - 5} more" if len(existing) > 5 else "")
        raise StoreError(f"{target} holds {shown} already; nothing was written. Choose another folder, or --overwrite")
    try:
        target.mkdir(exist_ok=True)
    except OSError as error:
        raise StoreError(f"cannot make the folder {target}: {error}; nothing was written. Choose another") from error
    paths = dict(zip(entries, files, strict=True))
    done, written = 0, []
    for group in _groups(ds, entries, len(chosen)):
        planes, scales = _planes(ds, group, chosen, dtype)
        for k, values in zip(group, planes, strict=True):
            if _anything(values, chosen):
                _write(_raster(ds, k, chosen, values, scales), paths[k])
                written.append(paths[k])
            done += 1
            if progress is not None:
                progress(done, len(files), paths[k])
    return tuple(written)


def _groups(ds: xr.Dataset, entries: Sequence[int], bands: int) -> Iterator[list[int]]:
    """The entries in groups to be read together: of one shard in time, which is decoded whole, and within MEMORY."""
    encoding = ds[BANDS[0]].encoding if BANDS[0] in ds else {}
    depth = (encoding.get("shards") or encoding.get("chunks") or (1,))[0]
    most = max(1, MEMORY // (ds.sizes["y"] * ds.sizes["x"] * (2 * bands + 8)))
    group: list[int] = []
    for k in entries:
        if group and (len(group) == most or k // depth != group[0] // depth):
            yield group
            group = []
        group.append(k)
    if group:
        yield group


def _planes(ds: xr.Dataset, group: list[int], bands: Sequence[str], dtype: str) -> tuple[NDArray[Any], list[float]]:
    """(dates, bands, ny, nx) as they go into the files, and the scale of each band there."""
    out = np.empty((len(group), len(bands), ds.sizes["y"], ds.sizes["x"]), dtype)
    scales = []
    for b, name in enumerate(bands):
        found = ds[name].isel(time=group).load()
        scale = float(found.encoding.get("scale_factor", 1.0)) if dtype == "int16" else 1.0
        values = found.values
        if dtype == "int16":
            # NaN fails the comparison with itself
            values = np.where(values == values, np.rint(values / scale), FILL)
        out[:, b] = values
        scales.append(scale)
    return out, scales


def _anything(values: NDArray[Any], bands: Sequence[str]) -> bool:
    """Whether any pixel (bands, ny, nx) is known; of the quality flag, what is neither nothing nor hidden."""
    for name, plane in zip(bands, values, strict=True):
        unknown = np.isin(plane, (FILL, NOTHING, HIDDEN)) if name == "quality" else (plane == FILL) | (plane != plane)
        if not unknown.all():
            return True
    return False


def _bands(ds: xr.Dataset, wanted: Sequence[str]) -> list[str]:
    there = [name for name in LAYERS if name in ds]
    unknown = [name for name in wanted if name not in there]
    if unknown or not wanted:
        asked = ", ".join(unknown) or "(none was named)"
        raise CubeError(f"the cube has no band {asked}; it has {', '.join(there)}. Name some of these")
    return list(dict.fromkeys(wanted))


def _entries(ds: xr.Dataset, dates: Iterable[str | date] | None, source: Source | None) -> list[int]:
    """Positions on the time axis: of all dates or those wanted, and of one source where one is named."""
    days = [pd.Timestamp(t).date() for t in ds["time"].values]
    of_source = [source is None or str(s).endswith(source) for s in _sources(ds)]
    if dates is None:
        chosen = [k for k, keep in enumerate(of_source) if keep]
        if not chosen:
            raise CubeError(f"the cube has no {source} dates; its sources are {sorted(set(_sources(ds)))}")
        return chosen
    wanted = {_day(text) for text in dates}
    absent = sorted(wanted - {day for day, keep in zip(days, of_source, strict=True) if keep})
    if absent or not wanted:
        there = sorted({day.isoformat() for day, keep in zip(days, of_source, strict=True) if keep})
        missing = ", ".join(day.isoformat() for day in absent) or "(no date was named)"
        kind = "" if source is None else f"{source} "
        raise CubeError(f"the cube has no {kind}entry on {missing}; its {kind}dates are {', '.join(there)}")
    return [k for k, (day, keep) in enumerate(zip(days, of_source, strict=True)) if keep and day in wanted]


def _day(value: str | date) -> date:
    if isinstance(value, datetime):
        return value.date()
    if isinstance(value, date):
        return value
    try:
        return date.fromisoformat(value)
    except ValueError as error:
        raise CubeError(f"{value!r} is not a date; write it as YYYY-MM-DD, e.g. 2023-07-14") from error


def _sources(ds: xr.Dataset) -> list[str]:
    return [str(s) for s in ds["source"].values] if "source" in ds else [""] * ds.sizes["time"]


def _name(ds: xr.Dataset, k: int) -> str:
    """`2023-07-14_landsat-8-fused`; a second entry of the same day and source carries its hour."""
    times = [pd.Timestamp(t) for t in ds["time"].values]
    sources = _sources(ds)
    twins = sum(t.date() == times[k].date() and s == sources[k] for t, s in zip(times, sources, strict=True))
    stamp = times[k].strftime("%Y-%m-%d" if twins == 1 else "%Y-%m-%dT%H%M%S")
    return f"{stamp}_{sources[k].replace(' ', '-')}" if sources[k] else stamp


def _raster(
    ds: xr.Dataset, k: int, bands: Sequence[str], values: NDArray[Any], scales: Sequence[float]
) -> xr.DataArray:
    """(band, y, x) of one date, ready for rioxarray, georeferenced as the cube is."""
    carried = ("credits", "simulated", "radiometry", "plan_fingerprint")
    attrs = {
        "long_name": tuple(bands),
        "scales": tuple(scales),
        "offsets": (0.0,) * len(bands),
        "TIFFTAG_DATETIME": pd.Timestamp(ds["time"].values[k]).strftime("%Y:%m:%d %H:%M:%S"),
        "source": _sources(ds)[k],
    } | {key: str(ds.attrs[key]) for key in carried if key in ds.attrs}
    raster = xr.DataArray(values, dims=("band", "y", "x"), coords={"y": ds["y"], "x": ds["x"]}, attrs=attrs)
    geobox = ds.odc.geobox
    if geobox is None:
        raise CubeError("the cube has no georeference (spatial_ref), so no GeoTIFF can be placed; run `verify` on it")
    nodata = FILL if values.dtype == np.int16 else np.nan
    placed = raster.rio.write_crs(geobox.crs.to_wkt()).rio.write_transform(geobox.affine)
    finished: xr.DataArray = placed.rio.write_nodata(nodata)
    return finished


def _write(raster: xr.DataArray, path: Path) -> None:
    part = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        raster.rio.to_raster(part, driver="COG", **_PROFILE)
        part.replace(path)
    except OSError as error:  # rasterio's own errors are OSErrors
        raise StoreError(
            f"cannot write {path}: {error}; the file was not made. Make room, or choose another folder"
        ) from error
    finally:
        part.unlink(missing_ok=True)
