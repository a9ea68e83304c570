"""From the items a search returned to the scenes of a year: chosen, deduplicated, matched, grouped by solar day."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any

import shapely
from shapely.geometry.base import BaseGeometry

from pipeline import nbar, twins
from pipeline import pan as panchromatic
from pipeline.choices import Landsat, Nbar
from pipeline.errors import CatalogError
from pipeline.facts import (
    Item,
    acquired,
    cloud_cover,
    datatake,
    footprint,
    placed,
    platform,
    solar_day,
    sun_elevation,
    zone,
)
from pipeline.items import pystac_item
from pipeline.overrides import Override
from pipeline.plan import Dropped, Hole, Nadir, Radiometry, Scene, SensorName
from pipeline.profiles import Product, Role, Source
from pipeline.radiometry import key_of, radiometry

SENTINELS = ("sentinel-2a", "sentinel-2b", "sentinel-2c")
LANDSATS: Mapping[Landsat, tuple[str, ...]] = {
    "8": ("landsat-8",),
    "9": ("landsat-9",),
    "both": ("landsat-8", "landsat-9"),
}
"""Platforms, in the one spelling of `facts.platform`: catalogues write landsat-8, LANDSAT_8, Landsat 8."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a scene must be to serve: place, days, cloud."""

    area: BaseGeometry
    """Longitude, latitude."""
    first: date
    last: date
    epsg: int
    """Of the cube: items already in it come first in a mosaic."""
    max_cloud: float = 100.0
    landsat: Landsat = "8"
    overrides: tuple[Override, ...] = ()
    nbar: Nbar = "off"

    def platforms(self, role: Role) -> tuple[str, ...]:
        """The platforms whose items serve `role`."""
        return SENTINELS if role == "sentinel2" else LANDSATS[self.landsat]

    @property
    def place(self) -> tuple[float, float]:
        """Longitude and latitude of the middle of the area."""
        middle = self.area.envelope.centroid
        return float(middle.x), float(middle.y)

    @property
    def longitude(self) -> float:
        """The longitude that decides solar days: the middle of the area's frame."""
        west, _, east, _ = self.area.bounds
        return float(west + east) / 2


@dataclass(frozen=True, slots=True)
class Chosen:
    """The scenes of both sensors in order of time, with the items they are made of."""

    scenes: tuple[Scene, ...]
    items: tuple[Item, ...]
    radiometry: Mapping[str, Radiometry]
    """By item id; for pan by item id + '#pan'."""
    dropped: tuple[Dropped, ...]
    nbar: Mapping[str, Nadir] = field(default_factory=dict)
    """By item id: what brings an item to a view from above."""
    notes: tuple[str, ...] = ()
    """What the user should be told of the choice."""
    holes: tuple[Hole, ...] = ()
    """What the catalogue should have listed, too."""


def choose(
    found: Mapping[Role, Iterable[Item]],
    source: Source,
    wanted: Wanted,
    level1: panchromatic.Level1 = panchromatic.unknown,
) -> Chosen:
    """Scenes from what a search found. Items off the area or outside the days are left out without a word.

    `level1` is asked for the Level-1 product of an item where several pan items could be its own.
    """
    dropped: list[Dropped] = []
    kept: dict[Role, list[Item]] = {}
    rules: dict[str, Radiometry] = {}
    for role, items in found.items():
        kept[role] = _usable(items, role, source, wanted, dropped, rules)
    sentinel = kept.get("sentinel2", [])
    landsat = kept.get("landsat8", [])
    pan = panchromatic.match(landsat, kept.get("landsat8_pan", []), dropped, level1)
    scenes = [*_scenes("sentinel2", sentinel, wanted, {}), *_scenes("landsat8", landsat, wanted, pan)]
    scenes = _in_time(scenes)
    used = {i for s in scenes for i in (*s.items, *s.pan_items)}
    chosen = _all_distinct(i for items in kept.values() for i in items if i["id"] in used)
    rules = {key: rule for key, rule in rules.items() if key.removesuffix("#pan") in used}
    _all_met(wanted.overrides, rules)
    seen = [
        (item, product)
        for role in kept
        if role != "landsat8_pan"
        for item in kept[role]
        if item["id"] in used and (product := source.product_of(item, role)) is not None
    ]
    angles, said = nbar.chosen(wanted.nbar, seen, wanted.place)
    left_out = tuple(sorted(dropped, key=lambda d: d.item))
    return Chosen(tuple(scenes), chosen, rules, left_out, angles, (said,) if said else ())


