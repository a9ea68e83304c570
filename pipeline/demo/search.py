"""Item search of the embedded STAC API: which items of a folder answer a request, and in which order."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeAlias

import shapely

from pipeline.errors import NoScenesError

Json = dict[str, Any]
Area: TypeAlias = Any
"""A shapely geometry in degrees, longitude before latitude (GeoJSON)."""

DEFAULT_LIMIT, MAX_LIMIT = 10, 1000
"""Items on a page when nothing is asked, and at most (STAC API item search)."""

KNOWN = frozenset({"collections", "ids", "bbox", "intersects", "datetime", "limit", "token"})


class BadRequest(ValueError):
    """A search the API cannot answer; the text goes to the client with status 400."""


@dataclass(frozen=True, slots=True)
class Query:
    """One item search; None means no condition."""

    collections: tuple[str, ...] | None = None
    ids: tuple[str, ...] | None = None
    area: Area | None = None
    start: datetime | None = None
    end: datetime | None = None
    limit: int = DEFAULT_LIMIT
    token: str | None = None

    @classmethod
    def parse(cls, body: Mapping[str, Any]) -> Query:
        """The search asked for by a POST body (or a GET query with lists already split); raises BadRequest.

        Parameters the API does not know are refused: a filter that is silently ignored returns wrong items.
        """
        if unknown := sorted(set(body) - KNOWN):
            raise BadRequest(f"parameters not supported: {', '.join(unknown)}; supported: {', '.join(sorted(KNOWN))}")
        bbox, shape = body.get("bbox"), body.get("intersects")
        if bbox and shape:
            raise BadRequest("bbox and intersects exclude each other; send one of them")
        area = _box(bbox) if bbox else _shape(shape) if shape else None
        start, end = _interval(body.get("datetime"))
        return cls(
            _names(body, "collections"), _names(body, "ids"), area, start, end, _limit(body.get("limit")), _token(body)
        )

    def admits(self, entry: Entry) -> bool:
        """Whether the item answers every condition but paging."""
        if self.collections is not None and entry.collection not in self.collections:
            return False
        if self.ids is not None and entry.id not in self.ids:
            return False
        if self.start is not None and entry.time < self.start:
            return False
        if self.end is not None and entry.time > self.end:
            return False
        return self.area is None or bool(shapely.intersects(entry.geometry, self.area))


@dataclass(frozen=True, slots=True)
class Entry:
    """An item as it lies in the folder, with what a search looks at."""

    collection: str
    id: str
    time: datetime
    geometry: Area
    item: Json

    @property
    def key(self) -> str:
        return f"{self.collection}:{self.id}"


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a search of `matched` items; `next` is the token that asks for the following one."""

    entries: tuple[Entry, ...]
    matched: int
    next: str | None


@dataclass(frozen=True, slots=True)
class Catalogue:
    """What a folder holds: `catalog.json`, `collections/ID.json`, `items/COLLECTION/ID.json`; newest items first."""

    about: Json
    collections: dict[str, Json]
    entries: tuple[Entry, ...]

    @classmethod
    def read(cls, folder: Path) -> Catalogue:
        """Read a folder written by `pipeline.demo.products`; raises StoreError where it is none."""
        try:
            about: Json = json.loads((folder / "catalog.json").read_text())
        except (OSError, ValueError) as error:
            raise NoScenesError(
                f"{folder} holds no catalogue: {error}; nothing is served. Give the folder that scenes were written to "
                "(such as demo/scenes); if writing was cut short, write them again"
            ) from error
        paths = sorted((folder / "collections").glob("*.json"))
        collections: dict[str, Json] = {path.stem: json.loads(path.read_text()) for path in paths}
        entries = [
            _entry(json.loads(path.read_text()))
            for name in collections
            for path in (folder / "items" / name).glob("*.json")
        ]
        entries.sort(key=lambda e: (-e.time.timestamp(), e.collection, e.id))
        return cls(about, collections, tuple(entries))

    @property
    def years(self) -> tuple[int, ...]:
        """Calendar years (UTC) of the items, earliest first."""
        return tuple(sorted({entry.time.year for entry in self.entries}))

    def find(self, collection: str, item: str) -> Entry | None:
        """The item of that collection and id, or None."""
        return next((e for e in self.entries if e.collection == collection and e.id == item), None)

    def search(self, query: Query, *, next_on_last_page: bool = False) -> Page:
        """One page; with `next_on_last_page` the last page also carries a token, and the page after it is empty,
        as one public catalogue does (STAC API paging, Earth Search)."""
        found = [e for e in self.entries if query.admits(e)]
        first = _after(found, query.token)
        entries = tuple(found[first : first + query.limit])
        more = first + len(entries) < len(found) or (next_on_last_page and bool(entries))
        return Page(entries, len(found), f"next:{entries[-1].key}" if more and entries else None)


