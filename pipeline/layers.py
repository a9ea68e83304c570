"""Variables and coordinates of a Zarr group, as readers of CF and of georeferences expect them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords
from zarr.codecs import BloscCodec

from pipeline.encoding import REGISTRATION, SHIFTS


def layer(
    node: zarr.Group,
    name: str,
    shape: tuple[int, ...],
    shard: tuple[int, ...],
    chunk: tuple[int, ...],
    dtype: str,
    fill: int,
    attrs: dict[str, Any],
) -> None:
    """Create an empty variable over time, y, x: sharded, compressed, with its grid mapping."""
    where = " ".join(n for n in ("source", "registration", *SHIFTS, "spatial_ref") if n in node)
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


def coordinates(node: zarr.Group, box: GeoBox, times: Sequence[datetime], sources: Sequence[str] | None = None) -> None:
    """Write time (UTC), y, x, spatial_ref and, where given, source(time)."""
    stamps = np.array([np.datetime64(t.replace(tzinfo=None), "us") for t in times]).astype(np.int64)
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


def scene_coordinates(node: zarr.Group, dates: int) -> None:
    """Create what is known of each date's registration once it is measured: NaN and no words until then."""
    for name, attrs in SHIFTS.items():
        _coordinate(node, name, ("time",), np.full(dates, np.nan, np.float32), attrs)
    node.create_array(
        "registration", shape=(dates,), chunks=(dates,), dtype=str, dimension_names=("time",), attributes=REGISTRATION
    )


def _coordinate(
    node: zarr.Group, name: str, dims: tuple[str, ...], values: NDArray[Any], attrs: dict[str, Any]
) -> None:
    target = node.create_array(
        name, shape=values.shape, chunks=values.shape, dtype=values.dtype, dimension_names=dims, attributes=attrs
    )
    target[...] = values


def consolidate(root: zarr.Group) -> None:
    """One file with all metadata, so that opening is silent and fast; workers never touch metadata after this."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Consolidated metadata", category=UserWarning)
        zarr.consolidate_metadata(root.store)