def _usable(
    items: Iterable[Item],
    role: Role,
    source: Source,
    wanted: Wanted,
    dropped: list[Dropped],
    rules: dict[str, Radiometry],
) -> list[Item]:
    candidates: list[Item] = []
    products: dict[str, Product] = {}
    for item in items:
        product = source.product_of(item, role)
        assert product is not None, role
        products[item["id"]] = product
        try:
            if not (wanted.first <= solar_day(acquired(item), wanted.longitude) <= wanted.last):
                continue
            outline = footprint(item)
            if outline is not None and not shapely.intersects(outline, wanted.area):
                continue
            why = _unfit(item, product, wanted, outline)
            if why is None:
                # what pystac cannot read must not reach the plan; nor do assets that nothing reads
                pystac_item({**item, "assets": {key: item["assets"][key] for key in product.keys}})
        except (CatalogError, AttributeError, KeyError, TypeError, ValueError) as error:
            # one item that a catalogue has spoilt must not cost the year
            why = f"its metadata cannot be read ({type(error).__name__}: {error})"
        if why is not None:
            dropped.append(Dropped(item=item["id"], why=why))
        else:
            candidates.append(item)
    kept = []
    for item in _once(candidates, role, dropped):
        try:
            rule = radiometry(item, products[item["id"]], overrides=wanted.overrides)
        except CatalogError as error:
            dropped.append(Dropped(item=item["id"], why=str(error).split(": ", 1)[1].split(";")[0]))
            continue
        rules[key_of(item, products[item["id"]])] = rule
        kept.append(item)
    return kept


def _once(items: list[Item], role: Role, dropped: list[Dropped]) -> list[Item]:
    """Each acquisition once, though it be processed twice or lie in two collections."""
    if role == "sentinel2":
        return twins.one_collection(twins.strips(items, dropped), dropped)
    # which processing of Level-1 is wanted is known when it is matched
    key = twins.acquisition if role == "landsat8" else twins.processing
    return twins.best(items, key, twins.landsat_rank, dropped)


def _unfit(item: Item, product: Product, wanted: Wanted, outline: BaseGeometry | None) -> str | None:
    """Why an item with this footprint cannot serve, or None."""
    properties = item["properties"]
    name = platform(item)
    platforms = wanted.platforms(product.role)
    if name not in platforms:
        return f"platform {name or 'unknown'}: only {', '.join(platforms)} is used"
    missing = [key for key in product.keys if not item["assets"].get(key, {}).get("href")]
    if missing:
        return f"no asset {', '.join(missing)}"
    relative = [key for key in product.keys if _relative(str(item["assets"][key]["href"]))]
    if relative and not any(link.get("rel") == "self" for link in item.get("links") or []):
        return f"relative address of asset {', '.join(relative)}, and no self link that says where it begins"
    if not placed(item, product.keys):
        return "no projection information (proj:epsg, proj:code, wkt2 or projjson): it cannot be placed on a grid"
    if outline is None:  # odc-stac refuses a whole load for the sake of one
        return "no usable footprint (geometry): it cannot be told where it lies"
    elevation = sun_elevation(item)
    if elevation is not None and elevation <= 0:
        return f"sun elevation {elevation:.1f} degrees: a night scene"
    cloud = properties.get("eo:cloud_cover")
    if cloud is not None and cloud > wanted.max_cloud:
        return f"cloud cover {cloud:.0f} % is more than the limit of {wanted.max_cloud:.0f} %"
    tier = properties.get("landsat:collection_category")
    if tier not in (None, "T1"):
        return f"tier {tier}: its geolocation may be off by more than a 10 m pixel"
    return None