def _after(found: list[Entry], token: str | None) -> int:
    if token is None:
        return 0
    key = token.removeprefix("next:")
    for position, entry in enumerate(found):
        if entry.key == key:
            return position + 1
    raise BadRequest(f"token {token!r} points at no item of this search; repeat the search from its first page")


def _entry(item: Json) -> Entry:
    return Entry(
        item["collection"],
        item["id"],
        _instant(item["properties"]["datetime"]),
        _geometry(item["geometry"]),
        item,
    )


def _names(body: Mapping[str, Any], field: str) -> tuple[str, ...] | None:
    value = body.get(field)
    if not value:
        return None
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise BadRequest(f"{field} must be a list of strings")
    return tuple(value)


def _token(body: Mapping[str, Any]) -> str | None:
    value = body.get("token")
    if value is not None and not isinstance(value, str):
        raise BadRequest("token must be a string taken from the link rel=next")
    return value


def _limit(value: Any) -> int:
    if value is None:
        return DEFAULT_LIMIT
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise BadRequest(f"limit must be a whole number from 1 to {MAX_LIMIT}")
    return min(value, MAX_LIMIT)


def _box(value: Any) -> Area:
    numbers = _floats(value)
    if len(numbers) == 6:
        numbers = [*numbers[:2], *numbers[3:5]]
    if len(numbers) != 4 or numbers[1] > numbers[3]:
        raise BadRequest("bbox must be west, south, east, north in degrees (or the same with heights)")
    west, south, east, north = numbers
    if west <= east:
        return shapely.box(west, south, east, north)
    # RFC 7946, section 5.2: west > east means that the box crosses the antimeridian
    return shapely.union(shapely.box(west, south, 180, north), shapely.box(-180, south, east, north))


def _floats(value: Any) -> list[float]:
    try:
        return [float(number) for number in value]
    except (TypeError, ValueError) as error:
        raise BadRequest("bbox must be a list of numbers") from error


def _shape(value: Any) -> Area:
    try:
        return _geometry(value)
    except (shapely.errors.ShapelyError, TypeError) as error:
        raise BadRequest(f"intersects must be a GeoJSON geometry: {error}") from error


def _geometry(value: Json) -> Area:
    return shapely.from_geojson(json.dumps(value))


def _interval(value: Any) -> tuple[datetime | None, datetime | None]:
    if value is None:
        return None, None
    if not isinstance(value, str):
        raise BadRequest("datetime must be a string: an instant or an interval A/B")
    start, slash, end = value.partition("/")
    if not slash:
        return _instant(start), _instant(start)
    first, last = (None if edge in ("", "..") else _instant(edge) for edge in (start, end))
    if first is None and last is None:
        raise BadRequest("datetime ../.. is no interval; give one end or leave datetime out")
    if first is not None and last is not None and first > last:
        raise BadRequest(f"datetime {value!r} ends before it begins")
    return first, last


def _instant(text: str) -> datetime:
    try:
        time = datetime.fromisoformat(text)
    except ValueError as error:
        raise BadRequest(f"datetime {text!r} is not RFC 3339, e.g. 2023-01-01T00:00:00Z") from error
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time


def absolute(item: Json, url: str, links: Iterable[Json]) -> Json:
    """The item with asset hrefs made absolute below `url` and with the links of the API."""
    assets = {
        key: {**asset, "href": asset["href"] if "://" in asset["href"] else f"{url}/{asset['href'].lstrip('/')}"}
        for key, asset in item["assets"].items()
    }
    kept = [link for link in item.get("links", ()) if link["rel"] not in ("self", "root", "parent", "collection")]
    return {**item, "assets": assets, "links": [*links, *kept]}
