"""How the embedded STAC API answers a request: its documents, item search, and files with byte ranges."""

from __future__ import annotations

import contextlib
import json
import logging
import re
import socket
import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import parse_qs, unquote, urlencode, urlsplit

from pipeline.demo.faults import Fault, Request
from pipeline.demo.search import BadRequest, Entry, Json, Query, absolute

if TYPE_CHECKING:
    from pipeline.demo.server import Server

log = logging.getLogger(__name__)

CONFORMANCE = (
    "https://api.stacspec.org/v1.0.0/core",
    "https://api.stacspec.org/v1.0.0/collections",
    "https://api.stacspec.org/v1.0.0/ogcapi-features",
    "https://api.stacspec.org/v1.0.0/item-search",
    "http://www.opengis.net/spec/ogcapi-features-1/1.0/conf/core",
    "http://www.opengis.net/spec/ogcapi-features-1/1.0/conf/oas30",
    "http://www.opengis.net/spec/ogcapi-features-1/1.0/conf/geojson",
)
MAX_BODY = 1 << 20
BLOCK = 1 << 20
TYPES = {".tif": "image/tiff", ".json": "application/json", ".txt": "text/plain", ".png": "image/png"}


class Handler(BaseHTTPRequestHandler):
    """One connection; requests follow one another on it."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 1 << 16
    timeout = 60.0
    server: Server

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: Any) -> None:
        log.debug("%s %s", self.address_string(), format % args)

    def _answer(self) -> None:
        self._since, self._sent, self._status = time.perf_counter(), 0, 0
        self._fault: Fault | None = None
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(min(length, MAX_BODY + 1))
        parts = urlsplit(self.path)
        request = Request(
            self.command, unquote(parts.path), parts.query, self.headers.get("Range"), body.decode(errors="replace")
        )
        try:
            self._fault = self.server.faults.strike(request)
            if self._fault is None or self._allowed(self._fault):
                self._serve(request)
        finally:
            # logged before the client can know: it may ask for the log at once
            self.server.log.add(request, self._status, self._sent, self._since)
            if self._fault is not None and self._fault.drop:
                with contextlib.suppress(OSError):
                    self.connection.shutdown(socket.SHUT_RDWR)

    def _allowed(self, fault: Fault) -> bool:
        if fault.latency:
            time.sleep(fault.latency)
        if fault.drop:
            self.close_connection = True
            return False
        if fault.status is not None:
            extra = {} if fault.retry_after is None else {"Retry-After": str(fault.retry_after)}
            self._json({"code": str(fault.status), "description": "injected fault"}, fault.status, extra)
            return False
        return True

    def _serve(self, request: Request) -> None:
        if len(request.body) > MAX_BODY:
            self.close_connection = True
            self._error(413, f"the body is larger than {MAX_BODY} bytes")
            return
        segments = [segment for segment in request.path.split("/") if segment]
        try:
            if segments[:1] == ["data"]:
                self._file(request, segments)
            elif (document := self._document(request, segments)) is None:
                self._error(404, f"nothing at {request.path}")
            elif request.method == "POST" and segments != ["search"]:
                self._error(405, "only /search takes POST", {"Allow": "GET, HEAD"})
            else:
                self._json(document)
        except BadRequest as error:
            self._error(400, str(error))

    # --- documents -------------------------------------------------------------------------------------------------

    def _document(self, request: Request, segments: list[str]) -> Json | None:
        catalogue = self.server.catalogue
        match segments:
            case []:
                return self._landing()
            case ["conformance"]:
                return {"conformsTo": list(CONFORMANCE)}
            case ["search"]:
                return self._search(request, "/search")
            case ["collections"]:
                return {
                    "collections": [self._collection(name) for name in catalogue.collections],
                    "links": [self._link("self", "/collections"), self._link("root", "")],
                }
            case ["collections", name] if name in catalogue.collections:
                return self._collection(name)
            case ["collections", name, "items"] if name in catalogue.collections:
                return self._search(request, f"/collections/{name}/items", collection=name)
            case ["collections", name, "items", item]:
                entry = catalogue.find(name, item)
                return None if entry is None else self._item(entry)
        return None

    def _landing(self) -> Json:
        children = [
            {**self._link("child", f"/collections/{name}"), "title": document.get("title", name)}
            for name, document in self.server.catalogue.collections.items()
        ]
        links = [
            self._link("self", ""),
            self._link("root", ""),
            self._link("conformance", "/conformance"),
            self._link("data", "/collections"),
            {**self._link("search", "/search", "application/geo+json"), "method": "GET"},
            {**self._link("search", "/search", "application/geo+json"), "method": "POST"},
            *children,
        ]
        return {**self.server.catalogue.about, "conformsTo": list(CONFORMANCE), "links": links}

    def _collection(self, name: str) -> Json:
        document = self.server.catalogue.collections[name]
        own = f"/collections/{name}"
        links = [
            self._link("self", own),
            self._link("root", ""),
            self._link("parent", ""),
            self._link("items", f"{own}/items", "application/geo+json"),
        ]
        kept = [link for link in document.get("links", ()) if link["rel"] in ("license", "cite-as", "describedby")]
        return {**document, "links": [*links, *kept]}

    def _item(self, entry: Entry) -> Json:
        parent = f"/collections/{entry.collection}"
        links = [
            self._link("self", f"{parent}/items/{entry.id}", "application/geo+json"),
            self._link("parent", parent),
            self._link("collection", parent),
            self._link("root", ""),
        ]
        return absolute(entry.item, self._base, links)

    def _search(self, request: Request, path: str, collection: str | None = None) -> Json:
        asked = _json_body(request) if request.method == "POST" else _query_body(request.query)
        if collection is not None:
            asked = {**asked, "collections": [collection]}
        query = Query.parse(asked)
        page = self.server.catalogue.search(query, next_on_last_page=self.server.next_on_last_page)
        links = [self._link("self", path, "application/geo+json"), self._link("root", "")]
        if page.next is not None:
            link = self._link("next", path, "application/geo+json")
            if request.method == "POST":
                link |= {"method": "POST", "merge": False, "body": {**asked, "token": page.next}}
            else:
                given = {k: v[0] for k, v in parse_qs(request.query).items()}
                link |= {"method": "GET", "href": f"{link['href']}?{urlencode({**given, 'token': page.next})}"}
            links.append(link)
        return {
            "type": "FeatureCollection",
            "features": [self._item(entry) for entry in page.entries],
            "links": links,
            "numberMatched": page.matched,
            "numberReturned": len(page.entries),
        }

    @property
    def _base(self) -> str:
        return f"http://{self.headers.get('Host') or self.server.url.removeprefix('http://')}"

    def _link(self, rel: str, path: str, kind: str = "application/json") -> Json:
        return {"rel": rel, "type": kind, "href": f"{self._base}{path}" if path else f"{self._base}/"}

    # --- files -----------------------------------------------------------------------------------------------------

    def _file(self, request: Request, segments: list[str]) -> None:
        path = self.server.folder.joinpath(*segments).resolve()
        if not path.is_relative_to(self.server.folder / "data") or not path.is_file():
            self._error(404, f"no file {request.path}")
            return
        if request.method == "POST":
            self._error(405, "files are read only", {"Allow": "GET, HEAD"})
            return
        size = path.stat().st_size
        if self._fault is not None and self._fault.short is not None:
            size = min(size, self._fault.short)
        headers = {"Content-Type": TYPES.get(path.suffix.lower(), "application/octet-stream"), "Accept-Ranges": "bytes"}
        asked = _byte_range(request.range, size)
        if asked == "unsatisfiable":
            self._head(416, 0, {**headers, "Content-Range": f"bytes */{size}"})
            return
        first, last = (0, size - 1) if asked is None else cast("tuple[int, int]", asked)
        if asked is not None:
            headers["Content-Range"] = f"bytes {first}-{last}/{size}"
        self._head(200 if asked is None else 206, last - first + 1, headers)
        if request.method != "HEAD":
            self._send(path, first, last - first + 1)

    def _send(self, path: Path, first: int, length: int) -> None:
        cut = self._fault.truncate if self._fault is not None else None
        left = length if cut is None else min(length, cut)
        with path.open("rb") as file:
            file.seek(first)
            while left and (block := file.read(min(left, BLOCK))):
                self.wfile.write(block)
                self._sent += len(block)
                left -= len(block)
        if self._sent < length:
            self.wfile.flush()
            self.close_connection = True

    # --- the wire --------------------------------------------------------------------------------------------------

    def _json(self, document: Json, status: int = 200, extra: dict[str, str] | None = None) -> None:
        data = json.dumps(document, separators=(",", ":")).encode()
        kind = (
            "application/geo+json" if document.get("type") in ("Feature", "FeatureCollection") else "application/json"
        )
        self._head(status, len(data), {"Content-Type": kind, **(extra or {})})
        if self.command != "HEAD":
            cut = self._fault.truncate if self._fault is not None else None
            self.wfile.write(data if cut is None else data[:cut])
            self._sent = len(data) if cut is None else min(cut, len(data))
            self.close_connection |= self._sent < len(data)

    def _error(self, status: int, description: str, extra: dict[str, str] | None = None) -> None:
        self._json({"code": str(status), "description": description}, status, extra)

    def _head(self, status: int, length: int, headers: dict[str, str]) -> None:
        self._status = status
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(length))
        self.end_headers()


def _json_body(request: Request) -> Json:
    try:
        body = json.loads(request.body or "{}")
    except ValueError as error:
        raise BadRequest(f"the body is not JSON: {error}") from error
    if not isinstance(body, dict):
        raise BadRequest("the body must be a JSON object")
    return body


def _query_body(query: str) -> Json:
    body: Json = {key: values[0] for key, values in parse_qs(query).items()}
    for key in ("collections", "ids", "bbox"):
        if key in body:
            body[key] = body[key].split(",")
    if "limit" in body:
        body["limit"] = int(body["limit"]) if body["limit"].isdecimal() else body["limit"]
    if "intersects" in body:
        try:
            body["intersects"] = json.loads(body["intersects"])
        except ValueError as error:
            raise BadRequest(f"intersects is not JSON: {error}") from error
    return body


def _byte_range(header: str | None, size: int) -> tuple[int, int] | str | None:
    """First and last byte (RFC 9110, section 14); None for the whole file: also for several ranges, which a server
    may ignore."""
    match = re.fullmatch(r"bytes=(\d*)-(\d*)", header or "")
    if match is None or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    if not first:
        start, end = max(0, size - int(last)), size - 1
        return (start, end) if int(last) and size else "unsatisfiable"
    start, end = int(first), min(int(last), size - 1) if last else size - 1
    if last and int(last) < start:
        return None
    return (start, end) if start < size else "unsatisfiable"
