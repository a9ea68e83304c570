"""Tiles that are read once more after something was made of them: where other pixels come of it, that is made anew.

A shard may have been damaged, or a file of the catalogue replaced, while plan and fingerprints are the same.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping, Sequence

from pipeline import audit, harmonise, ledger
from pipeline.errors import CubeError
from pipeline.grid import Tile
from pipeline.plan import Plan
from pipeline.registered import MARGIN
from pipeline.store import LEDGER, Store

log = logging.getLogger(__name__)

NAME = f"{LEDGER}/reread.json"
"""By tile, the checksums of the inputs that something was made of; null where they are not known."""


def begin(store: Store, todo: Sequence[Tile]) -> None:
    """Note what the tiles `todo` held before they are read anew; nothing where nothing was made of any tile yet."""
    if not todo or not (_made(store) or store.size(harmonise.NAME) is not None):
        return
    held = _held(store)
    for tile in todo:
        held.setdefault(tile.name, _checksums(store, tile.name))
    store.write(NAME, json.dumps(held, sort_keys=True).encode())


def settle(plan: Plan, store: Store) -> tuple[str, ...]:
    """Forget what was made of tiles that hold other pixels now, once all are read: of the whole area the fits, the
    audit and the gate, and the fused tiles whose window reaches into one. Names of the tiles that do."""
    held = _held(store)
    changed = tuple(name for name, before in held.items() if before is None or before != _checksums(store, name))
    if changed:
        from pipeline import gate  # brings torch, which the many runs that read nothing anew have no use for here

        for name in (harmonise.NAME, audit.NAME, gate.NAME):
            store.delete(name)
        gone = _around(plan, frozenset(changed), _made(store))
        for name in gone:
            store.delete(ledger.name("fuse", name))
        log.warning(
            "tiles %s hold other pixels than before: %d fused tiles are made anew", ", ".join(changed), len(gone)
        )
    if held:
        store.delete(NAME)
    return changed


def _around(plan: Plan, changed: frozenset[str], made: Iterable[str]) -> list[str]:
    """Of the tiles `made` those that see a changed one."""
    from pipeline.frame import frame_of

    there = set(made)
    return [
        tile.name
        for tile in plan.tiles
        if ledger.name("fuse", tile.name) in there
        and any(other.name in changed for other in plan.grid.under(frame_of(plan, tile).window.padded(MARGIN)))
    ]


def _made(store: Store) -> list[str]:
    return store.names(f"{LEDGER}/fuse")


def _held(store: Store) -> dict[str, Mapping[str, str] | None]:
    try:
        found = json.loads(store.read(NAME) or b"{}")
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise CubeError(
            f"{store.join(NAME)} is damaged, so what was made of tiles that are read anew cannot be told; nothing was "
            f"made. Delete it and the folder {store.join(f'{LEDGER}/fuse')}, and run again: all tiles are fused anew"
        )
    return found


def _checksums(store: Store, tile: str) -> Mapping[str, str] | None:
    try:
        record = ledger.read(store, "ingest", tile)
    except CubeError:
        return None
    return None if record is None else record.checksums
