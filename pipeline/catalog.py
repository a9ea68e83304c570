"""Search of a STAC API for a year of both sensors: every page, with patience for servers that stumble."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from urllib.parse import urlsplit

import pystac_client
from pystac.errors import STACError
from pystac_client.errors import ClientTypeError
from pystac_client.exceptions import APIError
from pystac_client.stac_api_io import StacApiIO
from urllib3 import Retry

from pipeline import static
from pipeline.errors import CatalogError
from pipeline.events import Listener, Note, counted, silent
from pipeline.facts import Item
from pipeline.products import CATALOG
from pipeline.profiles import Endpoint, Role, Source
from pipeline.retries import Repeats, told

PAGE = 100
"""Items asked for in one page: larger pages time out on public servers."""

LIMIT = 10_000
"""Items of one search beyond which it is refused: a year over a large area has some thousands."""

RETRIED = (429, 500, 502, 503, 504)

_UNKNOWN = (400, 404)
"""What servers answer to an unknown collection."""

_NO_API = (APIError, STACError, ClientTypeError, ValueError, KeyError, TypeError, AttributeError)
"""What pystac and pystac-client raise at documents that are no STAC API's."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to bear with a catalogue: timeouts in seconds, retries and the pauses between them."""

    connect: float = 10.0
    answer: float = 60.0
    retries: int = 8
    backoff: float = 0.5
    longest_pause: int = 60

    def retry(self) -> Retry:
        """Retries that include POST, which pystac-client leaves out by default, and honour Retry-After."""
        return Retry(
            total=self.retries,
            connect=2,  # a refused connection or unknown host is told in seconds
            read=min(2, self.retries),
            status=self.retries,
            status_forcelist=RETRIED,
            allowed_methods=None,
            backoff_factor=self.backoff,
            backoff_max=self.longest_pause,
            backoff_jitter=self.backoff,
            retry_after_max=self.longest_pause,
            raise_on_status=False,
        )


@dataclass(frozen=True, slots=True)
class Found:
    """What a search returned, by role and in no particular order; unfiltered but for repeats of one id."""

    source: Source
    items: Mapping[Role, tuple[Item, ...]]
    notes: tuple[str, ...] = field(default=())


def search(
    source: Source,
    bbox: tuple[float, float, float, float],
    first: date,
    last: date,
    *,
    patience: Patience = Patience(),
    listener: Listener = silent,
) -> Found:
    """All items of the source's collections over `bbox` (west, south, east, north) on the solar days first..last.

    Each catalogue of the source is asked for the roles it fills: an API month by month, all pages; a file at once.
    Every item says in its properties through which profile it was found. Raises CatalogError when a catalogue cannot be
    reached, answers with an error that retries do not cure, is no STAC API, has lost a collection, or when more than
    LIMIT items match.
    """
    found: dict[Role, tuple[Item, ...]] = {}
    notes: list[str] = []
    for endpoint in source.endpoints:
        if endpoint.static:
            items, said = _of_file(endpoint, bbox, first, last, listener)
        else:
            items, said = _of_api(endpoint, bbox, first, last, patience, listener)
        found |= items
        notes += [endpoint.profile.notice] * bool(endpoint.profile.notice) + list(said)
    if "landsat8_pan" not in source.roles and "landsat8" in source.roles:
        names = "+".join(endpoint.profile.name for endpoint in source.endpoints)
        notes.append(f"{names} serves no panchromatic band: Landsat is fused without it (add +usgs to the catalogue)")
    pan = source.product("landsat8_pan")
    if pan is not None and pan.family == "dea-ard" and found.get("landsat8_pan"):
        notes.append(
            f"the panchromatic band of {pan.collection} is surface reflectance, and networks with pan were trained on "
            "that at the top of the atmosphere: what they make of it is untested. --weights marstfn-nopan does without"
        )
    return Found(source, found, tuple(notes))


Items = dict[Role, tuple[Item, ...]]


