"""What differs between STAC catalogues: collections, asset keys, digital numbers, signing, GDAL settings."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal
from urllib.parse import urlsplit

from marstfn.bands import BANDS, PAN
from pipeline.errors import CatalogError

Role = Literal["sentinel2", "landsat8", "landsat8_pan"]
"""What a collection serves; also the names of the groups of inputs.zarr."""


@dataclass(frozen=True, slots=True)
class Product:
    """One collection of a catalogue: which asset holds which band, and how its digital numbers are stored.

    `assets`: asset key by band name; `mask`: asset key of QA_PIXEL or SCL; `saturation`: of QA_RADSAT.
    Assets are found by key, never by common name: the same common name means different bands
    in different catalogues. Data are uint16 with 0 = nothing, unless `types` says otherwise.
    """

    role: Role
    collection: str
    assets: Mapping[str, str]
    mask: str | None = None
    saturation: str | None = None
    types: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    """(dtype, nodata) of the assets that are not uint16 with nodata 0."""
    family: Literal["sentinel-2-l2a", "landsat-c2-l2", "landsat-c2-l1", "dea-ard"] = "landsat-c2-l2"
    """Decides the rule for radiometry and masks."""

    @property
    def keys(self) -> tuple[str, ...]:
        """Every asset key that a run reads."""
        extra = (self.mask, self.saturation)
        return (*self.assets.values(), *(key for key in extra if key is not None))

    def stac_cfg(self) -> dict[str, Any]:
        """`stac_cfg` entry for odc-stac: without it some catalogues load as float32 with fill taken for data."""
        assets = {"*": {"data_type": "uint16", "nodata": 0}}
        for key in self.keys:
            dtype, nodata = self.types.get(key, ("uint16", 0))
            assets[key] = {"data_type": dtype, "nodata": nodata}
        return {"assets": assets}


@dataclass(frozen=True, slots=True)
class Profile:
    """One catalogue, or one kind of catalogue: endpoint, products, signing and GDAL settings."""

    name: str
    url: str | None
    """Endpoint of the STAC API; None where only `PROFILE@URL` makes sense."""
    products: tuple[Product, ...]
    gdal: Mapping[str, str]
    """GDAL configuration for reading the assets; settings of two catalogues can conflict in one process."""
    signed: bool = False
    """Whether hrefs need a token of Planetary Computer."""
    notice: str = ""
    """What a user should know before reading from it."""

    def product(self, role: Role) -> Product | None:
        """The product that serves `role`, or None."""
        return next((p for p in self.products if p.role == role), None)

    def product_of(self, collection: str | None) -> Product | None:
        """The product of the STAC collection `collection`, or None."""
        return next((p for p in self.products if p.collection == collection), None)

    def stac_cfg(self) -> dict[str, Any]:
        """`stac_cfg` for odc.stac.load over all products of this catalogue."""
        cfg: dict[str, Any] = {p.collection: p.stac_cfg() for p in self.products}
        cfg["*"] = {"warnings": "ignore"}
        return cfg

    def sign(self, href: str) -> str:
        """`href` made readable for the next minutes; hosts that need no token come back unchanged.

        Call it as late as possible, in the task that reads: tokens live for less than an hour and must
        reach no plan, log or store. May ask Planetary Computer for a token (anonymous, cached per process).
        """
        if not self.signed or not (urlsplit(href).hostname or "").endswith(".blob.core.windows.net"):
            return href
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its models are of an older pydantic
            import planetary_computer

        return str(planetary_computer.sign_url(href))


@dataclass(frozen=True, slots=True)
class Source:
    """A profile and the endpoint to search."""

    profile: Profile
    url: str

    @property
    def label(self) -> str:
        """`PROFILE`, or `PROFILE@URL` where the endpoint is not the profile's own; `resolve` reads it back."""
        return self.profile.name if self.url == self.profile.url else f"{self.profile.name}@{self.url}"