def _relative(href: str) -> bool:
    return "://" not in href and not href.startswith("/")


def _scenes(sensor: SensorName, items: list[Item], wanted: Wanted, pan: Mapping[str, Item]) -> list[Scene]:
    days: dict[date, list[Item]] = defaultdict(list)
    for item in items:
        days[solar_day(acquired(item), wanted.longitude)].append(item)
    scenes = []
    for day, members in sorted(days.items()):
        ordered = mosaic_order(members, wanted.epsg)
        scenes.append(
            Scene(
                sensor=sensor,
                platform="+".join(sorted({platform(i) for i in ordered})),
                time=min(acquired(i) for i in ordered),
                day=day,
                items=tuple(i["id"] for i in ordered),
                pan_items=tuple(pan[i["id"]]["id"] for i in ordered if i["id"] in pan),
            )
        )
    return scenes


def _in_time(scenes: list[Scene]) -> list[Scene]:
    """Strictly increasing in time, as the cube's axis must be: of two equal times the later in order moves by 1 ms."""
    ordered: list[Scene] = []
    for scene in sorted(scenes, key=lambda s: (s.time, s.sensor)):
        if ordered and scene.time <= ordered[-1].time:
            scene = scene.model_copy(update={"time": ordered[-1].time + timedelta(milliseconds=1)})
        ordered.append(scene)
    return ordered


def mosaic_order(items: Iterable[Item], epsg: int) -> list[Item]:
    """Items of one day as they are laid over one another, the first on top: the clearer overpass, then those in the
    cube's own zone (they need no reprojection), then the clearer item."""
    passes: dict[str, list[float]] = defaultdict(list)
    members = list(items)
    for item in members:
        passes[_overpass(item)].append(cloud_cover(item))

    def order(item: Item) -> tuple[Any, ...]:
        name = _overpass(item)
        mean = sum(passes[name]) / len(passes[name])
        return round(mean, 6), name, zone(item) != epsg % 100, cloud_cover(item), item["id"]

    return sorted(members, key=order)


def _overpass(item: Item) -> str:
    return datatake(item) if platform(item).startswith("sentinel") else str(item["properties"].get("landsat:wrs_path"))


def _all_distinct(items: Iterable[Item]) -> tuple[Item, ...]:
    """The items, each once: one may carry the panchromatic band itself. Raises CatalogError where ids are shared."""
    seen: dict[str, Item] = {}
    for item in items:
        other = seen.setdefault(item["id"], item)
        if other.get("collection") != item.get("collection"):
            raise CatalogError(
                f"item id {item['id']} is used by the collections {other.get('collection')} and "
                f"{item.get('collection')}; a plan could not tell them apart. Use a catalogue whose ids are distinct"
            )
    return tuple(seen.values())


def _all_met(overrides: Iterable[Override], rules: Mapping[str, Radiometry]) -> None:
    """A name mistyped must not leave an item as wrong as it was."""
    missed = [o.text for o in overrides if o.item is not None and o.item not in rules]
    if missed:
        raise CatalogError(
            f"radiometry is given for items that are not used: {', '.join(missed)}; nothing was planned. Use ids as "
            "the scene table has them (for pan with #pan behind), or leave the entry out"
        )


def months_of(scenes: Iterable[Scene], sensor: str) -> tuple[str, ...]:
    """The months (YYYY-MM, by solar day) in which `sensor` has scenes, in order."""
    return tuple(sorted({f"{s.day:%Y-%m}" for s in scenes if s.sensor == sensor}))