def _of_api(
    endpoint: Endpoint,
    bbox: tuple[float, float, float, float],
    first: date,
    last: date,
    patience: Patience,
    listener: Listener,
) -> tuple[Items, tuple[str, ...]]:
    repeats = Repeats()
    client = _opened(endpoint, patience, repeats)
    roles, notes = _served(client, endpoint)
    collections = list(dict.fromkeys(p.collection for p in endpoint.products if p.role in roles))
    found: dict[Role, dict[str, Item]] = {role: {} for role in roles}
    longitude = (bbox[0] + bbox[2]) / 2
    count = served = 0
    for begin, end in _months(first, last):
        before = count
        try:
            for item in _pages(client, endpoint, collections, bbox, solar_interval(begin, end, longitude)):
                count, served = count + _sorted_in(item, endpoint, found), served + 1
                if served > LIMIT:
                    matched = _matched(client, collections, bbox, solar_interval(first, last, longitude))
                    many = f"{matched:,}" if matched else f"more than {LIMIT:,} (counted until {end:%Y-%m})"
                    raise _too_many(endpoint, many, first, last)
        except CatalogError as error:
            if getattr(error.__cause__, "status_code", None) in _UNKNOWN:
                for role in roles:
                    gone = lost(Source((endpoint,)), role, patience)
                    if gone:
                        raise CatalogError(gone) from error
            raise
        listener(Note("search", f"{begin:%Y-%m}: {counted(count - before, 'item')}", str(begin)))
    if repeats.counts:
        listener(Note("retries", told(repeats.counts), repeats.counts))
    return {role: tuple(items.values()) for role, items in found.items()}, notes


def _of_file(
    endpoint: Endpoint, bbox: tuple[float, float, float, float], first: date, last: date, listener: Listener
) -> tuple[Items, tuple[str, ...]]:
    interval = solar_interval(first, last, (bbox[0] + bbox[2]) / 2)
    found: dict[Role, dict[str, Item]] = {role: {} for role in endpoint.roles}
    count = sum(
        _sorted_in(i, endpoint, found) for i in static.items(endpoint.url, endpoint.collections, bbox, interval)
    )
    if count > LIMIT:
        raise _too_many(endpoint, f"{count:,}", first, last)
    listener(Note("search", f"{endpoint.url}: {counted(count, 'item')}", endpoint.url))
    empty = [p.collection for p in endpoint.profile.of("landsat8_pan") if not found.get("landsat8_pan", {"": {}})]
    notes = tuple(f"{endpoint.url} holds no items of {name} here: no panchromatic band" for name in empty)
    return {role: tuple(items.values()) for role, items in found.items()}, notes


def _sorted_in(item: Item, endpoint: Endpoint, found: dict[Role, dict[str, Item]]) -> int:
    """Put an item where it serves, marked with the catalogue's name; how many items (0 or 1) are new."""
    marked, new = None, 0
    for role, items in found.items():
        # one item can serve two roles: DEA's holds the panchromatic band, too
        if endpoint.profile.product_of(item.get("collection"), role) is not None and str(item["id"]) not in items:
            marked = marked or _marked(item, endpoint)
            items[str(item["id"])] = marked
            new = 1
    return new


def _marked(item: Item, endpoint: Endpoint) -> Item:
    properties = item.get("properties")
    if not isinstance(properties, Mapping):
        return item  # told with its reason where scenes are chosen
    return {**item, "properties": {**properties, CATALOG: endpoint.profile.name}}


def lost(source: Source, role: Role, patience: Patience) -> str:
    """What to say of a role for which nothing was found because its collection is no longer served; else empty."""
    endpoint = source.endpoint(role)
    if endpoint is None or endpoint.static:
        return ""
    client = _opened(endpoint, patience)
    names = [product.collection for product in endpoint.profile.of(role)]
    if any(_has(client, endpoint, name) for name in names):
        return ""
    try:
        known = sorted(collection.id for collection in client.get_collections())
    except _NO_API:
        known = []
    similar = [name for name in known if any(word in name for word in ("landsat", "sentinel", "ls8", "s2"))] or known
    served = f"; it serves {', '.join(similar[:12])}" if similar else ""
    return (
        f"catalogue {endpoint.url} no longer serves the collection {' or '.join(names)}{served}; nothing was planned. "
        "Choose another catalogue, or say in a profile file which collection took its place"
    )


def _has(client: pystac_client.Client, endpoint: Endpoint, collection: str) -> bool:
    try:
        return client.get_collection(collection) is not None
    except _NO_API as error:
        if getattr(error, "status_code", None) not in _UNKNOWN:
            raise _unusable(endpoint, error) from error
        return False


