"""Where a run's scenes come from: catalogues by name, by profile file or as a file of items, one or several joined."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from pipeline import profile_file
from pipeline.catalogues import PROFILES as PROFILES
from pipeline.errors import CatalogError
from pipeline.products import CATALOG, ROLES
from pipeline.products import Product as Product
from pipeline.products import Profile as Profile
from pipeline.products import Role as Role

STATIC = (".json", ".geojson", ".parquet")
"""Endings of files of items: ItemCollection, stac-geoparquet."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One catalogue of a source: how it is read, where it is, and the roles it fills there."""

    profile: Profile
    url: str
    """Landing page of a STAC API, or absolute path of a file of items."""
    roles: tuple[Role, ...]
    label: str
    """What `resolve` reads back."""

    @property
    def static(self) -> bool:
        """Whether the items are in a file, and no server is asked."""
        return not self.url.startswith(("http://", "https://"))

    @property
    def products(self) -> tuple[Product, ...]:
        """What it is asked for."""
        return tuple(product for role in self.roles for product in self.profile.of(role))

    @property
    def collections(self) -> tuple[str, ...]:
        """The collections it is asked for, each once."""
        return tuple(dict.fromkeys(product.collection for product in self.products))


@dataclass(frozen=True, slots=True)
class Source:
    """The catalogues of a run, in the order in which they were named; each role comes from the first that serves it.

    What an item is, is decided by the catalogue and its collection, never by the collection alone: the same id means
    different assets in different catalogues.
    """

    endpoints: tuple[Endpoint, ...]

    @property
    def label(self) -> str:
        """`NAME`, `NAME@URL`, `FILE#HASH`, ... joined by `+`; `resolve` reads it back."""
        return "+".join(endpoint.label for endpoint in self.endpoints)

    @property
    def profile(self) -> Profile:
        """The profile of a source of one catalogue. Raises CatalogError where several are joined."""
        if len(self.endpoints) > 1:
            raise CatalogError(f"{self.label} joins several catalogues; ask for the one that serves a role")
        return self.endpoints[0].profile

    @property
    def roles(self) -> tuple[Role, ...]:
        """The roles that some catalogue fills."""
        return tuple(role for role in ROLES if any(role in e.roles for e in self.endpoints))

    def endpoint(self, role: Role) -> Endpoint | None:
        """The catalogue that fills `role`, or None."""
        return next((e for e in self.endpoints if role in e.roles), None)

    def product(self, role: Role) -> Product | None:
        """The first product that serves `role`, or None; several that serve one role are stored alike."""
        endpoint = self.endpoint(role)
        return endpoint.profile.product(role) if endpoint else None

    def product_of(self, item: Mapping[str, Any], role: Role) -> Product | None:
        """What an item (JSON) is when it serves `role`, or None where it comes from elsewhere."""
        properties = item.get("properties")
        marked = properties.get(CATALOG) if isinstance(properties, Mapping) else None
        return self.product_named(item.get("collection"), marked, role)

    def product_named(self, collection: str | None, catalog: str | None, role: Role) -> Product | None:
        """What an item of `collection` is when it serves `role`; `catalog`: the profile it was found through."""
        endpoint = self.endpoint(role)
        if endpoint is None or catalog not in (None, endpoint.profile.name):
            return None
        return endpoint.profile.product_of(collection, role)

    def only(self, roles: Iterable[Role]) -> Source:
        """The same source, asked for fewer roles."""
        kept = tuple(replace(e, roles=tuple(r for r in e.roles if r in set(roles))) for e in self.endpoints)
        return Source(tuple(e for e in kept if e.roles))


