"""Search over real sockets: retries by POST, paging as recorded, empty last pages, hosts that are not there."""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from pipeline import catalog, profiles
from pipeline.catalog import Patience
from pipeline.errors import CatalogError
from pipeline.events import Event, Note
from pipeline.facts import acquired, solar_day

BBOX = (119.6, 49.1, 119.7, 49.2)
HASTY = Patience(connect=2, answer=5, backoff=0.01, longest_pause=1)

Answer = tuple[int, dict[str, str], Any]


class API:
    """A STAC API of one endpoint whose answers to POST /search a function decides; remembers every request."""

    def __init__(self, answer: Callable[[API, dict[str, Any]], Answer]) -> None:
        api = self
        self.searches: list[dict[str, Any]] = []
        self.collections: set[str] = set()
        self.landing: Callable[[], Answer] = lambda: (200, {}, api.root())

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args: Any) -> None:
                pass

            def reply(self, status: int, headers: dict[str, str], body: Any) -> None:
                data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
                self.send_response(status)
                for name, value in {"Content-Length": str(len(data)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

            def do_GET(self) -> None:
                if self.path in ("/", ""):
                    self.reply(*api.landing())
                elif self.path.endswith("/collections"):
                    self.reply(200, {}, {"collections": [api.collection(name) for name in sorted(api.collections)]})
                elif self.path.rsplit("/", 1)[1] in api.collections:
                    self.reply(200, {}, api.collection(self.path.rsplit("/", 1)[1]))
                else:
                    self.reply(404, {}, {"code": "NotFoundError"})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                api.searches.append(body)
                self.reply(*answer(api, body))

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def root(self) -> dict[str, Any]:
        classes = ["core", "collections", "item-search"]
        return {
            "type": "Catalog",
            "id": "api",
            "stac_version": "1.0.0",
            "description": "a test",
            "conformsTo": [f"https://api.stacspec.org/v1.0.0/{name}" for name in classes],
            "links": [
                {"rel": "self", "href": self.url},
                {"rel": "root", "href": self.url},
                {"rel": "data", "href": f"{self.url}/collections"},
                {"rel": "search", "href": f"{self.url}/search", "type": "application/geo+json", "method": "POST"},
                {"rel": "search", "href": f"{self.url}/search", "type": "application/geo+json", "method": "GET"},
            ],
        }

    def collection(self, name: str) -> dict[str, Any]:
        extent = {"spatial": {"bbox": [[-180, -90, 180, 90]]}, "temporal": {"interval": [[None, None]]}}
        common = {"type": "Collection", "stac_version": "1.0.0", "description": "x", "license": "other", "links": []}
        return {**common, "id": name, "extent": extent}

    def next_link(self, body: dict[str, Any], token: str) -> dict[str, Any]:
        return {"rel": "next", "method": "POST", "href": f"{self.url}/search", "body": {**body, "token": token}}

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def serve() -> Iterator[Callable[[Callable[[API, dict[str, Any]], Answer]], API]]:
    running: list[API] = []

    def start(answer: Callable[[API, dict[str, Any]], Answer]) -> API:
        running.append(API(answer))
        return running[-1]

    yield start
    for api in running:
        api.close()


def page(*features: dict[str, Any], links: list[dict[str, Any]] | None = None) -> Answer:
    return 200, {}, {"type": "FeatureCollection", "features": list(features), "links": links or []}


def item(name: str, moment: str = "2024-05-01T02:30:00Z", collection: str = "sentinel-2-l2a") -> dict[str, Any]:
    return {"type": "Feature", "id": name, "collection": collection, "properties": {"datetime": moment}, "assets": {}}


def source(api: API, profile: str = "planetary-computer") -> profiles.Source:
    return profiles.resolve(f"{profile}@{api.url}")


def search(api: API, first: date = date(2024, 5, 1), last: date = date(2024, 5, 31), **kw: Any) -> catalog.Found:
    return catalog.search(source(api), BBOX, first, last, patience=kw.pop("patience", HASTY), **kw)


def ids(found: catalog.Found) -> list[str]:
    return [i["id"] for items in found.items.values() for i in items]


def test_a_month_is_one_search_for_both_sensors(serve: Any) -> None:
    api = serve(lambda api, body: page(item("S"), item("L", collection="landsat-c2-l2"), item("X", collection="naip")))
    events: list[Event] = []
    found = search(api, date(2024, 5, 3), date(2024, 6, 10), listener=events.append)
    assert {role: [i["id"] for i in items] for role, items in found.items.items()} == {
        "landsat8": ["L"],
        "sentinel2": ["S"],
    }
    assert [s["collections"] for s in api.searches] == [["landsat-c2-l2", "sentinel-2-l2a"]] * 2
    assert all(s["bbox"] == list(BBOX) and s["limit"] == 100 for s in api.searches)
    # solar days at 119.65 E begin 7 h before UTC midnight
    assert [s["datetime"] for s in api.searches] == [
        "2024-05-02T17:00:00Z/2024-05-31T17:00:00Z",
        "2024-05-31T17:00:00Z/2024-06-10T17:00:00Z",
    ]
    assert [e.text for e in events if isinstance(e, Note)] == ["2024-05: 2 items", "2024-06: 0 items"]


def test_the_intervals_of_a_year_leave_no_gap(serve: Any) -> None:
    api = serve(lambda api, body: page())
    search(api, date(2024, 1, 1), date(2024, 12, 31))
    spans = [s["datetime"].split("/") for s in api.searches]
    assert len(spans) == 12
    assert spans[0][0] == "2023-12-31T17:00:00Z"
    assert spans[-1][1] == "2024-12-31T17:00:00Z"
    assert all(a[1] == b[0] for a, b in itertools.pairwise(spans))


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_posts_are_retried_when_a_server_stumbles(status: int, serve: Any) -> None:
    def answer(api: API, body: dict[str, Any]) -> Answer:
        return page(item("S")) if len(api.searches) > 3 else (status, {}, {"description": "busy"})

    api = serve(answer)
    assert ids(search(api)) == ["S"]
    assert len(api.searches) == 4


def test_retries_happen_in_the_middle_of_paging(serve: Any) -> None:
    failed: set[str] = set()

    def answer(api: API, body: dict[str, Any]) -> Answer:
        token = body.get("token", "0")
        if token not in failed:
            failed.add(token)
            return 503, {}, "try again"
        number = int(token)
        links = [api.next_link(body, str(number + 1))] if number < 4 else []
        return page(item(f"S{number}"), links=links)

    api = serve(answer)
    assert ids(search(api)) == [f"S{n}" for n in range(5)]
    assert len(api.searches) == 10


def test_retry_after_is_honoured_but_not_for_an_hour(serve: Any) -> None:
    def answer(api: API, body: dict[str, Any]) -> Answer:
        return page(item("S")) if len(api.searches) > 1 else (429, {"Retry-After": "1"}, {})

    begun = time.monotonic()
    assert ids(search(serve(answer))) == ["S"]
    assert 1.0 <= time.monotonic() - begun < 4
    forever = serve(lambda api, body: page(item("S")) if len(api.searches) > 1 else (503, {"Retry-After": "3600"}, {}))
    begun = time.monotonic()
    assert ids(search(forever)) == ["S"]
    assert time.monotonic() - begun < 4


@pytest.mark.parametrize(
    ("status", "remedy"), [(503, "try again later"), (429, "try again later"), (403, "open to all")]
)
def test_a_server_that_stays_broken_is_named_with_its_answer(status: int, remedy: str, serve: Any) -> None:
    api = serve(lambda api, body: (status, {}, {"description": "down for repair"}))
    with pytest.raises(CatalogError) as caught:
        search(api, patience=Patience(retries=2, backoff=0.01))
    for word in (api.url, f"answered {status}", "down for repair", remedy, "nothing was planned"):
        assert word in str(caught.value)
    assert len(api.searches) == (1 if status == 403 else 3)


def test_an_empty_last_page_ends_the_search_although_it_was_promised(serve: Any) -> None:
    def answer(api: API, body: dict[str, Any]) -> Answer:
        token = body.get("token")
        return page(*([] if token else [item("S1"), item("S2")]), links=[api.next_link(body, "on")])

    api = serve(answer)
    assert ids(search(api)) == ["S1", "S2"]
    assert len(api.searches) == 2


def test_pages_that_repeat_themselves_are_an_error(serve: Any) -> None:
    api = serve(lambda api, body: page(item("S1"), links=[api.next_link(body, "again")]))
    with pytest.raises(CatalogError) as caught:
        search(api)
    for words in (api.url, "pages without end", "2024-05", "served a page again (item S1)", "nothing was planned"):
        assert words in str(caught.value)
    assert len(api.searches) == 2


@pytest.mark.parametrize("collection", ["sentinel-2-l2a", "never-asked-for"])
def test_paging_without_end_stops_at_the_limit(collection: str, serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog, "LIMIT", 20)

    def answer(api: API, body: dict[str, Any]) -> Answer:
        number = len(api.searches)
        items = (item(f"S{number}-{k}", collection=collection) for k in range(8))
        return page(*items, links=[api.next_link(body, str(number))])

    api = serve(answer)
    said = r"more than 20 \(counted until 2024-05\) items of .*smaller area or fewer days"
    with pytest.raises(CatalogError, match=said):
        search(api)
    assert len(api.searches) == 4, "three pages, and one question how many there are in all"


def test_an_item_that_comes_twice_is_kept_once(serve: Any) -> None:
    api = serve(lambda api, body: page(item("S", "2024-05-31T17:00:00Z")))
    assert ids(search(api, date(2024, 5, 1), date(2024, 6, 30))) == ["S"]
    assert len(api.searches) == 2


@pytest.mark.shared
def test_recorded_pages_of_planetary_computer(serve: Any, shared: Path) -> None:
    folder = shared / "stac" / "planetary-computer" / "paging"
    pages = [json.loads((folder / f"search-page-{n}.json").read_text()) for n in (1, 2)]

    def answer(api: API, body: dict[str, Any]) -> Answer:
        tokens = {None: 0, pages[0]["links"][0]["body"]["token"]: 1}
        number = tokens.get(body.get("token"))
        text = json.dumps(pages[number] if number is not None else {"type": "FeatureCollection", "features": []})
        return 200, {}, text.replace("https://planetarycomputer.microsoft.com/api/stac/v1", api.url)

    api = serve(answer)
    found = search(api, date(2023, 2, 16), date(2023, 2, 16))
    assert ids(found) == [p["features"][0]["id"] for p in pages]
    # the link's body is the whole request (no merge), as recorded
    assert [s.get("token") for s in api.searches] == [None, *(p["links"][0]["body"]["token"] for p in pages)]
    served = found.items["sentinel2"][0]["assets"]["B04"]
    assert served == pages[0]["features"][0]["assets"]["B04"], "items are passed on as served"


@pytest.mark.shared
def test_a_recorded_conversation_is_followed_to_its_end(serve: Any, shared: Path) -> None:
    path = shared / "stac" / "planetary-computer" / "paging" / "vcr-result-paging.json"
    talk = [pair for pair in json.loads(path.read_text()) if pair["request"]["uri"].endswith("/search")]
    replies = {json.dumps(pair["request"]["body"].get("token")): pair["response"]["body"] for pair in talk}

    def answer(api: API, body: dict[str, Any]) -> Answer:
        reply = replies.get(json.dumps(body.get("token")), {"type": "FeatureCollection", "features": []})
        text = json.dumps(reply).replace("https://planetarycomputer.microsoft.com/api/stac/v1", api.url)
        return 200, {}, text.replace('"collection": "naip"', '"collection": "sentinel-2-l2a"')

    expected = [f["id"] for pair in talk for f in pair["response"]["body"]["features"]]
    assert len(expected) > 10
    assert ids(search(serve(answer))) == list(dict.fromkeys(expected))


# ---- catalogues that are not there


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://127.0.0.1:1", ["refused", "127.0.0.1:1 is up"]),
        ("http://no-such-host.invalid/stac", ["no-such-host.invalid is up"]),
    ],
)
def test_an_unreachable_catalogue_is_told_in_seconds(url: str, words: list[str]) -> None:
    begun = time.monotonic()
    with pytest.raises(CatalogError) as caught:
        catalog.search(profiles.resolve(f"earth-search@{url}"), BBOX, date(2024, 1, 1), date(2024, 12, 31))
    assert time.monotonic() - begun < 15
    for word in (url, "cannot be reached", "Check the network", "nothing was planned", *words):
        assert word in str(caught.value)


