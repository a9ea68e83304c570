"""The area of interest: read from a path, a URL, inline GeoJSON or a bundled name, and checked."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import re
import stat
import time
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import requests
import urllib3
from odc.geo.geom import Geometry

from pipeline import geojson
from pipeline.errors import AOIError
from pipeline.hrefs import unsigned

log = logging.getLogger(__name__)

MAX_KM2 = 60_000.0
"""Largest area accepted unless the settings say otherwise."""

MAX_BYTES = 10_000_000
"""Largest GeoJSON accepted unless the settings say otherwise."""


@dataclass(frozen=True, slots=True)
class AOI:
    """An area of interest: `polygon` in longitude/latitude WGS 84, valid, not over the antimeridian."""

    name: str
    polygon: Geometry
    source: str
    """The file, URL or bundled name it came from, or `inline`."""
    folder: Path | None = None
    """The folder of the user's own file, None for other sources."""

    @property
    def line(self) -> str:
        """Which area was taken, for whoever asked for it."""
        kind = "the file " if self.folder is not None else "the " if self.source.startswith("bundled ") else ""
        return f"area of interest: {kind}{self.source}"

    @property
    def geojson(self) -> dict[str, Any]:
        """The GeoJSON geometry."""
        geometry: dict[str, Any] = json.loads(json.dumps(self.polygon.json))  # tuples to lists, as JSON has them
        return geometry

    @property
    def km2(self) -> float:
        """Geodesic area in square kilometres."""
        return geojson.km2(self.polygon.geom)


def bundled() -> tuple[str, ...]:
    """Names of the AOIs that ship with the package."""
    folder = resources.files("pipeline") / "aois"
    return tuple(sorted(f.name.removesuffix(".geojson") for f in folder.iterdir() if f.name.endswith(".geojson")))


def read(
    source: str | Path | Mapping[str, Any],
    *,
    base: Path | None = None,
    max_km2: float = MAX_KM2,
    max_bytes: int = MAX_BYTES,
    timeout: float = 20.0,
) -> AOI:
    """The AOI at a path (relative to `base`, default the current folder), an http(s) URL, a bundled name, or inline.

    A file of the caller's wins over a bundled AOI of the same name; `.geojson` may be left out of both. Features and
    collections are united, holes kept. Raises AOIError, which says what is wrong, where, and what to give instead.
    """
    if isinstance(source, Mapping):
        return _checked(source, "aoi", "inline", max_km2)
    text = str(source).strip()
    if not text:
        raise AOIError(f"the area of interest is empty text; name a GeoJSON file or one of {_names()}")
    if text.startswith(("{", "[")):
        if len(text) > max_bytes:
            raise AOIError(_too_large("the inline area of interest", len(text), max_bytes))
        return _checked(geojson.parse(text.encode(), "inline GeoJSON"), "aoi", "inline", max_km2)
    if "://" in text:
        try:
            shown = unsigned(text).partition("?")[0]  # whatever a query is for, an area is known without it
        except ValueError as error:
            raise AOIError(
                f"area of interest {text[:80]!r} is not a URL that can be read ({error}); nothing was planned. "
                "Correct the address"
            ) from error
        document = geojson.parse(_fetched(text, shown, max_bytes, timeout), shown)
        return _checked(document, Path(urlsplit(text).path).stem, shown, max_km2)
    return _from_file(text, base or Path.cwd(), max_km2, max_bytes)


def _from_file(text: str, base: Path, max_km2: float, max_bytes: int) -> AOI:
    path, kind = _looked_up(text, base)
    if kind == "file":
        log.info("area of interest: the file %s", path)
        try:
            size = path.stat().st_size
            if size > max_bytes:
                raise AOIError(_too_large(str(path), size, max_bytes))
            data = path.read_bytes()
        except OSError as error:
            raise AOIError(f"area of interest {path} cannot be read: {error}; make it readable") from error
        aoi = _checked(geojson.parse(data, str(path)), path.stem, str(path), max_km2)
        return AOI(aoi.name, aoi.polygon, aoi.source, path.parent)
    if kind == "special":
        raise AOIError(
            f"area of interest {path} is a pipe or device, whose end cannot be foreseen; nothing was planned. "
            "Write it to a file first, or give it inline"
        )
    name = text.removesuffix(".geojson")
    if name in bundled():
        log.info("area of interest: the bundled %s.geojson (there is no file %s)", name, path)
        data = (resources.files("pipeline") / "aois" / f"{name}.geojson").read_bytes()
        return _checked(geojson.parse(data, name), name, f"bundled {name}.geojson", max_km2)
    if kind == "folder":
        raise AOIError(f"area of interest {path} is a folder; nothing was planned. Name the GeoJSON file in it")
    raise AOIError(
        f"area of interest {text!r}: there is no file {path}, and no bundled area of that name ({_names()}); "
        "nothing was planned. Correct the path, or give a URL or inline GeoJSON"
    )


