"""The frozen description of one run: everything another machine needs to repeat it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import date, datetime
from functools import lru_cache
from typing import Any, Literal

from odc.geo.geom import Geometry
from pydantic import BaseModel, ConfigDict

from pipeline.choices import CloudMaskName, Landsat, Nbar, Snow
from pipeline.choices import Method as Method
from pipeline.errors import StoreError
from pipeline.grid import Grid, Tile

FORMAT = "3"
"""Version of the plan and of the cube it leads to; checked on open and on resume."""

SensorName = Literal["sentinel2", "landsat8"]


class Frozen(BaseModel):
    """Immutable, and strict about unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Radiometry(Frozen):
    """How the digital numbers of one item become reflectance: rho = DN * scale + offset, DN == nodata is nothing."""

    scale: float
    offset: float
    nodata: int
    rule: str
    """Which rule decided, and on what evidence."""


class Nadir(Frozen):
    """What brings one item to a view from above: its angles at the area's centre, and the factor of each band."""

    sun_zenith: float
    """Degrees, as the next two."""
    view_zenith: float
    relative_azimuth: float
    """Between sun and sensor, 0..180; 0: the sun behind the sensor."""
    factors: tuple[float, ...]
    """In the order of BANDS: rho above = factor * rho."""
    source: str
    """Where the angles come from."""


class Scene(Frozen):
    """One acquisition: all items of one sensor on one solar day, mosaicked in the order given (first valid wins)."""

    sensor: SensorName
    platform: str
    time: datetime
    """Acquisition time (UTC) of the earliest item."""
    day: date
    """Solar day: the local date of the overpass."""
    items: tuple[str, ...]
    pan_items: tuple[str, ...] = ()
    """Level-1 items that carry the panchromatic band of the same acquisition."""

    @property
    def label(self) -> str:
        return f"{self.platform} {self.day.isoformat()}"


class Dropped(Frozen):
    """An item the search returned and the plan does not use."""

    item: str
    why: str


class Hole(Frozen):
    """Acquisitions that the repeat cycle of a satellite leads one to expect and the catalogue does not list."""

    sensor: SensorName
    track: str
    """`path/row 124/026 of landsat-8`, `orbit 098 of sentinel-2b`."""
    days: tuple[date, ...]
    """Solar days, in order."""

    @property
    def text(self) -> str:
        """In one line, with at most six of the days."""
        shown = ", ".join(day.isoformat() for day in self.days[:6])
        more = f" and {len(self.days) - 6} more" if len(self.days) > 6 else ""
        return f"scenes of {self.track} expected and not in the catalogue: {shown}{more}"


class WeightsRef(Frozen):
    """The weights a run uses, by content."""

    source: str
    sha256: str
    pan: bool
    patch: int
    """Side of the model window in 10 m pixels."""
    context: bool = False
    """Whether they look at Sentinel-2 on both sides of the date."""
    interval: tuple[float, ...] | None = None
    """By band, what makes their uncertainty the half-width of a 90 % interval; None where they give none."""


class Adjustment(Frozen):
    """Band-pass of one platform: rho in the cube's frame = scale * rho + offset, in the order of BANDS."""

    platform: str
    scale: tuple[float, ...]
    offset: tuple[float, ...]


class Options(Frozen):
    """The choices of a run that change its result."""

    method: Method = "network"
    """auto: the network, except in seasons in which a free method is ahead on this very land (pipeline.gate)."""
    stride: int = 48
    """Step between patches in 10 m pixels, a multiple of 6, at most the patch side."""
    batch: int = 8
    """Patches in one forward pass; short batches are padded with zeros."""
    threads: int = 0
    """Torch threads of the fusing worker; 0 = all cores of the machine, frozen into the plan when it is made."""
    device: Literal["cpu", "cuda", "mps"] = "cpu"
    precision: Literal["float32", "float16", "bfloat16"] = "float32"
    """In which the network computes."""
    mask_dilation: int = 30
    """Metres by which cloud and shadow masks are grown."""
    landsat: Landsat = "8"
    """Whose scenes are read; a scene keeps its platform."""
    snow: Snow = "keep"
    cirrus: bool = True
    """Cirrus masks."""
    dilated_cloud: bool = False
    """The dilated cloud of Landsat's QA_PIXEL masks: it is wide, and takes much clear ground with it."""
    cloud_mask: CloudMaskName = "product"
    nbar: Nbar = "auto"
    """As asked for; what is done to each item is in the plan's `nbar`."""
    radiometry: tuple[str, ...] = ()
    """What the user says of the radiometry of items, as pipeline.overrides writes it."""
    min_reference_days: int = 0
    """A Sentinel-2 day nearer to the Landsat day than this is not used as its reference (0: same day allowed)."""
    max_reference_days: int = 120
    """A Sentinel-2 day farther from the Landsat day than this is never its reference."""
    max_references: int = 6
    """Sentinel-2 days tried per pixel on either side of the date before it is left without a reference there."""
    bandpass: bool = True
    """Bring Landsat to the Sentinel-2 MSI band-pass."""
    adjustments: tuple[Adjustment, ...] = ()
    """Band-pass coefficients that the user gave, by platform (pipeline.bandpass); those of HLS for all others."""
    scene_check: bool = True
    """Apply the per-scene linear check against clear Sentinel-2 where it passes its bounds."""
    registration: bool = True
    """Measure each Landsat scene's shift against Sentinel-2; correct it, or reject the scene, within stated bounds."""
    time_shard: int = 48
    """Dates in one shard: bounds memory whatever the length of the year."""