def test_a_catalogue_that_does_not_answer_is_given_up(serve: Any) -> None:
    def answer(api: API, body: dict[str, Any]) -> Answer:
        time.sleep(1.0)
        return page()

    begun = time.monotonic()
    with pytest.raises(CatalogError, match=r"cannot be reached .*timed out"):
        search(serve(answer), patience=Patience(answer=0.2, retries=2, backoff=0.01))
    assert time.monotonic() - begun < 8


@pytest.mark.parametrize(
    ("landing", "words"),
    [
        ((200, {}, "<html>hello</html>"), "does not answer like a STAC API"),
        ((200, {}, {"hello": "world"}), "does not answer like a STAC API"),
        ((404, {}, {"code": "NotFoundError"}), "answered 404"),
        (
            (200, {}, {"type": "Catalog", "id": "s", "stac_version": "1.0.0", "description": "d", "links": []}),
            "without a search",
        ),
    ],
)
def test_what_is_no_stac_api_is_said_to_be_none(landing: Answer, words: str, serve: Any) -> None:
    api = serve(lambda api, body: page())
    api.landing = lambda: landing
    with pytest.raises(CatalogError, match=words) as caught:
        search(api)
    assert api.url in str(caught.value)


@pytest.mark.parametrize("answer", [(200, {}, "not json"), (200, {}, {"type": "FeatureCollection", "features": [{}]})])
def test_a_garbled_answer_is_an_error_in_words(answer: Answer, serve: Any) -> None:
    with pytest.raises(CatalogError, match="does not answer like a STAC API"):
        search(serve(lambda api, body: answer))