def _matched(
    client: pystac_client.Client,
    collections: list[str],
    bbox: tuple[float, float, float, float],
    interval: tuple[datetime, datetime],
) -> int | None:
    """How many items the whole search matches, where the catalogue counts them."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return client.search(collections=collections, bbox=bbox, datetime=list(interval), limit=1).matched()
    except _NO_API:
        return None


def _too_many(endpoint: Endpoint, count: str, first: date, last: date) -> CatalogError:
    return CatalogError(
        f"{count} items of {endpoint.url} match from {first} to {last}, more than the {LIMIT:,} that are planned at "
        "once; nothing was planned. Choose a smaller area or fewer days, or cut the area into several runs"
    )


def solar_interval(first: date, last: date, longitude: float) -> tuple[datetime, datetime]:
    """UTC moments at which solar day `first` begins and solar day `last` ends at `longitude` degrees."""
    shift = timedelta(hours=int(longitude / 15))
    midnight = time(tzinfo=UTC)
    return datetime.combine(first, midnight) - shift, datetime.combine(last + timedelta(days=1), midnight) - shift


def _months(first: date, last: date) -> Iterator[tuple[date, date]]:
    begin = first
    while begin <= last:
        following = (begin.replace(day=1) + timedelta(days=32)).replace(day=1)
        yield begin, min(last, following - timedelta(days=1))
        begin = following


def _opened(endpoint: Endpoint, patience: Patience, repeats: Repeats | None = None) -> pystac_client.Client:
    stac_io = StacApiIO(max_retries=patience.retry())
    if repeats is not None:
        stac_io.session.hooks["response"].append(repeats.answered)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what is missing for us is checked below
            # the timeout goes in here: open() would reset one given to StacApiIO
            client = pystac_client.Client.open(
                endpoint.url, stac_io=stac_io, timeout=(patience.connect, patience.answer)
            )
        if not client.get_links("search"):
            raise CatalogError(
                f"catalogue {endpoint.url} is a STAC catalogue without a search endpoint; nothing was planned. "
                "Give the address of a STAC API"
            )
    except _NO_API as error:
        raise _unusable(endpoint, error) from error
    return client


def _served(client: pystac_client.Client, endpoint: Endpoint) -> tuple[tuple[Role, ...], tuple[str, ...]]:
    """The roles that the endpoint can fill; pan is optional, and asking for an unknown collection is an error there."""
    roles: list[Role] = []
    notes: list[str] = []
    for role in endpoint.roles:
        names = [product.collection for product in endpoint.profile.of(role)]
        if role == "landsat8_pan" and not any(_has(client, endpoint, name) for name in names):
            notes.append(f"{endpoint.url} has no collection {' or '.join(names)}: no panchromatic band")
            continue
        roles.append(role)
    return tuple(roles), tuple(notes)


def _pages(
    client: pystac_client.Client,
    endpoint: Endpoint,
    collections: list[str],
    bbox: tuple[float, float, float, float],
    interval: tuple[datetime, datetime],
) -> Iterator[Item]:
    """Items of all pages; ends at an empty page, whatever its next link says.

    Raises CatalogError at a page that repeats what was seen: such a catalogue pages for ever. One that makes up new
    items for ever ends at LIMIT, where they are counted.
    """
    seen: set[tuple[str, str]] = set()
    try:
        pages = client.search(
            collections=collections, bbox=bbox, datetime=list(interval), limit=PAGE, max_items=None
        ).pages_as_dicts()
        for page in pages:
            fresh = [i for i in page["features"] if (str(i.get("collection")), str(i["id"])) not in seen]
            if not page["features"]:
                return
            if not fresh:
                first = str(page["features"][0]["id"])
                raise _endless(endpoint, interval, f"after {len(seen)} items it served a page again (item {first})")
            seen.update((str(i.get("collection")), str(i["id"])) for i in fresh)
            yield from fresh
    except _NO_API as error:
        raise _unusable(endpoint, error) from error


def _endless(endpoint: Endpoint, interval: tuple[datetime, datetime], what: str) -> CatalogError:
    days = f"{interval[0]:%Y-%m-%d} to {interval[1]:%Y-%m-%d}"
    return CatalogError(
        f"catalogue {endpoint.url} pages without end: searched from {days}, {what}; whether its answer is whole cannot "
        "be told, and nothing was planned. Choose another catalogue, or tell whoever runs it"
    )


def _unusable(endpoint: Endpoint, error: Exception) -> CatalogError:
    """What went wrong at a catalogue, as a person would say it."""
    host = urlsplit(endpoint.url).netloc
    status = getattr(error, "status_code", None)
    if isinstance(error, APIError) and status is not None:
        remedy = "try again later" if status in RETRIED else "check the address and whether it is open to all"
        detail = " ".join(str(error).split())[:200]
        return CatalogError(
            f"catalogue {endpoint.url} answered {status} ({detail}); nothing was planned. For {host}: {remedy}"
        )
    if isinstance(error, APIError):
        return CatalogError(
            f"catalogue {endpoint.url} cannot be reached ({_root(error)}); nothing was planned. "
            f"Check the network, a proxy, and that {host} is up"
        )
    return CatalogError(
        f"{endpoint.url} does not answer like a STAC API "
        f"({type(error).__name__}: {' '.join(str(error).split())[:200]}); "
        "nothing was planned. Give the address of its landing page"
    )


def _root(error: BaseException) -> str:
    """The innermost cause, which is the telling one of a chain of wrapped network errors."""
    while error.__context__ is not None:
        error = error.__context__
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:200]
