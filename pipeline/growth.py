"""A series that grows with its year: what new scenes would change, and a new plan that reads only what is new.

A store under a new plan keeps the old one's inputs below EARLIER until its tiles are ingested again: dates that have
not changed are copied from there, without a read over the network. The finished cube stays where it is until the new
one is begun, and below EARLIER until that is complete.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
import pystac
import zarr
from numpy.typing import NDArray

from pipeline import cube, ledger
from pipeline.cube import Group
from pipeline.grid import Tile
from pipeline.plan import Plan, Scene, SensorName, fingerprint, parsed
from pipeline.store import FUSED, INPUTS, ITEMS, LEDGER, PLAN, Store

EARLIER, NEXT = "earlier", "next"
"""Folders of a store: what the new plan takes over from the one before; a new plan that is not in force yet."""

LATE = timedelta(days=30)
"""How long after a day its scenes may still come into a catalogue: Landsat is listed for good only weeks later."""

Items = Mapping[str, pystac.Item]
Rules = Callable[[Plan], Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Changes:
    """What a new plan has otherwise than an old one: dates by sensor, in order."""

    new: Mapping[SensorName, tuple[date, ...]]
    gone: Mapping[SensorName, tuple[date, ...]]
    altered: Mapping[SensorName, tuple[date, ...]]
    """Dates of which the catalogue now has other items, or the same processed anew."""

    def __bool__(self) -> bool:
        return any(days for kind in (self.new, self.gone, self.altered) for days in kind.values())

    def text(self, since: datetime | None) -> str:
        """In one line; `since`: when the old plan was written."""
        parts = [
            f"{len(days)} {word} {title} date{'s' if len(days) > 1 else ''}"
            for word, kind in (("new", self.new), ("withdrawn", self.gone), ("altered", self.altered))
            for sensor, title in _TITLES.items()
            if (days := kind.get(sensor, ()))
        ]
        return f"{', '.join(parts) or 'nothing new'} since the plan{f' of {since:%Y-%m-%d}' if since else ''}"


_TITLES: dict[SensorName, str] = {"landsat8": "Landsat", "sentinel2": "Sentinel-2"}


def changes(old: Plan, old_items: Items, new: Plan, new_items: Items) -> Changes:
    """What `new` has otherwise than `old`."""
    found: dict[str, dict[SensorName, tuple[date, ...]]] = {"new": {}, "gone": {}, "altered": {}}
    for sensor in _TITLES:
        before = dict(zip((s.day for s in old.of(sensor)), bases(old, old.of(sensor), old_items), strict=True))
        after = dict(zip((s.day for s in new.of(sensor)), bases(new, new.of(sensor), new_items), strict=True))
        found["new"][sensor] = tuple(sorted(after.keys() - before.keys()))
        found["gone"][sensor] = tuple(sorted(before.keys() - after.keys()))
        found["altered"][sensor] = tuple(sorted(d for d in after.keys() & before.keys() if after[d] != before[d]))
    return Changes(**found)


def bases(plan: Plan, scenes: Sequence[Scene], items: Items) -> list[str]:
    """Hashes of all that shapes the pixels of each scene beside what the whole plan shares: its items, as they are
    frozen, and what the plan says of each (radiometry and the like)."""
    dump = plan.model_dump(mode="json", exclude={"aoi", "scenes"})
    by_item = {field: content for field, content in dump.items() if isinstance(content, dict)}
    return [fingerprint(_basis(scene, by_item, items)) for scene in scenes]


def _basis(scene: Scene, by_item: Mapping[str, Mapping[str, Any]], items: Items) -> dict[str, Any]:
    names = (*scene.items, *scene.pan_items)
    keys = {*names, *(f"{name}#pan" for name in scene.pan_items)}
    said = {field: {k: v for k, v in content.items() if k in keys} for field, content in by_item.items()}
    return {
        "items": scene.items,
        "pan": scene.pan_items,
        "said": {field: content for field, content in said.items() if content},
        "told": [_content(items[name]) if name in items else None for name in names],
    }


def _content(item: pystac.Item) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(json.dumps(item.to_dict(include_self_link=False, transform_hrefs=False)))
    return {key: value for key, value in found.items() if key != "links"}


def growing(plan: Plan, written: datetime | None) -> bool:
    """Whether scenes of the plan's days may have come into the catalogue after it was written."""
    last = plan.last or date(plan.year, 12, 31)
    return written is None or written.astimezone(UTC).date() < last + LATE


# ---- a new plan in the same store


