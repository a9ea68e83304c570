"""What each item promised by its footprint and gave in pixels: one that promised and gave nothing is told."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pystac
import shapely
from numpy.typing import NDArray
from shapely.geometry import shape
from shapely.geometry.base import BaseGeometry

from marstfn.bands import FINE
from pipeline import cube, ledger
from pipeline.errors import AssetError, CubeError
from pipeline.plan import Plan, Scene
from pipeline.store import LEDGER, Store

NAME = f"{LEDGER}/missed.json"
PROMISED = 0.01
"""Share of the area that an item must cover alone to be judged: footprints are drawn no finer."""
GIVEN = 0.05
"""Part of what an item promised below which it is said to have given nothing."""

Shares = NDArray[np.float64]
_TITLES = {"sentinel2": "Sentinel-2", "landsat8": "Landsat 8", "landsat8_pan": "Landsat 8 pan"}


@dataclass(frozen=True, slots=True)
class Missed:
    """An item whose footprint covers the area and which gave no pixel there; shares are of the area's tiles, 0..1."""

    item: str
    scene: str
    group: str
    expected: float
    found: float

    @property
    def line(self) -> str:
        """The item and both shares, in a few words."""
        return f"{self.item} ({self.scene}): expected {self.expected:.0%}, found {self.found:.0%}"

    @property
    def text(self) -> str:
        """What is wrong with the item, and what to do."""
        return (
            f"item {self.item} ({self.scene}, {_TITLES[self.group]}) gave no pixels: its footprint covers "
            f"{self.expected:.0%} of the area's tiles, {self.found:.0%} were found; the date goes on without it. "
            "Either its files hold no data there, or its footprint or georeference in the catalogue (proj:transform, "
            "proj:shape, proj:code) is wrong: tell whoever serves it, or plan anew from another catalogue"
        )


def missed(plan: Plan, store: Store, items: Mapping[str, pystac.Item]) -> tuple[Missed, ...]:
    """Items that promised pixels and gave none, by the clear counts in the ledger, in order of time.

    Raises AssetError where all scenes of a sensor gave nothing, CubeError where a tile is not in the ledger.
    """
    tiles = list(plan.tiles)
    areas = np.array([t.geobox(FINE).extent.to_crs("EPSG:4326").geom for t in tiles], dtype=object)
    out: list[Missed] = []
    told = _counts(store, [t.name for t in tiles], [group.name for group in cube.groups(plan)])
    for group in cube.groups(plan):
        scenes = cube.group_scenes(plan, group)
        counts = told.get(group.name)
        if counts is None or not scenes:
            continue
        known = counts[..., :2].sum(-1) / np.maximum(1, counts.sum(-1))
        weights = counts.sum(-1)[:, 0] / max(1, counts[:, 0].sum())
        lost: list[Missed] = []
        for k, scene in enumerate(scenes):
            lost += _scene(scene, group.name, items, areas, known[:, k], weights)
        if group.masked and not known.any():
            example = f", such as {lost[0].line}" if lost else ""
            raise AssetError(
                f"none of the {len(scenes)} {_TITLES[group.name]} scenes of the plan gave a single pixel over the area"
                f"{example}; the cube would hold nothing of that sensor, and nothing is fused. Their georeference in "
                f"{plan.catalog} (proj:transform, proj:shape, proj:code) does not lead to the area: plan anew into "
                "another --store from a catalogue that is right"
            )
        out += lost
    return tuple(sorted(out, key=lambda m: (m.scene.rpartition(" ")[2], m.item)))


def write(store: Store, found: Sequence[Missed]) -> None:
    """Keep what was missed; nothing is written where the store says so already."""
    if read(store) != tuple(found):
        store.write(NAME, json.dumps([asdict(m) for m in found], indent=1).encode())


def read(store: Store) -> tuple[Missed, ...]:
    """What was missed in the ingest stage; empty where nothing was, or where it cannot be read: it is made anew."""
    try:
        return tuple(Missed(**m) for m in json.loads(store.read(NAME) or b"[]"))
    except (ValueError, TypeError):
        return ()


def _counts(store: Store, tiles: Sequence[str], groups: Sequence[str]) -> dict[str, Shares]:
    """(tiles, dates, [clear, masked, nothing]) pixels by group; without those that a record does not tell of."""
    out: dict[str, list[NDArray[np.int32]]] = {group: [] for group in groups}
    for tile, record in zip(tiles, ledger.each(store, "ingest", tiles), strict=True):
        if isinstance(record, CubeError):
            raise record
        if record is None:
            raise CubeError(f"tile {tile} is not in the ledger of {store.url}; ingest it first (run again)")
        for group in [g for g in out if g not in record.stats]:
            del out[group]
        for group, counts in out.items():
            counts.append(np.asarray(record.stats[group], np.int32))
    return {group: np.asarray(counts, np.float64) for group, counts in out.items()}


def _scene(
    scene: Scene,
    group: str,
    items: Mapping[str, pystac.Item],
    areas: NDArray[np.object_],
    known: Shares,
    weights: Shares,
) -> list[Missed]:
    """Items of one scene that gave nothing; `known`: share of each tile that has pixels of any of them."""
    names = scene.pan_items if group == "landsat8_pan" else scene.items
    prints = {name: _footprint(items[name]) for name in names if name in items}
    out = []
    for name, own in prints.items():
        if own is None:
            continue
        # what lies under another item's footprint may have come from that one
        others = [p for other, p in prints.items() if other != name and p is not None]
        rest = shapely.union_all(others) if others else shapely.Polygon()
        alone, shared = covered(areas, shapely.difference(own, rest)), covered(areas, rest)
        expected = float((alone * weights).sum())
        found = float((np.clip(known - shared, 0, alone) * weights).sum())
        if expected >= PROMISED and found < GIVEN * expected:
            out.append(Missed(name, scene.label, group, round(expected, 4), round(found, 4)))
    return out


def covered(areas: NDArray[np.object_], footprint: BaseGeometry) -> Shares:
    """Share of each polygon that a footprint covers, 0..1."""
    out = np.zeros(len(areas))
    if footprint.is_empty:
        return out
    shapely.prepare(footprint)
    out[shapely.covers(footprint, areas)] = 1
    part = shapely.intersects(footprint, areas) & (out == 0)
    out[part] = shapely.area(shapely.intersection(areas[part], footprint)) / shapely.area(areas[part])
    return out


def _footprint(item: pystac.Item) -> BaseGeometry | None:
    """The footprint as a valid polygon; None where the item has none that can be read, and promises nothing."""
    try:
        found = shape(item.geometry)
        return found if found.is_valid else shapely.make_valid(found)
    except (AttributeError, ValueError, KeyError, TypeError, shapely.errors.ShapelyError):
        return None
