"""A catalogue of one's own, described in one TOML file.

# mine.toml: marstfn run field.geojson --catalog mine.toml
name = "mine"
url = "https://stac.example.org/v1"     # left out: --catalog mine.toml@URL, or mine.toml@items.json

[gdal]                                  # options of GDAL for reading the files
AWS_REGION = "eu-central-1"

[keys]                                  # secrets come from the environment: the variables' names
AWS_ACCESS_KEY_ID = "MINE_KEY"
AWS_SECRET_ACCESS_KEY = "MINE_SECRET"

[[collections]]
role = "sentinel2"                      # or landsat8, landsat8_pan
collection = "s2-l2a"
family = "sentinel-2-l2a"               # or landsat-c2-l2, landsat-c2-l1, dea-ard
mask = "SCL"
[collections.assets]                    # asset key of each band
blue = "B02"
green = "B03"
red = "B04"
nir08 = "B8A"
swir16 = "B11"
swir22 = "B12"

[[collections]]
role = "landsat8"
collection = "landsat-c2l2-sr"
family = "landsat-c2-l2"
mask = "qa_pixel"
saturation = "qa_radsat"                # optional, as the next four
metadata = "MTL.json"
alternate = "s3"                        # the address to read, of those an asset offers
gdal = { AWS_REQUEST_PAYER = "requester" }
types = { qa_pixel = { dtype = "uint16", nodata = 1 } }
assets = { blue = "blue", green = "green", red = "red", nir08 = "nir08", swir16 = "swir16", swir22 = "swir22" }
"""

from __future__ import annotations

import hashlib
import tomllib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from marstfn.bands import BANDS, PAN
from pipeline.access import SECRETS, Access, Signing
from pipeline.errors import CatalogError
from pipeline.products import Family, Product, Profile, Role

_NUMBERS = Literal["uint8", "int8", "uint16", "int16", "uint32", "int32", "float32"]
_KNOWN = (*BANDS, PAN)

Key = Annotated[str, Field(min_length=1)]


class _Form(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Type(_Form):
    dtype: _NUMBERS
    nodata: int


class _Options(_Form):
    gdal: dict[Key, str | int | float] = {}
    keys: dict[Key, Key] = {}

    @field_validator("gdal")
    @classmethod
    def _no_secrets(cls, value: dict[str, str | int | float]) -> dict[str, str | int | float]:
        found = [name for name in value if name.upper() in SECRETS]
        if found:
            raise ValueError(
                f"{', '.join(found)} would put a secret into a file; name its environment variable under [keys]"
            )
        return value

    @field_validator("keys")
    @classmethod
    def _only_secrets(cls, value: dict[str, str]) -> dict[str, str]:
        others = [name for name in value if name not in SECRETS]
        if others:
            raise ValueError(f"{', '.join(others)} is none of {', '.join(SECRETS)}")
        return value


class _Collection(_Options):
    role: Role
    collection: Key
    family: Family
    assets: dict[Key, Key]
    mask: Key | None = None
    saturation: Key | None = None
    metadata: Key | None = None
    alternate: Key | None = None
    signing: Signing = "none"
    types: dict[Key, _Type] = {}

    @field_validator("assets")
    @classmethod
    def _known_bands(cls, value: dict[str, str]) -> dict[str, str]:
        unknown = [band for band in value if band not in _KNOWN]
        if unknown:
            raise ValueError(f"{', '.join(unknown)} is no band; bands are {', '.join(_KNOWN)}")
        return value


class _File(_Options):
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]
    url: Key | None = None
    notice: str = ""
    collections: Annotated[list[_Collection], Field(min_length=1)]


def read(path: Path) -> tuple[Profile, str]:
    """The profile in a TOML file, and the hash of its text (12 hex digits).

    Raises CatalogError, naming the file and what is wrong in it: no TOML, unknown or missing keys, a role's missing
    band, a secret.
    """
    try:
        text = path.read_bytes()
    except OSError as error:
        raise CatalogError(
            f"profile file {path} cannot be read ({error.strerror or error}); nothing was searched. "
            "Give the path of a catalogue's profile; workers on other machines need it at the same path"
        ) from error
    try:
        form = _File.model_validate(tomllib.loads(text.decode()))
    except ValidationError as error:
        raise CatalogError(f"profile file {path} is not usable; nothing was searched: {_explained(error)}") from None
    except ValueError as error:
        raise CatalogError(f"profile file {path} is not TOML ({error}); nothing was searched. Repair it") from error
    try:
        profile = Profile(form.name, form.url, tuple(_product(c, form) for c in form.collections), form.notice)
    except CatalogError as error:
        raise CatalogError(f"profile file {path}: {error}") from error
    return profile, hashlib.sha256(text).hexdigest()[:12]


def _explained(error: ValidationError) -> str:
    """What is wrong and where, without what was given: that may be a secret in the wrong place."""
    lines = []
    for part in error.errors(include_url=False, include_input=False, include_context=False):
        where = ".".join(str(step) for step in part["loc"])
        lines.append(f"{where}: {part['msg'].removeprefix('Value error, ')}")
    return "; ".join(lines)


def _product(given: _Collection, form: _File) -> Product:
    return Product(
        role=given.role,
        collection=given.collection,
        assets=dict(given.assets),
        mask=given.mask,
        saturation=given.saturation,
        metadata=given.metadata,
        types={key: (kind.dtype, kind.nodata) for key, kind in given.types.items()},
        family=given.family,
        access=Access(
            gdal={name: str(value) for name, value in {**form.gdal, **given.gdal}.items()},
            keys={**form.keys, **given.keys},
            signing=given.signing,
            alternate=given.alternate,
        ),
    )