def resolve(catalog: str, base: Path | None = None) -> Source:
    """The source that `catalog` stands for; relative paths are read against `base`, else the working directory.

    One or several of these, joined by `+`, where each role comes from the first that serves it:
    `NAME`, a known catalogue; `FILE.toml`, a profile of one's own; either with `@URL`, another endpoint of the same
    kind, or with `@FILE.json` or `@FILE.parquet`, its items on disk (ItemCollection or stac-geoparquet, no server).
    Raises CatalogError for an unknown name, a file that is no profile or is not the one the plan was made with,
    a missing endpoint, or one that is not http(s).
    """
    endpoints: list[Endpoint] = []
    taken: set[Role] = set()
    parts = [part.strip() for part in catalog.split("+")]
    for part in parts:
        endpoint = _endpoint(part, base or Path.cwd())
        roles = tuple(role for role in endpoint.profile.roles if role not in taken)
        if not roles:
            raise CatalogError(
                f"catalogue {part!r} has no part in {catalog!r}: those before it serve all it could "
                f"({', '.join(endpoint.profile.roles)}); nothing was searched. Leave it out, or name it first"
            )
        namesake = next((e for e in endpoints if e.profile.name == endpoint.profile.name), None)
        if namesake is not None and namesake.profile != endpoint.profile:
            raise CatalogError(
                f"two profiles of {catalog!r} have the name {endpoint.profile.name!r}; their items could not be told "
                "apart and nothing was searched. Rename one"
            )
        taken.update(roles)
        endpoints.append(replace(endpoint, roles=roles))
    return Source(tuple(endpoints))


def _endpoint(part: str, base: Path) -> Endpoint:
    name, _, where = part.partition("@")
    profile, label = _profile(name, base)
    if where.lower().startswith("file://"):
        where = urlsplit(where).path
    if "://" not in where and where.lower().endswith(STATIC):
        path = str(_absolute(where, base))
        return Endpoint(profile, path, profile.roles, f"{label}@{_written(path)}")
    url = where or profile.url
    if url is None:
        raise CatalogError(
            f"catalogue {name!r} has no endpoint of its own; nothing was searched. "
            f"Say where it is served: {name}@http://127.0.0.1:PORT, or where its items lie: {name}@items.json"
        )
    _check(url)
    url = url.rstrip("/")
    own = profile.url is not None and url == profile.url.rstrip("/")
    return Endpoint(profile, url, profile.roles, label if own else f"{label}@{url}")


def _profile(name: str, base: Path) -> tuple[Profile, str]:
    """A profile and what it is called in a plan: of a file also the hash, for a plan must not change with it."""
    path, _, digest = name.partition("#")
    if path.lower().endswith(".toml"):
        absolute = _absolute(path, base)
        profile = _kept(str(absolute), digest) if digest else profile_file.read(absolute)[0]
        if profile.name in PROFILES:
            raise CatalogError(
                f"profile file {absolute} has the name {profile.name!r} of a known catalogue; nothing was searched. "
                "Give it a name of its own"
            )
        return profile, f"{_written(str(absolute))}#{digest or profile_file.read(absolute)[1]}"
    known = PROFILES.get(name)
    if known is None:
        raise CatalogError(
            f"unknown catalogue {name!r}; nothing was searched. Use one of {', '.join(PROFILES)}, "
            "PROFILE@URL for another endpoint of the same kind, or a profile file (mine.toml)"
        )
    return known, name


@lru_cache(maxsize=32)
def _kept(path: str, digest: str) -> Profile:
    """The profile of a plan; read once in a process, for every tile asks."""
    profile, found = profile_file.read(Path(path))
    if found != digest:
        raise CatalogError(
            f"profile file {path} has changed since the plan was made ({digest} then, {found} now); nothing was "
            "searched or read with it. Restore it, or plan anew in another store"
        )
    return profile


def _absolute(path: str, base: Path) -> Path:
    """A path as a label writes it or a person types it."""
    for sign in _SIGNS:
        path = path.replace(quote(sign), sign)
    return (base / Path(path).expanduser()).absolute()


_SIGNS = "+@#%"
"""What has a meaning of its own in a label; in a path it is percent-encoded there."""


def _written(path: str) -> str:
    return "".join(quote(sign) if sign in _SIGNS else sign for sign in path)


def _check(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise CatalogError(
            f"catalogue endpoint {url!r} is not an http(s) URL, nor a file of items ({', '.join(STATIC)}); "
            "nothing was searched. Correct it"
        )
    if parts.username or parts.password or parts.query or parts.fragment:
        raise CatalogError(
            f"catalogue endpoint at {parts.hostname} holds a user name, password or query, which would be written "
            "into the plan; nothing was searched. Give the plain address of the landing page"
        )
