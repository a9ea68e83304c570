"""Whether plan, items and the templates of both cubes are what they were when the run began."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime

import numpy as np
import pystac
import xarray as xr
import zarr
from odc.geo import CRS
from odc.geo.geobox import GeoBox

from marstfn.bands import BANDS, FINE
from pipeline import checks, cube, harmonise, items, uncertainty
from pipeline.checks import Finding
from pipeline.encoding import LAYERS
from pipeline.errors import CubeError
from pipeline.plan import FORMAT, Plan
from pipeline.store import FUSED, INPUTS, ITEMS, PLAN, Store

_MADE_ANEW = "Delete it, if there is anything left, and run again with the same store: it is made anew"
_CONSOLIDATE = "Run zarr.consolidate_metadata on it"


def plan(store: Store) -> tuple[Plan | None, list[Finding]]:
    """The plan of a store and what is wrong with it and its items; None where nothing more can be said."""
    data = store.read(PLAN)
    if data is None:
        raise CubeError(
            f"{store.url} holds no {PLAN}, so it is no store of a run; give the folder that the run printed"
        )
    unreadable = "nothing can be checked without it"
    try:
        content = json.loads(data)
        version = content.get("format")
        if version != FORMAT:
            what = f"its format version is {version!r}, this program reads {FORMAT!r}"
            remedy = "Use the release that wrote it"
            return None, [Finding("format", what, PLAN, unreadable, remedy)]
        found = Plan.model_validate(content)
    except (ValueError, AttributeError) as error:
        what = f"it is not a plan ({str(error).splitlines()[0]})"
        return None, [Finding("plan", what, PLAN, unreadable, checks.ANEW)]
    return found, list(_items(store, found))


def _items(store: Store, plan: Plan) -> Iterator[Finding]:
    data = store.read(ITEMS)
    consequence = "the scenes behind the cube cannot be traced"
    remedy = "Restore it from a copy, or run again with another --store"
    if data is None:
        yield Finding("plan", "it is missing", ITEMS, consequence, remedy)
        return
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pystac warns about hrefs it cannot parse
            found = items.sha256(pystac.ItemCollection.from_dict(json.loads(data)))
    except (ValueError, KeyError, TypeError, AttributeError, pystac.STACError) as error:
        yield Finding("plan", f"it is not a collection of items ({error})", ITEMS, consequence, remedy)
        return
    if found != plan.items_sha256:
        yield Finding("plan", "its content is not what the plan was made from", ITEMS, consequence, remedy)


def fused(store: Store, plan: Plan, *, finished: bool) -> list[Finding]:
    """Format, status, attributes, axes, georeference and array layout of the fused cube."""
    try:
        node = zarr.open_group(store.zarr(FUSED), mode="r")
        ds = xr.open_zarr(store.zarr(FUSED), chunks=None)
    except (OSError, ValueError, KeyError) as error:
        return [Finding("format", f"it cannot be opened ({error})", FUSED, "there is no output", _MADE_ANEW)]
    attrs = dict(node.attrs)
    if attrs.get("format_version") != FORMAT:
        what = f"its format version is {attrs.get('format_version')!r}, this program reads {FORMAT!r}"
        return [Finding("format", what, FUSED, "its pixels are not judged", "Use the release that wrote it")]
    expected = {
        k: v for k, v in cube.fused_attrs(plan, {}).items() if k not in ("status", "versions", "format_version")
    }
    found = list(checks.status(FUSED, attrs.get("status"))) if finished else []
    found += consolidated(node, zarr.open_group(store.zarr(FUSED), mode="r", use_consolidated=False))
    found += checks.attributes(FUSED, attrs, expected | {"versions": plan.versions})
    found += checks.time_axis(f"{FUSED}/time", _times(ds), cube.times(plan.scenes))
    found += checks.sources(f"{FUSED}/source", [str(s) for s in ds["source"].values] if "source" in ds else [], plan)
    found += _registration(store, plan, ds)
    found += georeference(ds, plan.grid.geobox(FINE), FUSED)
    for name in LAYERS:
        dtype, fill = ("uint8", cube.NOTHING) if name == "quality" else ("int16", cube.FILL)
        scale = None if name in ("quality", "reference_age") else cube.SCALE
        shape = (len(plan.scenes), *plan.grid.shape(FINE))
        found += layout(node, name, FUSED, shape, dtype, fill, scale)
    for band in BANDS:
        if band in node:
            own = uncertainty.of_band(plan, band)
            found += checks.attributes(f"{FUSED}/{band}", dict(node[band].attrs), own)
    return found


def _registration(store: Store, plan: Plan, ds: xr.Dataset) -> Iterator[Finding]:
    """The shifts that the cube tells are those that were measured; where none are kept, that is told elsewhere."""
    try:
        kept = harmonise.read(store)
    except CubeError:
        return
    if kept is not None:
        expected = cube.shift_values(plan, kept.shifts)
        yield from checks.registration(FUSED, {n: ds[n].values for n in expected if n in ds}, expected)


def inputs(store: Store, plan: Plan) -> list[Finding]:
    """Format, axes, georeference and array layout of the input cube."""
    found: list[Finding] = []
    try:
        root = zarr.open_group(store.zarr(INPUTS), mode="r", use_consolidated=False)
    except (OSError, ValueError) as error:
        what = f"it cannot be opened ({error})"
        return [Finding("format", what, INPUTS, "the inputs of the fused dates are gone", _MADE_ANEW)]
    identity = {"format_version": FORMAT, "plan_fingerprint": plan.fingerprint}
    found += checks.attributes(INPUTS, dict(root.attrs), identity)
    for group in cube.groups(plan):
        where = f"{INPUTS}/{group.name}"
        try:
            ds = xr.open_zarr(store.zarr(INPUTS), group=group.name, consolidated=False, chunks=None)
            node = zarr.open_group(store.zarr(INPUTS), path=group.name, mode="r", use_consolidated=False)
        except (OSError, ValueError, KeyError) as error:
            remedy = f"Delete the folder {INPUTS} and run again with the same store: it is made anew"
            found.append(Finding("format", f"it cannot be opened ({error})", where, "its scenes are gone", remedy))
            continue
        scenes = cube.group_scenes(plan, group)
        found += checks.time_axis(f"{where}/time", _times(ds), cube.times(scenes))
        found += georeference(ds, plan.grid.geobox(group.resolution), where)
        shape = (len(scenes), *plan.grid.shape(group.resolution))
        for band in group.bands:
            found += layout(node, band, where, shape, "int16", cube.FILL, cube.SCALE)
        if group.masked:
            found += layout(node, "clear", where, shape, "uint8", cube.NOTHING, None)
    return found


def consolidated(seen: zarr.Group, stored: zarr.Group) -> Iterator[Finding]:
    """The one file of metadata that readers open says what each array's own metadata say."""
    if seen.metadata.consolidated_metadata is None:
        consequence = "opening reads a file for each variable, and warns"
        yield Finding("attributes", "its metadata are not consolidated", FUSED, consequence, _CONSOLIDATE)
        return
    try:
        arrays = dict(stored.arrays())
    except (ValueError, KeyError, TypeError) as error:
        what = f"the metadata of one of its arrays cannot be understood ({type(error).__name__}: {error})"
        yield Finding("attributes", what, FUSED, "readers that pass by the consolidated copy fail", _MADE_ANEW)
        return
    for name, array in arrays.items():
        copy = seen.get(name)
        if not isinstance(copy, zarr.Array) or copy.metadata != array.metadata:
            what = "its own metadata and the consolidated copy differ"
            yield Finding("attributes", what, f"{FUSED}/{name}", "readers see either the one or the other", checks.ANEW)