def test_pan_is_searched_where_its_collection_is_served(serve: Any) -> None:
    api = serve(lambda api, body: page())
    without = catalog.search(source(api, "simulated"), BBOX, date(2024, 5, 1), date(2024, 5, 2), patience=HASTY)
    assert api.searches[-1]["collections"] == ["landsat-c2-l2", "sentinel-2-c1-l2a"]
    assert "no collection landsat-c2l1: no panchromatic band" in without.notes[0]
    api.collections.add("landsat-c2l1")
    found = catalog.search(source(api, "simulated"), BBOX, date(2024, 5, 1), date(2024, 5, 2), patience=HASTY)
    assert api.searches[-1]["collections"] == ["landsat-c2-l2", "sentinel-2-c1-l2a", "landsat-c2l1"]
    assert (set(found.items), found.notes) == ({"landsat8", "sentinel2", "landsat8_pan"}, ())
    assert "serves no panchromatic band" in search(api).notes[0]


# ---- several catalogues, lost collections, too much


def test_joined_catalogues_are_each_asked_for_their_roles(serve: Any) -> None:
    """The same id, sentinel-2-l2a, at both: only the first is asked for it, and each item says where it is from."""
    cdse = serve(lambda api, body: page(item("S"), item("L", collection="landsat-c2-l2")))
    usgs = serve(
        lambda api, body: page(item("L_SR", collection="landsat-c2l2-sr"), item("L1", collection="landsat-c2l1"))
    )
    usgs.collections.add("landsat-c2l1")
    joined = profiles.resolve(f"cdse@{cdse.url}+usgs@{usgs.url}")
    found = catalog.search(joined, BBOX, date(2024, 5, 1), date(2024, 5, 2), patience=HASTY)
    assert [s["collections"] for s in cdse.searches] == [["sentinel-2-l2a"]]
    assert [s["collections"] for s in usgs.searches] == [["landsat-c2l2-sr", "landsat-c2l1"]]
    marked = {
        role: [(i["id"], i["properties"]["marstfn:catalog"]) for i in items] for role, items in found.items.items()
    }
    assert marked == {"sentinel2": [("S", "cdse")], "landsat8": [("L_SR", "usgs")], "landsat8_pan": [("L1", "usgs")]}
    assert [note[:20] for note in found.notes] == ["files are JPEG 2000 ", "Landsat is read from"]