def _looked_up(text: str, base: Path) -> tuple[Path, Literal["file", "folder", "special", "none"]]:
    """The path that `text` stands for, `.geojson` added where only so there is a file, and what lies there."""
    shown = text if len(text) <= 80 else f"{text[:77]}..."
    try:
        path = Path(text).expanduser()
        path = path if path.is_absolute() else base / path
        found = _kind(path)
        if found == "none" and path.name and not path.suffix and _kind(path.with_suffix(".geojson")) == "file":
            return path.with_suffix(".geojson"), "file"
    except RuntimeError as error:  # ~user, and there is no such user
        raise AOIError(f"area of interest {shown!r}: {error}; nothing was planned. Write the path out") from error
    except (OSError, ValueError) as error:
        why = "it is too long for a path" if getattr(error, "errno", None) == errno.ENAMETOOLONG else str(error)
        raise AOIError(
            f"area of interest {shown!r} is neither GeoJSON nor a path that can be looked at ({why}); nothing was "
            "planned. Inline GeoJSON begins with {; a path must be one you may read"
        ) from error
    return path, found


def _kind(path: Path) -> Literal["file", "folder", "special", "none"]:
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return "none"
    return "file" if stat.S_ISREG(mode) else "folder" if stat.S_ISDIR(mode) else "special"


def _fetched(url: str, shown: str, max_bytes: int, timeout: float) -> bytes:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise AOIError(
            f"area of interest {shown}: only http:// and https:// URLs are read; download it, or give a path"
        )
    try:
        with requests.get(url, timeout=(min(timeout, 10.0), timeout), stream=True) as response:
            if response.status_code != 200:
                raise AOIError(
                    f"area of interest {shown}: the server answered {response.status_code} {response.reason}; "
                    "nothing was planned. Check the address in a browser"
                )
            data = bytearray()
            deadline = time.monotonic() + 3 * timeout
            # read1 returns what has arrived: neither a lying header nor a dripping server can hold us
            while block := response.raw.read1(65_536, decode_content=True):
                data += block
                if len(data) > max_bytes:
                    raise AOIError(_too_large(shown, len(data), max_bytes, at_least=True))
                if time.monotonic() > deadline:
                    raise requests.Timeout
            return bytes(data)
    except (requests.Timeout, urllib3.exceptions.TimeoutError) as error:
        raise AOIError(
            f"area of interest {shown}: no answer within {timeout:g} s; nothing was planned. "
            "Try again, or download it and give the path"
        ) from error
    except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
        raise AOIError(
            f"area of interest {shown} cannot be reached ({_short(error).replace(url, shown)}); nothing was planned. "
            "Check the address and the network, or download it and give the path"
        ) from error


def _checked(document: Mapping[str, Any], name: str, source: str, max_km2: float) -> AOI:
    area = geojson.polygon(document, source, max_km2)
    return AOI(_named(document, name), Geometry(area, "EPSG:4326"), source)


def _named(document: Mapping[str, Any], fallback: str) -> str:
    name = fallback
    if fallback == "aoi":
        properties = document.get("properties")
        own = properties.get("name") if isinstance(properties, Mapping) else None
        name = str(document.get("name") or own or fallback)
    # letters with accents lose them; of a name in another script a hash keeps it apart from others
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    clean = re.sub(r"[^A-Za-z0-9_-]+", "-", plain).strip("-")[:60]
    if clean:
        return clean
    return f"aoi-{hashlib.blake2b(name.encode(), digest_size=3).hexdigest()}" if name.strip() else "aoi"


def _too_large(where: str, size: int, limit: int, *, at_least: bool = False) -> str:
    more = "at least " if at_least else ""
    return (
        f"{where} holds {more}{size:,} bytes, more than the limit of {limit:,}; nothing was planned. "
        "Simplify the outline, or raise the limit (MARSTFN_AOI_MAX_BYTES)"
    )


def _short(error: BaseException) -> str:
    root: BaseException = error
    while root.__context__ is not None:
        root = root.__context__
    return f"{type(root).__name__}: {root}"


def _names() -> str:
    return ", ".join(bundled())
