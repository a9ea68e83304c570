"""Items that hold the same data, processed more than once: which are the same, and which is the newest."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Hashable
from typing import Any

from pipeline.facts import Item, acquired, datatake, mgrs_tile, platform, processing_baseline
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


def granule(item: Item) -> Hashable:
    """Satellite, datatake, MGRS tile and data strip: equal for reprocessed twins, not for the strips of one tile."""
    properties = item["properties"]
    strip_id = properties.get("s2:datastrip_id") or properties.get("eopf:datastrip_id") or ""
    strip = re.search(r"_S(\d{8}T\d{6})", str(strip_id))
    # without a tile two neighbours of one pass would pass for twins
    return platform(item), datatake(item), mgrs_tile(item) or item["id"], strip[1] if strip else ""


def sentinel_rank(item: Item) -> tuple[Any, ...]:
    """Baseline, then time of generation: the greater is the newer processing."""
    generated = str(item["properties"].get("s2:generation_time", item["properties"].get("processing:datetime", "")))
    return processing_baseline(item) or (0, 0), generated, item["id"]


def acquisition(item: Item) -> Hashable:
    """Path, row and date: one acquisition, whatever its processing."""
    properties = item["properties"]
    path, row = properties.get("landsat:wrs_path"), properties.get("landsat:wrs_row")
    if path is None or row is None:
        return str(item["id"])
    return int(path), int(row), acquired(item).date()


def landsat_rank(item: Item) -> tuple[Any, ...]:
    """Date of processing: the greater is the newer."""
    properties = item["properties"]
    # the processing date of the id where the id has one, as at USGS; elsewhere the item says when it was made
    stamps = re.findall(r"_(\d{8})(?=_)", item["id"])
    processed = stamps[1] if len(stamps) > 1 else ""
    return processed, str(properties.get("landsat:product_generated") or properties.get("created") or ""), item["id"]