def test_an_item_of_dea_serves_two_roles(serve: Any) -> None:
    api = serve(lambda api, body: page(item("X", collection="ga_ls8c_ard_3"), item("S", collection="ga_s2bm_ard_3")))
    api.collections.add("ga_ls8c_ard_3")
    found = catalog.search(source(api, "dea"), BBOX, date(2024, 5, 1), date(2024, 5, 2), patience=HASTY)
    assert api.searches[0]["collections"] == ["ga_ls8c_ard_3", "ga_s2am_ard_3", "ga_s2bm_ard_3", "ga_s2cm_ard_3"]
    assert {role: [i["id"] for i in items] for role, items in found.items.items()} == {
        "landsat8": ["X"], "landsat8_pan": ["X"], "sentinel2": ["S"],
    }  # fmt: skip
    (said,) = found.notes
    assert "panchromatic band of ga_ls8c_ard_3 is surface reflectance" in said
    assert "--weights marstfn-nopan" in said


@pytest.mark.parametrize("counts", [True, False])
def test_a_search_of_more_than_10_000_items_is_refused_with_the_count(
    counts: bool, serve: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalog, "LIMIT", 12)

    def answer(api: API, body: dict[str, Any]) -> Answer:
        number = len(api.searches)
        status, headers, document = page(*(item(f"S{number}-{k}") for k in range(5)))
        return status, headers, document | ({"numberMatched": 60} if counts else {})

    api = serve(answer)
    with pytest.raises(CatalogError) as caught:
        search(api, date(2024, 1, 1), date(2024, 12, 31))
    said = "60 items of" if counts else "more than 12 (counted until 2024-03) items of"
    for words in (said, api.url, "2024-01-01 to 2024-12-31", "nothing was planned", "smaller area or fewer days"):
        assert words in str(caught.value)
    assert [s["limit"] for s in api.searches[:3]] == [100] * 3


