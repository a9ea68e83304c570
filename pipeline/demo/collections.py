"""The collections of the embedded catalogue and its landing page, each saying what is simulated."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from pipeline.demo.landsat import LEVEL1, LEVEL2
from pipeline.demo.raster import write_json
from pipeline.demo.search import Json
from pipeline.demo.sentinel import COLLECTION1, L2A

_LANDSAT_LINK = {"rel": "cite-as", "href": "https://doi.org/10.5066/P9OGBGM6"}
_SENTINEL_LINK = {
    "rel": "license",
    "href": "https://sentinel.esa.int/documents/247904/690755/Sentinel_Data_Legal_Notice",
}

TITLES: Mapping[str, tuple[str, str]] = {
    LEVEL2: ("Landsat Collection 2 Level-2", "Landsat 8 surface reflectance, 30 m, in the shape of Planetary Computer"),
    LEVEL1: ("Landsat Collection 2 Level-1", "Landsat 8 panchromatic band, 15 m, in the shape of USGS LandsatLook"),
    COLLECTION1: (
        "Sentinel-2 Collection 1 Level-2A",
        "Sentinel-2 surface reflectance, 10 and 20 m, in the shape of Earth Search",
    ),
    L2A: ("Sentinel-2 Level-2A", "Sentinel-2 surface reflectance, 10 and 20 m, in the shape of Planetary Computer"),
}


def collection(name: str, items: Iterable[Json], *, note: str, simulated: bool) -> Json:
    """The collection of at least one item; `note` says where the pixels come from, after the title's own words."""
    found = list(items)
    boxes = [item["bbox"] for item in found]
    times = sorted(item["properties"]["datetime"] for item in found)
    title, what = TITLES[name]
    whole = [min(b[0] for b in boxes), min(b[1] for b in boxes), max(b[2] for b in boxes), max(b[3] for b in boxes)]
    return {
        "type": "Collection",
        "id": name,
        "stac_version": "1.0.0",
        "title": f"{title} (simulated)" if simulated else title,
        "description": f"{what}. {note}",
        "license": "proprietary",
        "keywords": ["simulated"] if simulated else [],
        "simulated": simulated,
        "extent": {"spatial": {"bbox": [whole]}, "temporal": {"interval": [[times[0], times[-1]]]}},
        "links": [_LANDSAT_LINK if name in (LEVEL1, LEVEL2) else _SENTINEL_LINK],
    }


def write_item(folder: Path, item: Json) -> None:
    """Put one item where the server looks for it."""
    write_json(item_path(folder, item["collection"], item["id"]), item)


def item_path(folder: Path, collection: str, item: str) -> Path:
    """Where an item lies in a catalogue's folder."""
    return folder / "items" / collection / f"{item}.json"


def finish(folder: Path, items: Iterable[Json], *, ident: str, title: str, note: str, simulated: bool) -> None:
    """Write the collections of all items, and last the landing page, which makes the folder a catalogue."""
    groups: dict[str, list[Json]] = {}
    for item in items:
        groups.setdefault(item["collection"], []).append(item)
    for name, members in groups.items():
        # a collection may hold both, as where a real pass was given a simulated companion
        made_up = simulated or all(m["properties"].get("simulated") is True for m in members)
        write_json(folder / "collections" / f"{name}.json", collection(name, members, note=note, simulated=made_up))
    write_json(
        folder / "catalog.json",
        {
            "type": "Catalog",
            "id": ident,
            "stac_version": "1.0.0",
            "title": title,
            "description": note,
            "simulated": simulated,
        },
    )