def resolve(catalog: str) -> Source:
    """The source that `PROFILE`, or `PROFILE@URL` for another endpoint of the same kind, stands for.

    Raises CatalogError for an unknown profile, a missing endpoint, or one that is not http(s).
    """
    name, _, url = catalog.strip().partition("@")
    profile = PROFILES.get(name)
    if profile is None:
        raise CatalogError(
            f"unknown catalogue {name!r}; nothing was searched. "
            f"Use one of {', '.join(PROFILES)}, or PROFILE@URL for another endpoint of the same kind"
        )
    endpoint = url or profile.url
    if endpoint is None:
        raise CatalogError(
            f"catalogue {name!r} has no endpoint of its own; nothing was searched. "
            f"Say where it is served: {name}@http://127.0.0.1:PORT"
        )
    parts = urlsplit(endpoint)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise CatalogError(f"catalogue endpoint {endpoint!r} is not an http(s) URL; nothing was searched. Correct it")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise CatalogError(
            f"catalogue endpoint at {parts.hostname} holds a user name, password or query, which would be written "
            "into the plan; nothing was searched. Give the plain address of the landing page"
        )
    return Source(profile, endpoint.rstrip("/"))


def _freeze(**entries: str) -> Mapping[str, str]:
    return MappingProxyType(entries)


_SAME = {band: band for band in BANDS}
_LANDSAT_TYPES = MappingProxyType({"qa_pixel": ("uint16", 1)})  # QA_PIXEL fill is 1, not 0

_HTTP = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",  # else every open asks for side-car files first
    "GDAL_HTTP_MAX_RETRY": "6",
    "GDAL_HTTP_RETRY_DELAY": "0.5",
    "GDAL_HTTP_RETRY_CODES": "429,500,502,503,504",
    "GDAL_HTTP_CONNECTTIMEOUT": "10",
    "GDAL_HTTP_LOW_SPEED_TIME": "30",  # a stalled transfer ends, and is retried
    "GDAL_HTTP_LOW_SPEED_LIMIT": "1",
    "GDAL_HTTP_MULTIRANGE": "SERIAL",  # the parallel form does not retry and leaves silent holes
    "VSI_CACHE": "FALSE",
}

_LANDSAT_L2 = Product(
    role="landsat8",
    collection="landsat-c2-l2",
    assets=MappingProxyType(_SAME),
    mask="qa_pixel",
    saturation="qa_radsat",
    types=_LANDSAT_TYPES,
    family="landsat-c2-l2",
)
_SENTINEL2_C1 = Product(
    role="sentinel2",
    collection="sentinel-2-c1-l2a",
    assets=MappingProxyType(_SAME),
    mask="scl",
    types=MappingProxyType({"scl": ("uint8", 0)}),
    family="sentinel-2-l2a",
)
_SENTINEL2_PC = Product(
    role="sentinel2",
    collection="sentinel-2-l2a",
    assets=MappingProxyType(dict(zip(BANDS, ("B02", "B03", "B04", "B8A", "B11", "B12"), strict=True))),
    mask="SCL",
    types=MappingProxyType({"SCL": ("uint8", 0)}),
    family="sentinel-2-l2a",
)
_LANDSAT_L1 = Product(
    role="landsat8_pan",
    collection="landsat-c2l1",
    assets=_freeze(pan=PAN),
    family="landsat-c2-l1",
)

PROFILES: Mapping[str, Profile] = MappingProxyType(
    {
        profile.name: profile
        for profile in (
            Profile(
                name="planetary-computer",
                url="https://planetarycomputer.microsoft.com/api/stac/v1",
                products=(_LANDSAT_L2, _SENTINEL2_PC),
                gdal=_freeze(**_HTTP),
                signed=True,
            ),
            Profile(
                name="earth-search",
                url="https://earth-search.aws.element84.com/v1",
                products=(_LANDSAT_L2, _SENTINEL2_C1),
                # Landsat lies in a bucket whose reader pays (AWS credentials needed); Sentinel-2 is public https
                gdal=_freeze(**_HTTP, AWS_REQUEST_PAYER="requester", AWS_REGION="us-west-2"),
                notice="Landsat is read from a bucket whose reader pays: AWS credentials are needed (us-west-2)",
            ),
            Profile(
                name="simulated",
                url=None,
                products=(_LANDSAT_L2, _SENTINEL2_C1, _LANDSAT_L1),
                gdal=_freeze(**_HTTP),
            ),
        )
    }
)