class Plan(Frozen):
    """One run, completely: grid, scenes, radiometry, weights, options. JSON in, JSON out."""

    format: str = FORMAT
    name: str
    aoi: dict[str, Any]
    """GeoJSON geometry, longitude/latitude WGS 84."""
    aoi_source: str
    year: int
    first: date | None = None
    last: date | None = None
    """First and last solar day asked for; None: of the year."""
    max_cloud: float = 100.0
    """Items with more reported cloud (percent) were left out."""
    grid: Grid
    catalog: str
    """`PROFILE` or `PROFILE@URL`."""
    scenes: tuple[Scene, ...]
    """Both sensors, in order of time."""
    radiometry: dict[str, Radiometry]
    """By item id; for pan by item id + '#pan'."""
    nbar: dict[str, Nadir] = {}
    """By item id: items brought to a view from above; empty where none is."""
    dropped: tuple[Dropped, ...] = ()
    holes: tuple[Hole, ...] = ()
    """What the catalogue should list and does not."""
    weights: tuple[WeightsRef, ...]
    """At most one with pan and one without; empty for methods that need none."""
    options: Options = Options()
    items_sha256: str
    """Of the item collection frozen beside the plan."""
    simulated: bool = False
    versions: dict[str, str] = {}
    """Of the libraries that shape the result."""

    def of(self, sensor: SensorName) -> tuple[Scene, ...]:
        """The scenes of one sensor, in order of time."""
        return tuple(s for s in self.scenes if s.sensor == sensor)

    @property
    def tiles(self) -> tuple[Tile, ...]:
        """The tiles that meet the area of interest, in row-major order: what a run makes."""
        return _tiles(self.grid, json.dumps(self.aoi))

    @property
    def landsats(self) -> str:
        """Whose scenes are fused, as people write it: `Landsat 8`, `Landsat 9`, `Landsat 8 and 9`."""
        numbers = sorted({p[-1] for s in self.of("landsat8") for p in s.platform.split("+") if p[-1:].isdigit()})
        return f"Landsat {' and '.join(numbers or ['8'])}"

    @property
    def has_pan(self) -> bool:
        return any(s.pan_items for s in self.scenes)

    @property
    def fingerprint(self) -> str:
        """64 hex digits: equal plans, equal fingerprints."""
        content = self.model_dump(mode="json")
        if not self.options.adjustments:  # younger than plans that are in force
            del content["options"]["adjustments"]
        return fingerprint(content)


@lru_cache(maxsize=4)
def _tiles(grid: Grid, aoi: str) -> tuple[Tile, ...]:
    """A run asks dozens of times, and of ten thousand tiles each answer takes a second."""
    return tuple(grid.tiles(Geometry(json.loads(aoi), "EPSG:4326")))


def parsed(text: bytes, where: str) -> Plan:
    """The plan in the bytes of a plan.json at `where`. Raises StoreError where it is damaged or of another format."""
    damaged = "nothing was changed there. Restore it from a copy, or choose another --store"
    try:
        version = json.loads(text)["format"]
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{where} is damaged: it is no plan ({type(error).__name__}: {error}); {damaged}") from error
    if version != FORMAT:
        raise StoreError(
            f"{where} has format version {version!r}, this program reads {FORMAT!r}; nothing was changed there. "
            "Choose another --store, or go on with the release that wrote it"
        )
    try:
        return Plan.model_validate_json(text)
    except ValueError as error:
        first = " ".join(str(error).splitlines()[:3])
        raise StoreError(f"{where} is damaged: it is no plan ({first}); {damaged}") from error


def fingerprint(value: Mapping[str, Any] | list[Any] | str) -> str:
    """SHA-256 of the canonical JSON of `value`, 64 hex digits."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def canonical(value: Any) -> str:
    """JSON with sorted keys and no blanks: equal values, equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def joined(parts: Mapping[str, str]) -> str:
    """`fingerprint` of a dictionary of which each value is given as its canonical JSON."""
    text = ",".join(f"{canonical(key)}:{parts[key]}" for key in sorted(parts))
    return hashlib.sha256(f"{{{text}}}".encode()).hexdigest()
