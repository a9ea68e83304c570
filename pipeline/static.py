"""Items on disk instead of a server: an ItemCollection as JSON, or stac-geoparquet."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import shapely
from shapely.geometry import mapping

from pipeline.errors import CatalogError
from pipeline.facts import Item, acquired

_TOP = ("type", "stac_version", "stac_extensions", "id", "collection", "links", "assets")
"""Columns of stac-geoparquet that stand beside the properties, as do geometry and bbox."""


def items(
    path: str,
    collections: Sequence[str],
    bbox: tuple[float, float, float, float],
    interval: tuple[datetime, datetime],
) -> Iterator[Item]:
    """The items in a file that belong to `collections`, meet `bbox` (west, south, east, north) and lie in `interval`.

    Items without a self link get one that names the file, so that relative hrefs are read beside it. Raises
    CatalogError where the file is missing or holds no items.
    """
    file = Path(path)
    try:
        every = _parquet(file, collections) if file.suffix.lower() == ".parquet" else _json(file)
        for item in every:
            if item.get("collection") in collections and _there(item, bbox) and _then(item, interval):
                yield _placed(item, file)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CatalogError(
            f"file of items {path} cannot be read ({type(error).__name__}: {reason}); nothing was planned. "
            "Give an ItemCollection (.json) or stac-geoparquet (.parquet)"
        ) from error


def _json(file: Path) -> list[Item]:
    document = json.loads(file.read_text(encoding="utf-8"))
    if not isinstance(document, dict) or not isinstance(document.get("features"), list):
        raise ValueError("it is no ItemCollection: there are no features")
    return list(document["features"])


def _parquet(file: Path, collections: Sequence[str]) -> Iterator[Item]:
    import pyarrow
    import pyarrow.compute as pc
    import pyarrow.parquet

    try:
        source = pyarrow.parquet.ParquetFile(file)
        missing = [name for name in ("id", "collection", "geometry", "assets") if name not in source.schema_arrow.names]
        if missing:
            raise ValueError(f"it is no stac-geoparquet: there is no column {', '.join(missing)}")
        for batch in source.iter_batches(batch_size=1000):
            # before rows become objects: a catalogue's whole file has many collections
            wanted = batch.filter(pc.is_in(batch["collection"], pyarrow.array(list(collections), pyarrow.string())))
            yield from map(_row, wanted.to_pylist())
    except pyarrow.ArrowException as error:
        raise ValueError(str(error)) from error


def _row(row: dict[str, Any]) -> Item:
    box = row.get("bbox")
    if isinstance(box, Mapping):
        box = [box[name] for name in ("xmin", "ymin", "zmin", "xmax", "ymax", "zmax") if box.get(name) is not None]
    geometry = row.get("geometry")
    if isinstance(geometry, bytes):
        geometry = json.loads(json.dumps(mapping(shapely.from_wkb(geometry))))
    properties = {key: value for key, value in row.items() if key not in (*_TOP, "geometry", "bbox")}
    top = {key: _plain(row[key]) for key in _TOP if row.get(key) is not None}
    moment = _plain(properties.pop("datetime", None))
    # of all nulls only this one means something
    return {
        "type": "Feature", "links": [], **top, "geometry": geometry, "bbox": box,
        "properties": {"datetime": moment, **_plain(properties)},
    }  # fmt: skip


def _plain(value: Any) -> Any:
    """As JSON has it: a table gives every item the columns of all, and times as objects."""
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items() if inner is not None}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, datetime):
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).astimezone(UTC).isoformat().replace("+00:00", "Z")
    return value.isoformat() if isinstance(value, date) else value


def _there(item: Item, bbox: tuple[float, float, float, float]) -> bool:
    box = item.get("bbox")
    if not box:
        return True  # the footprint decides later
    half = len(box) // 2
    west, south, east, north = box[0], box[1], box[half], box[half + 1]
    if south > bbox[3] or north < bbox[1]:
        return False
    if west > east:  # across the antimeridian
        return bool(bbox[2] >= west or bbox[0] <= east)
    return bool(west <= bbox[2] and east >= bbox[0])


def _then(item: Item, interval: tuple[datetime, datetime]) -> bool:
    try:
        return interval[0] <= acquired(item) <= interval[1]
    except (CatalogError, ValueError):
        return True  # told with its reason where scenes are chosen


def _placed(item: Item, file: Path) -> Item:
    links = item.get("links") or []
    if any(link.get("rel") == "self" for link in links):
        return item
    return {**item, "links": [*links, {"rel": "self", "href": str(file)}]}
