"""Level-2 scenes and the Level-1 items that carry the panchromatic band of the same acquisition."""

from __future__ import annotations

import urllib.request
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from urllib.error import HTTPError

from pipeline import twins
from pipeline.access import Access
from pipeline.errors import CatalogError
from pipeline.facts import Item, scene_id, tier
from pipeline.mtl import parse
from pipeline.plan import Dropped

Level1 = Callable[[Item], str | None]
"""Product id of the Level-1 scene that a Level-2 item was made from, or None where it cannot be had."""

MTL_BYTES = 1_000_000
"""More than any metadata file has (recorded: 20 kB)."""

FORBIDDEN = 403
"""What a storage account answers to a token that has run out."""

MTL_SECONDS = 20.0
"""How long one metadata file is waited for: without it the newest processing is taken."""


def unknown(item: Item) -> str | None:
    """Ask nobody."""
    return None


def match(
    landsat: Iterable[Item], pan: Sequence[Item], dropped: list[Dropped], level1: Level1 = unknown
) -> Mapping[str, Item]:
    """The Level-1 item of the same acquisition by Level-2 item id.

    An item that holds the panchromatic band itself is its own match. Else candidates share the scene id, or where that
    is not told path, row, date and satellite, and the tier. Of several, processed at different times, `level1` names
    the one; where it cannot, the newest processing is taken. It is asked only then, for it costs a request an item.
    """
    by_id = {p["id"]: p for p in pan}
    index: dict[Hashable, list[Item]] = defaultdict(list)
    for item in pan:
        for key in _keys(item):
            index[key].append(item)
    matched: dict[str, Item] = {}
    for item in landsat:
        own = by_id.get(item["id"])
        if own is not None and own.get("collection") == item.get("collection"):
            matched[item["id"]] = own
            continue
        candidates = next((index[key] for key in _keys(item) if key in index), [])
        candidates = [c for c in candidates if tier(c) == tier(item)]
        if candidates:
            matched[item["id"]] = _one(item, candidates, level1)
    dropped.extend(_left_over(pan, matched))
    return matched


def _keys(item: Item) -> tuple[Hashable, ...]:
    """What two items of one acquisition share, the surest first."""
    name = scene_id(item)
    return (("scene", name), twins.acquisition(item)) if name else (twins.acquisition(item),)


def _one(item: Item, candidates: Sequence[Item], level1: Level1) -> Item:
    if len(candidates) == 1:
        return candidates[0]
    name = level1(item)
    newest = max(candidates, key=twins.landsat_rank)
    return next((c for c in candidates if name is not None and str(c["id"]).startswith(name)), newest)


def _left_over(pan: Iterable[Item], matched: Mapping[str, Item]) -> Iterable[Dropped]:
    taken = {p["id"] for p in matched.values()}
    chosen = {key: p["id"] for p in matched.values() for key in _keys(p)}
    for item in pan:
        if item["id"] in taken:
            continue
        other = next((chosen[key] for key in _keys(item) if key in chosen), None)
        why = "no Level-2 item of the same acquisition is used"
        if other is not None:
            why = f"same acquisition as {other}, which is of the Level-2 item's processing"
        yield Dropped(item=item["id"], why=why)


def level1_of(item: Item, access: Access, key: str | None) -> str | None:
    """What the MTL file, the asset `key`, says (`LEVEL1_PROCESSING_RECORD.LANDSAT_PRODUCT_ID`), read over http(s).

    A token that the server does not take is renewed once. None where the item has no such file, it lies behind a login
    or in a bucket whose reader pays, or is not answered: the newest processing is then right but for a Level-1 scene
    made anew since.
    """
    href = str(item["assets"].get(key, {}).get("href", "")) if key else ""
    if not href.startswith(("http://", "https://")):
        return None
    try:
        signed = access.sign(href)
        try:
            return parse(_read(signed)).level1
        except HTTPError as error:
            if error.code != FORBIDDEN or signed == href:
                return None
        access.refused(signed)
        return parse(_read(access.sign(href))).level1
    except (OSError, ValueError, CatalogError):
        return None


def _read(href: str) -> bytes:
    request = urllib.request.Request(href, headers={"Accept": "application/json"})
    with urllib.request.urlopen(request, timeout=MTL_SECONDS) as answer:
        return bytes(answer.read(MTL_BYTES))


def said(landsat: int, matched: int, offered: int) -> str | None:
    """One line on what the catalogue's panchromatic scenes come to: of `landsat` dates `matched` have one of `offered`.

    None where every date has it."""
    if not offered:
        return "no panchromatic scene of these days is in the catalogue: Landsat is fused without it"
    if matched == 0:
        return f"none of {offered} panchromatic scenes is of a Landsat date in use: Landsat is fused without it"
    if matched < landsat:
        return f"{landsat - matched} of {landsat} Landsat dates have no panchromatic band and are fused without it"
    return None