def georeference(ds: xr.Dataset, planned: GeoBox, where: str) -> Iterator[Finding]:
    """Coordinates, CRS and transform are the grid's: pixel centres to the millimetre."""
    consequence = "the pixels lie elsewhere than the cube says"
    for axis in ("y", "x"):
        centres = np.asarray(planned.coordinates[axis].values)
        if axis not in ds.coords or ds.sizes[axis] != len(centres):
            what = f"{ds.sizes.get(axis, 0)} coordinates along {axis} where the grid has {len(centres)}"
            yield Finding("grid", what, f"{where}/{axis}", consequence, checks.ANEW)
        elif not np.allclose(ds[axis].values, centres, rtol=0, atol=1e-3):
            off = float(np.abs(ds[axis].values - centres).max())
            what = f"coordinates are up to {off:g} m off the grid's"
            yield Finding("grid", what, f"{where}/{axis}", consequence, checks.ANEW)
    if "spatial_ref" not in ds.coords:
        yield Finding(
            "grid", "it is missing", f"{where}/spatial_ref", "no tool knows where the pixels lie", checks.ANEW
        )
        return
    attrs = ds["spatial_ref"].attrs
    try:
        same = CRS(attrs.get("crs_wkt") or attrs.get("spatial_ref") or "") == planned.crs
    except ValueError:
        same = False
    if not same:
        what = f"its CRS is not the grid's {planned.crs}"
        yield Finding("grid", what, f"{where}/spatial_ref", consequence, checks.ANEW)
    a = planned.affine
    transform = [a.c, a.a, a.b, a.f, a.d, a.e]
    try:
        stored = [float(v) for v in str(attrs.get("GeoTransform", "")).split()]
    except ValueError:
        stored = []
    if len(stored) != 6 or not np.allclose(stored, transform, rtol=0, atol=1e-6):
        text = " ".join(f"{v:.12g}" for v in transform)
        what = f"its GeoTransform is {attrs.get('GeoTransform')!r}, the grid's is {text!r}"
        yield Finding("grid", what, f"{where}/spatial_ref", consequence, checks.ANEW)


def layout(
    node: zarr.Group, name: str, where: str, shape: tuple[int, ...], dtype: str, fill: int, scale: float | None
) -> Iterator[Finding]:
    """An array has the plan's shape and the cube's encoding: type, both fill values, scale."""
    place = f"{where}/{name}"
    array = node.get(name)
    if not isinstance(array, zarr.Array):
        yield Finding("layout", "the variable is missing", place, "the cube is incomplete", checks.ANEW)
        return
    filled = array.attrs.get("_FillValue") if dtype == "int16" else fill
    found = (array.shape, str(array.dtype), int(array.fill_value), filled, array.attrs.get("scale_factor"))
    for label, is_value, should in zip(
        ("shape", "type", "fill value", "_FillValue", "scale_factor"),
        found,
        (shape, dtype, fill, fill, scale),
        strict=True,
    ):
        if is_value != should:
            what = f"its {label} is {is_value!r}, not {should!r}"
            yield Finding("layout", what, place, "it decodes to wrong values or not at all", checks.ANEW)


def _times(ds: xr.Dataset) -> list[datetime]:
    """The time axis of a cube in UTC, to the microsecond; empty where it does not decode to times."""
    if "time" not in ds.coords or ds["time"].dtype.kind != "M":
        return []
    return [t.replace(tzinfo=UTC) for t in ds["time"].values.astype("datetime64[us]").astype(object)]