def begin(store: Store, plan: Plan, items: pystac.ItemCollection) -> None:
    """Put a new plan in force in a store that holds another; what that one read is kept to be taken over."""
    following = Store(store.join(NEXT))
    following.write(ITEMS, json.dumps(items.to_dict(transform_hrefs=False)).encode())
    # the plan comes last: where it is, the change is decided, and settle brings it to its end
    following.write(PLAN, plan.model_dump_json(indent=1).encode())
    settle(store)


def settle(store: Store) -> bool:
    """Bring a change of plan that `begin` decided to its end, however often it was interrupted; False if there is
    none. Call it only while no task works in the store."""
    following, before = Store(store.join(NEXT)), Store(store.join(EARLIER))
    plan, items = following.read(PLAN), following.read(ITEMS)
    if plan is None or items is None:
        return False
    if store.read(PLAN) != plan:
        if before.read(PLAN) is None:
            before.write(ITEMS, store.read(ITEMS) or b"")
            before.write(PLAN, store.read(PLAN) or b"")
        for name in (INPUTS, LEDGER):
            store.move(name, f"{EARLIER}/{name}")
        store.write(ITEMS, items)
        store.write(PLAN, plan)
    following.delete(PLAN)
    following.delete(ITEMS)
    store.clear(NEXT)
    return True


def unfinished(store: Store) -> bool:
    """Whether the store's plan has taken over from an earlier one and its cube is not complete yet."""
    return store.read(f"{EARLIER}/{PLAN}") is not None


def ingested(store: Store) -> None:
    """All tiles are in the ledger: the earlier inputs are not needed any longer."""
    if unfinished(store):
        store.clear(f"{EARLIER}/{INPUTS}")
        store.clear(f"{EARLIER}/{LEDGER}")


def retire(store: Store) -> None:
    """Move the finished cube of the earlier plan out of the way of the new one."""
    text = store.read(f"{EARLIER}/{PLAN}")
    if text is None:
        return
    try:
        found = zarr.open_group(store.zarr(FUSED), mode="r").attrs.get("plan_fingerprint")
    except FileNotFoundError:
        return
    if found == parsed(text, store.join(f"{EARLIER}/{PLAN}")).fingerprint:
        store.move(FUSED, f"{EARLIER}/{FUSED}")


def complete(store: Store) -> None:
    """The new cube is complete: forget the earlier plan."""
    store.clear(EARLIER)


# ---- what the earlier inputs hold


@dataclass(frozen=True, slots=True)
class Earlier:
    """The inputs of the plan before, of which unchanged dates are taken over."""

    plan: Plan
    store: Store
    places: Mapping[str, Mapping[int, int]]
    """By group, place of an unchanged date along the earlier axis by its place along the present one."""

    def of(self, tile: Tile, made_from: str, group: Group) -> Mapping[int, int]:
        """Dates of `group` that can be taken over for a tile; none unless it was finished from these very inputs."""
        found = self.places.get(group.name, {})
        return found if found and ledger.done(self.store, "ingest", tile.name, made_from) else {}

    def read(self, group: Group, name: str, dates: list[int], tile: Tile) -> NDArray[Any]:
        """(dates, ny, nx) of an array as stored, at places along the earlier axis."""
        source = cube.array(self.store, INPUTS, f"{group.name}/{name}")
        rows, columns = tile.roi(group.resolution)
        low, high = min(dates), max(dates) + 1  # a shard is read as one, so neighbours cost nothing
        return np.asarray(source[low:high, rows, columns])[[d - low for d in dates]]


def earlier(store: Store, plan: Plan, items: Items, rules: Rules) -> Earlier | None:
    """What can be taken over from the plan before; None where there was none, or it read by other rules.

    `rules(plan)`: all that shapes the inputs of every tile beside scenes and items. Found out once a plan.
    """
    global _last
    last = _last
    if last is not None and last[0] is plan and last[1] == store.url:
        return last[2]
    found = _found(store, plan, items, rules)
    _last = plan, store.url, found
    return found


_last: tuple[Plan, str, Earlier | None] | None = None


def _found(store: Store, plan: Plan, items: Items, rules: Rules) -> Earlier | None:
    before = Store(store.join(EARLIER))
    text, told = before.read(PLAN), before.read(ITEMS)
    if not text or not told:
        return None
    old = parsed(text, before.join(PLAN))
    if rules(old) != rules(plan):
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pystac warns about hrefs its storage extension cannot parse
        old_items = {item.id: item for item in pystac.ItemCollection.from_dict(json.loads(told))}
    places = {}
    for group in cube.groups(plan):
        if group not in cube.groups(old):
            continue
        there = {b: k for k, b in enumerate(bases(old, cube.group_scenes(old, group), old_items))}
        now = bases(plan, cube.group_scenes(plan, group), items)
        places[group.name] = {k: there[b] for k, b in enumerate(now) if b in there}
    return Earlier(old, before, places)
