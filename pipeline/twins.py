"""Items that hold the same data, processed more than once: which are the same, and which is the newest."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Hashable
from typing import Any

from pipeline.facts import Item, acquired, datatake, footprint, mgrs_tile, path_row, platform, processing_baseline
from pipeline.plan import Dropped


def best(
    items: list[Item],
    key: Callable[[Item], Hashable],
    rank: Callable[[Item], tuple[Any, ...]],
    dropped: list[Dropped],
) -> list[Item]:
    """The highest ranked item of each key; the others are the same data, processed earlier."""
    groups: dict[Hashable, list[Item]] = defaultdict(list)
    for item in items:
        groups[key(item)].append(item)
    kept = []
    for same in groups.values():
        newest = max(same, key=rank)
        kept.append(newest)
        why = f"same data as {newest['id']}, which is the newer processing"
        dropped.extend(Dropped(item=twin["id"], why=why) for twin in same if twin is not newest)
    return kept


def strips(items: list[Item], dropped: list[Dropped]) -> list[Item]:
    """Of Sentinel-2 items the newest processing of each granule.

    Where no data strip is named, items of one tile and datatake are two strips of it if their footprints hardly share
    ground, and one strip processed twice if they do.
    """
    named = [i for i in items if _strip(i)]
    apart: list[list[Item]] = []
    for item in sorted((i for i in items if not _strip(i)), key=sentinel_rank, reverse=True):
        for same in apart:
            if granule(same[0]) == granule(item) and _share_ground(same[0], item):
                same.append(item)
                break
        else:
            apart.append([item])
    kept = best(named, granule, sentinel_rank, dropped)
    for same in apart:
        kept += best(same, granule, sentinel_rank, dropped)
    return kept


def one_collection(items: list[Item], dropped: list[Dropped]) -> list[Item]:
    """Of each pass of a satellite the items of one collection: the one with the most tiles of it, then the newest
    baseline. Two collections hold the same pass processed differently, 1000 digital numbers apart."""
    passes: dict[Hashable, dict[str, list[Item]]] = defaultdict(lambda: defaultdict(list))
    for item in items:
        passes[platform(item), datatake(item)][str(item.get("collection"))].append(item)
    kept = []
    for collections in passes.values():
        chosen = max(collections, key=lambda c: _worth(c, collections[c]))
        for name, members in collections.items():
            if name == chosen:
                kept += members
                continue
            why = f"collection {name}: this pass is taken from {chosen}, and collections are never mixed in one pass"
            dropped.extend(Dropped(item=i["id"], why=why) for i in members)
    return kept


def _worth(name: str, members: list[Item]) -> tuple[Any, ...]:
    tiles = {mgrs_tile(i) for i in members}
    return len(tiles), max(processing_baseline(i) or (0, 0) for i in members), name


def _strip(item: Item) -> str:
    """Sensing start of the data strip; empty where the item does not name one."""
    properties = item["properties"]
    name = properties.get("s2:datastrip_id") or properties.get("eopf:datastrip_id") or ""
    found = re.search(r"_S(\d{8}T\d{6})", str(name))
    return found[1] if found else ""


def _share_ground(one: Item, other: Item) -> bool:
    """Whether the smaller footprint lies for the most part in the larger; true where one is not told."""
    first, second = footprint(one), footprint(other)
    if first is None or second is None or not min(first.area, second.area):
        return True
    return bool(first.intersection(second).area > 0.5 * min(first.area, second.area))


def granule(item: Item) -> Hashable:
    """Satellite, datatake, MGRS tile and data strip: equal for reprocessed twins, not for the strips of one tile."""
    # without a tile two neighbours of one pass would pass for twins
    return platform(item), datatake(item), mgrs_tile(item) or item["id"], _strip(item)


def sentinel_rank(item: Item) -> tuple[Any, ...]:
    """Baseline, then time of generation: the greater is the newer processing."""
    generated = str(item["properties"].get("s2:generation_time", item["properties"].get("processing:datetime", "")))
    return processing_baseline(item) or (0, 0), generated, item["id"]


def acquisition(item: Item) -> Hashable:
    """Satellite, path, row and date: one acquisition, whatever its processing."""
    place = path_row(item)
    if place is None:
        return str(item["id"])
    return platform(item), *place, acquired(item).date()


def processing(item: Item) -> Hashable:
    """The acquisition and the date it was processed: Level-1 items that differ in it are all kept to be matched."""
    return acquisition(item), landsat_rank(item)[:2]


def landsat_rank(item: Item) -> tuple[Any, ...]:
    """Date of processing: the greater is the newer."""
    properties = item["properties"]
    # the processing date of the id where the id has one, as at USGS; elsewhere the item says when it was made
    stamps = re.findall(r"_(\d{8})(?=_)", item["id"])
    processed = stamps[1] if len(stamps) > 1 else ""
    return processed, str(properties.get("landsat:product_generated") or properties.get("created") or ""), item["id"]
