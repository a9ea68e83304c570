"""What a user asks for: one typed, bounded set of parameters for the flow and the command line alike."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator

from pipeline import bandpass, overrides, profiles, settings
from pipeline.choices import CloudMaskName, Landsat, Nbar, Snow
from pipeline.errors import CatalogError, PlanError
from pipeline.plan import Adjustment, Method

FIRST_YEAR = 2015
"""Sentinel-2 observes since June 2015."""


def last_complete_year(today: date | None = None) -> int:
    """The calendar year before `today` (UTC)."""
    return (today or datetime.now(UTC).date()).year - 1


# the parameters' types and bounds, shared with the flow's signature so that the deployment's schema has them
AOISource = Annotated[
    str | dict[str, Any],
    Field(description="Area of interest: GeoJSON file, http(s) URL, inline GeoJSON, or bundled name (hailar, dezhou)"),
]
Year = Annotated[
    int,
    Field(
        ge=FIRST_YEAR,
        le=last_complete_year() + 1,
        description="Calendar year of the series (by solar day); default: the last complete year",
    ),
]
Catalog = Annotated[
    str,
    Field(
        min_length=1,
        description="STAC catalogue: planetary-computer, earth-search, usgs, cdse, dea, deafrica or a profile file; "
        "NAME@URL or NAME@items.json; several joined by +, where each role comes from the first that serves it",
    ),
]
StoreURL = Annotated[
    str,
    Field(min_length=1, description="Folder or object-store URL; default: <name>-<year> beside the AOI file"),
]
Weights = Annotated[
    str | list[str],
    Field(description="auto, the name of shipped weights (marstfn-pan, marstfn-nopan), or safetensors file(s)"),
]
MethodName = Annotated[
    Method, Field(description="Fusion method; network is MARSTFN, auto gives way to a free one where that is ahead")
]
Scheduler = Annotated[
    str,
    Field(pattern=r"^(tcp|tls|ws|wss|ucx)://.+", description="Address of a running Dask scheduler, tcp://host:port"),
]
TilePx = Annotated[
    int, Field(ge=60, le=1920, multiple_of=6, description="Tile side in 10 m pixels; default by AOI size")
]
ReferenceDays = Annotated[
    int, Field(ge=0, le=366, description="Least days between a Landsat date and its Sentinel-2 reference (0: same day)")
]
MaxReferenceDays = Annotated[
    int, Field(ge=0, le=366, description="Most days between a Landsat date and its Sentinel-2 reference")
]
CloudCover = Annotated[
    float, Field(ge=0, le=100, description="Items with more reported cloud (percent of the whole item) are not read")
]
Radiometry = Annotated[
    list[Annotated[str, Field(pattern=overrides.PATTERN)]],
    Field(
        max_length=1000,
        description="Where a catalogue is wrong: ITEM=SCALE,OFFSET, or boa-offset=-0.1|0 for all Sentinel-2 items",
    ),
]
Device = Literal["auto", "cpu", "cuda", "mps"]
Precision = Literal["auto", "float32", "float16", "bfloat16"]


class Request(BaseModel):
    """One run as asked for; what is None is decided when the plan is made."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    base: Path
    """Folder against which relative paths are read: the caller's."""
    aoi: AOISource
    year: Year
    catalog: Catalog
    store: StoreURL | None = None
    store_root: StoreURL | None = None
    """Where `<name>-<year>` is made when `store` is None; None: beside the AOI file, else in `base`."""
    weights: Weights = "auto"
    method: MethodName = "auto"
    scheduler: Scheduler | None = None
    tile_px: TilePx | None = None
    start: date | None = None
    """First solar day, inside the year; None: 1 January."""
    end: date | None = None
    """Last solar day, inside the year; None: 31 December."""
    max_cloud: CloudCover = 100.0
    landsat: Landsat = "8"
    snow: Snow = "keep"
    cirrus: bool = True
    dilated_cloud: bool = False
    cloud_mask: CloudMaskName = "product"
    nbar: Nbar = "auto"
    radiometry: Radiometry = []
    min_reference_days: ReferenceDays = 0
    max_reference_days: MaxReferenceDays = 120
    stride: Annotated[int, Field(ge=6, le=480, multiple_of=6)] | None = None
    batch: Annotated[int, Field(ge=1, le=1024)] | None = None
    """None: 8 on a device, 2 on a processor, which gains nothing from more and computes the padding, too."""
    threads: Annotated[int, Field(ge=0, le=1024)] = 0
    device: Device = "auto"
    precision: Precision = "auto"
    """auto: on CUDA the fastest that a trial on this machine shows to be exact enough, else float32."""
    bandpass: bool = True
    bandpass_file: Annotated[str, Field(min_length=1)] | None = None
    """TOML file of band-pass coefficients by platform (pipeline.bandpass); None: those of HLS."""
    scene_check: bool = True
    registration: bool = True
    update: bool = False
    """Extend the series in the store by what has come into the catalogue since its plan."""

    @field_validator("catalog")
    @classmethod
    def _known_catalog(cls, value: str, info: ValidationInfo) -> str:
        try:
            return profiles.resolve(value, info.data.get("base")).label
        except CatalogError as error:
            raise ValueError(str(error)) from error

    @field_validator("radiometry", mode="before")
    @classmethod
    def _consistent(cls, value: Any) -> Any:
        # before the pattern, which is for forms: its message is for nobody to read
        if not isinstance(value, list | tuple) or not all(isinstance(text, str) for text in value):
            return value
        return [override.text for override in overrides.parse_all(value)]

    @field_validator("bandpass_file")
    @classmethod
    def _usable_file(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is None:
            return None
        if not info.data.get("bandpass", True):
            raise ValueError("band-pass coefficients are given and none are to be applied; leave out one or the other")
        try:
            bandpass.read(info.data.get("base", Path()) / Path(value).expanduser())
        except PlanError as error:
            raise ValueError(str(error)) from error
        return value

    @field_validator("weights")
    @classmethod
    def _some_weights(cls, value: str | list[str]) -> str | list[str]:
        names = [value] if isinstance(value, str) else value
        if not 1 <= len(names) <= 2 or not all(n.strip() for n in names):
            raise ValueError("give auto, or one or two names or files (with pan, without pan)")
        return value

    @model_validator(mode="after")
    def _dates_inside(self) -> Self:
        for name in ("start", "end"):
            value = getattr(self, name)
            if value is not None and value.year != self.year:
                raise ValueError(f"{name} {value} lies outside the year {self.year}")
        if self.first > self.last:
            raise ValueError(f"start {self.first} is after end {self.last}")
        if self.min_reference_days > self.max_reference_days:
            low, high = self.min_reference_days, self.max_reference_days
            raise ValueError(f"min_reference_days {low} is more than max_reference_days {high}")
        return self

    @property
    def adjustments(self) -> tuple[Adjustment, ...]:
        """What `bandpass_file` holds. Raises PlanError."""
        if self.bandpass_file is None:
            return ()
        return bandpass.read(self.base / Path(self.bandpass_file).expanduser())

    @property
    def first(self) -> date:
        """First solar day of the series."""
        return self.start or date(self.year, 1, 1)

    @property
    def last(self) -> date:
        """Last solar day of the series."""
        return self.end or date(self.year, 12, 31)


def make(*, defaults: settings.Settings | None = None, **given: Any) -> Request:
    """A Request from what the user gave (None counts as not given) and, for the rest, from the settings.

    Raises PlanError with one line per wrong parameter.
    """
    values: Mapping[str, Any] = {key: value for key, value in given.items() if value is not None}
    chosen = defaults or settings.load()
    merged: dict[str, Any] = {
        "year": chosen.year or last_complete_year(),
        "catalog": chosen.catalog,
        "store_root": chosen.store,
        "weights": chosen.weights,
        "method": chosen.method,
        "scheduler": chosen.scheduler,
        "tile_px": chosen.tile_px,
        "base": Path.cwd(),
        **values,
    }
    try:
        return Request(**merged)
    except ValidationError as error:
        raise PlanError(f"parameters are not usable; nothing was started: {settings.explained(error)}") from error
