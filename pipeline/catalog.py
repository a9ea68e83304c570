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

from pipeline.errors import CatalogError
from pipeline.events import Listener, Note, silent
from pipeline.facts import Item
from pipeline.profiles import Role, Source
from pipeline.retries import Repeats, told

PAGE = 100
"""Items asked for in one page: larger pages time out on public servers."""

RETRIED = (429, 500, 502, 503, 504)

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

    Month by month, all pages. Raises CatalogError when the catalogue cannot be reached, answers with an error that
    retries do not cure, or is no STAC API.
    """
    repeats = Repeats()
    client = _opened(source, patience, repeats)
    roles, notes = _served(client, source)
    collections = [product.collection for product in source.profile.products if product.role in roles]
    found: dict[Role, dict[str, Item]] = {role: {} for role in roles}
    longitude = (bbox[0] + bbox[2]) / 2
    for begin, end in _months(first, last):
        before = sum(map(len, found.values()))
        for item in _pages(client, source, collections, bbox, solar_interval(begin, end, longitude)):
            product = source.profile.product_of(item.get("collection"))
            if product is not None and product.role in found:
                found[product.role].setdefault(str(item["id"]), item)
        listener(Note("search", f"{begin:%Y-%m}: {sum(map(len, found.values())) - before} items", str(begin)))
    if repeats.counts:
        listener(Note("retries", told(repeats.counts), repeats.counts))
    return Found(source, {role: tuple(items.values()) for role, items in found.items()}, notes)


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


def _opened(source: Source, patience: Patience, repeats: Repeats) -> pystac_client.Client:
    stac_io = StacApiIO(max_retries=patience.retry())
    stac_io.session.hooks["response"].append(repeats.answered)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what is missing for us is checked below
            # the timeout goes in here: open() would reset one given to StacApiIO
            client = pystac_client.Client.open(source.url, stac_io=stac_io, timeout=(patience.connect, patience.answer))
        if not client.get_links("search"):
            raise CatalogError(
                f"catalogue {source.url} is a STAC catalogue without a search endpoint; nothing was planned. "
                "Give the address of a STAC API"
            )
    except _NO_API as error:
        raise _unusable(source, error) from error
    return client


def _served(client: pystac_client.Client, source: Source) -> tuple[tuple[Role, ...], tuple[str, ...]]:
    """The roles that the endpoint can fill; pan is optional, and asking for an unknown collection is an error there."""
    roles: list[Role] = []
    notes = [source.profile.notice] if source.profile.notice else []
    if source.profile.product("landsat8_pan") is None:
        notes.append(f"{source.profile.name} serves no panchromatic band: Landsat is fused without it")
    for product in source.profile.products:
        if product.role == "landsat8_pan":
            try:
                served = client.get_collection(product.collection) is not None
            except _NO_API as error:
                if getattr(error, "status_code", None) != 400:
                    raise _unusable(source, error) from error
                served = False
            if not served:
                notes.append(f"{source.url} has no collection {product.collection}: no panchromatic band")
                continue
        roles.append(product.role)
    return tuple(roles), tuple(notes)


def _pages(
    client: pystac_client.Client,
    source: Source,
    collections: list[str],
    bbox: tuple[float, float, float, float],
    interval: tuple[datetime, datetime],
) -> Iterator[Item]:
    """Items of all pages; ends at an empty page, or at one that repeats what was seen, whatever its next link says."""
    seen: set[tuple[str, str]] = set()
    try:
        pages = client.search(
            collections=collections, bbox=bbox, datetime=list(interval), limit=PAGE, max_items=None
        ).pages_as_dicts()
        for page in pages:
            fresh = [i for i in page["features"] if (str(i.get("collection")), str(i["id"])) not in seen]
            if not fresh:
                return
            seen.update((str(i.get("collection")), str(i["id"])) for i in fresh)
            yield from fresh
    except _NO_API as error:
        raise _unusable(source, error) from error


def _unusable(source: Source, error: Exception) -> CatalogError:
    """What went wrong at a catalogue, as a person would say it."""
    host = urlsplit(source.url).netloc
    status = getattr(error, "status_code", None)
    if isinstance(error, APIError) and status is not None:
        remedy = "try again later" if status in RETRIED else "check the address and whether it is open to all"
        detail = " ".join(str(error).split())[:200]
        return CatalogError(
            f"catalogue {source.url} answered {status} ({detail}); nothing was planned. For {host}: {remedy}"
        )
    if isinstance(error, APIError):
        return CatalogError(
            f"catalogue {source.url} cannot be reached ({_root(error)}); nothing was planned. "
            f"Check the network, a proxy, and that {host} is up"
        )
    return CatalogError(
        f"{source.url} does not answer like a STAC API ({type(error).__name__}: {' '.join(str(error).split())[:200]}); "
        "nothing was planned. Give the address of its landing page"
    )


def _root(error: BaseException) -> str:
    """The innermost cause, which is the telling one of a chain of wrapped network errors."""
    while error.__context__ is not None:
        error = error.__context__
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:200]