def test_the_limit_is_10_000() -> None:
    assert catalog.LIMIT == 10_000


def test_a_collection_that_vanished_is_named_with_what_is_served_now(serve: Any) -> None:
    api = serve(lambda api, body: page())
    api.collections |= {"landsat-c2-l2", "sentinel-2-c2-l2a"}
    assert catalog.lost(source(api, "simulated"), "landsat8", HASTY) == ""
    told = catalog.lost(source(api, "simulated"), "sentinel2", HASTY)
    for words in (api.url, "no longer serves the collection sentinel-2-c1-l2a", "nothing was planned", "profile file"):
        assert words in told


def test_a_search_that_is_refused_for_a_vanished_collection_says_so(serve: Any) -> None:
    api = serve(lambda api, body: (404, {}, {"description": "unknown collection"}))
    api.collections.add("landsat-c2-l2")
    with pytest.raises(CatalogError, match="no longer serves the collection sentinel-2-l2a"):
        search(api)


# ---- days


@pytest.mark.parametrize(
    ("moment", "longitude", "day"),
    [
        ("2024-05-01T02:30:00Z", 119.7, date(2024, 5, 1)),
        ("2024-04-30T23:10:00Z", 172.0, date(2024, 5, 1)),  # New Zealand: a morning pass is yesterday's UTC
        ("2024-05-01T17:40:00Z", -105.0, date(2024, 5, 1)),
        ("2024-05-01T00:20:00Z", -157.0, date(2024, 4, 30)),
        ("2024-05-01T10:30:00Z", 3.0, date(2024, 5, 1)),
    ],
)
def test_solar_days_are_those_of_odc_stac(moment: str, longitude: float, day: date) -> None:
    from odc.stac.model import _convert_to_solar_time

    utc = acquired(item("S", moment))
    assert solar_day(utc, longitude) == day
    assert solar_day(utc, longitude) == _convert_to_solar_time(utc, longitude).date()
    begin, end = catalog.solar_interval(day, day, longitude)
    assert begin <= utc < end


def test_acquisition_times_in_every_spelling() -> None:
    expected = datetime(2024, 5, 1, 2, 30, 0, 123456, UTC)
    assert acquired(item("S", "2024-05-01T02:30:00.123456Z")) == expected
    assert acquired(item("S", "2024-05-01T04:30:00.123456+02:00")) == expected
    ranged = item("S")
    ranged["properties"] = {"datetime": None, "start_datetime": "2024-05-01T02:30:00.123456Z"}
    assert acquired(ranged) == expected
    ranged["properties"] = {"datetime": None}
    with pytest.raises(CatalogError, match="item S has neither datetime"):
        acquired(ranged)
