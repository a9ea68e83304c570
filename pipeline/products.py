"""What a catalogue serves, collection by collection: asset keys, number types, masks, and how its files are opened."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal, get_args

from marstfn.bands import BANDS, PAN
from pipeline.access import PLAIN, Access
from pipeline.errors import CatalogError

Role = Literal["sentinel2", "landsat8", "landsat8_pan"]
"""What a collection serves; also the names of the groups of inputs.zarr."""
ROLES: tuple[Role, ...] = get_args(Role)

Family = Literal["sentinel-2-l2a", "landsat-c2-l2", "landsat-c2-l1", "dea-ard"]
"""Products of one processing: decides the rule for radiometry and what the mask's numbers mean.

sentinel-2-l2a: Sen2Cor reflectance and SCL. landsat-c2-l2: surface reflectance, QA_PIXEL and QA_RADSAT.
landsat-c2-l1: top-of-atmosphere numbers of band 8. dea-ard: Geoscience Australia's NBAR with terrain correction
(int16, 1e-4, -999 = nothing) and fmask, its pan included.
"""
FAMILIES: tuple[Family, ...] = get_args(Family)

NUMBERS: Mapping[Family, tuple[str, int]] = MappingProxyType(
    {
        "sentinel-2-l2a": ("uint16", 0),
        "landsat-c2-l2": ("uint16", 0),
        "landsat-c2-l1": ("uint16", 0),
        "dea-ard": ("int16", -999),
    }
)
"""(dtype, nodata) of the bands of a family."""

MASKS: Mapping[Family, tuple[str, int]] = MappingProxyType(
    {
        "sentinel-2-l2a": ("uint8", 0),
        "landsat-c2-l2": ("uint16", 1),  # QA_PIXEL: fill is bit 0, so that its fill value is 1
        "landsat-c2-l1": ("uint16", 1),
        "dea-ard": ("uint8", 0),
    }
)
"""(dtype, nodata) of the mask of a family: SCL, QA_PIXEL, fmask."""

CATALOG = "marstfn:catalog"
"""Property of an item: the name of the profile through which it was found."""


def wanted(role: Role) -> tuple[str, ...]:
    """The bands that a product must have to serve `role`."""
    return (PAN,) if role == "landsat8_pan" else BANDS


@dataclass(frozen=True, slots=True)
class Product:
    """One collection of a catalogue, for one role: which asset holds which band, and how its numbers are stored.

    Assets are found by key, never by common name: the same common name means different bands in different
    catalogues. Number types are given here, for half of the catalogues say nothing of them and would be read as
    float32 with fill taken for data. Raises CatalogError where a band has no asset.
    """

    role: Role
    collection: str
    assets: Mapping[str, str]
    """Asset key by band name."""
    mask: str | None = None
    """Asset key of SCL, QA_PIXEL or fmask."""
    saturation: str | None = None
    """Asset key of QA_RADSAT."""
    metadata: str | None = None
    """Asset key of the MTL file as JSON, where the item has one."""
    types: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    """(dtype, nodata) by asset key, where they are not the family's."""
    family: Family = "landsat-c2-l2"
    access: Access = PLAIN

    def __post_init__(self) -> None:
        missing = [band for band in wanted(self.role) if band not in self.assets]
        if missing:
            raise CatalogError(
                f"collection {self.collection}, which is to serve {self.role}, has no asset for "
                f"{'band' if len(missing) == 1 else 'bands'} {', '.join(missing)}; nothing was searched. "
                f"Name the asset key of each of {', '.join(wanted(self.role))}"
            )

    @property
    def keys(self) -> tuple[str, ...]:
        """Every asset key that a run reads."""
        extra = (self.mask, self.saturation)
        return (*(self.assets[b] for b in wanted(self.role)), *(key for key in extra if key is not None))

    def numbers(self, key: str) -> tuple[str, int]:
        """(dtype, nodata) of the asset `key`."""
        if key in self.types:
            return self.types[key]
        if key == self.mask:
            return MASKS[self.family]
        return ("uint16", 0) if key == self.saturation else NUMBERS[self.family]


@dataclass(frozen=True, slots=True)
class Profile:
    """One catalogue, or one kind of catalogue: its endpoint and what it serves.

    A role may be served by several collections (one per satellite) if they are of one family and store alike.
    Raises CatalogError where they do not, or where reflectance comes without a mask.
    """

    name: str
    url: str | None
    """Endpoint of the STAC API; None where only `PROFILE@URL` makes sense."""
    products: tuple[Product, ...]
    notice: str = ""
    """What a user should know before reading from it."""

    def __post_init__(self) -> None:
        for product in self.products:
            if product.mask is None and product.role != "landsat8_pan":
                raise CatalogError(
                    f"collection {product.collection}, which is to serve {product.role}, has no mask; nothing was "
                    "searched: clouds would be fused. Name the asset key of its mask"
                )
        for role in self.roles:
            kinds = {(p.family, p.saturation is None, *(p.numbers(k) for k in p.keys)) for p in self.of(role)}
            if len(kinds) > 1:
                raise CatalogError(
                    f"profile {self.name}: the collections {', '.join(p.collection for p in self.of(role))} are all to "
                    f"serve {role} and are not stored alike (family, number types); nothing was searched. Keep one"
                )

    @property
    def roles(self) -> tuple[Role, ...]:
        """The roles that some collection of the catalogue can fill."""
        return tuple(dict.fromkeys(product.role for product in self.products))

    def of(self, role: Role) -> tuple[Product, ...]:
        """The products that serve `role`."""
        return tuple(p for p in self.products if p.role == role)

    def product(self, role: Role) -> Product | None:
        """The first product that serves `role`, or None."""
        return next(iter(self.of(role)), None)

    def product_of(self, collection: str | None, role: Role | None = None) -> Product | None:
        """The product of the STAC collection `collection` (for `role`, where it serves several), or None."""
        return next((p for p in self.products if p.collection == collection and role in (None, p.role)), None)
