"""What is done: one small object a stage and tile, written after the tile's shards."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from pipeline.errors import CubeError
from pipeline.store import LEDGER, Store

log = logging.getLogger(__name__)

Stage = Literal["ingest", "fuse", "mine"]
ABSENT = "absent"
"""Checksum of a shard that is fill throughout: Zarr stores no object for it."""


READERS, AHEAD = 16, 512
"""Records read at once, and at most held until they are asked for: a distant store answers each in tens of
milliseconds."""


@dataclass(frozen=True, slots=True)
class Record:
    """One tile of one stage, finished."""

    stage: Stage
    tile: str
    fingerprint: str
    """Of everything that shaped its pixels."""
    checksums: dict[str, str]
    """By object name in the store: BLAKE2b-256 of its bytes, or `absent`."""
    stats: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    timings: dict[str, float] = field(default_factory=dict)
    """Seconds by phase."""
    written: str = ""
    """When, ISO 8601, UTC."""
    sizes: dict[str, int] = field(default_factory=dict)
    """Bytes by object name, so that a lost or cut object is seen without reading; empty in records of old."""


def name(stage: Stage, tile: str) -> str:
    """Name in the store of a tile's record."""
    return f"{LEDGER}/{stage}/{tile}.json"


def write(store: Store, record: Record) -> None:
    """Enter a tile; to be called when all its shards are stored. Raises StoreError."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    sizes = {entry: size for entry in record.checksums if (size := store.size(entry)) is not None}
    text = json.dumps({**asdict(record), "written": now, "sizes": sizes}, sort_keys=True, allow_nan=False)
    store.write(name(record.stage, record.tile), text.encode())


def read(store: Store, stage: Stage, tile: str) -> Record | None:
    """The record of a tile, or None. Raises CubeError where it cannot be understood."""
    data = store.read(name(stage, tile))
    if data is None:
        return None
    try:
        record = Record(**json.loads(data))
        _check_types(record)
        return record
    except (ValueError, TypeError) as error:
        where = store.join(name(stage, tile))
        raise CubeError(f"{where} is not a ledger record ({error}); delete it and the tile is made again") from error


def each(store: Store, stage: Stage, tiles: Sequence[str]) -> Iterator[Record | CubeError | None]:
    """Of each tile in turn its record, None where it has none, or what is wrong with one that cannot be understood.

    One listing tells which there are, and these are read many at a time. Raises StoreError.
    """
    there = store.sizes(f"{LEDGER}/{stage}")

    def one(tile: str) -> Record | CubeError | None:
        if name(stage, tile) not in there:
            return None
        try:
            return read(store, stage, tile)
        except CubeError as error:
            return error

    with ThreadPoolExecutor(READERS, thread_name_prefix="ledger") as pool:
        for first in range(0, len(tiles), AHEAD):
            yield from pool.map(one, tiles[first : first + AHEAD])


def unfinished(store: Store, stage: Stage, prints: Mapping[str, str], there: Mapping[str, int]) -> list[str]:
    """The tiles of `prints` (fingerprint by tile, in order) that are not `done`; `there`: sizes of the stage's cube."""
    out = []
    for tile, found in zip(prints, each(store, stage, list(prints)), strict=True):
        if isinstance(found, CubeError):
            log.warning("%s", found)
        if not isinstance(found, Record) or found.fingerprint != prints[tile] or lost(store, found, there):
            out.append(tile)
    return out


def done(store: Store, stage: Stage, tile: str, fingerprint: str, there: Mapping[str, int] | None = None) -> bool:
    """Whether a tile was finished from these very inputs and what it left is still there.

    `there`: Store.sizes of the stage's cube, where many tiles are asked for; None: the store is asked for each object.
    A record that cannot be understood is none: its tile is made again.
    """
    try:
        record = read(store, stage, tile)
    except CubeError as error:
        log.warning("%s", error)
        return False
    return record is not None and record.fingerprint == fingerprint and not lost(store, record, there)


def lost(store: Store, record: Record, there: Mapping[str, int] | None = None) -> list[str]:
    """Objects of a record that are gone from the store or have another length, without reading them."""
    out = []
    for entry, checksum in record.checksums.items():
        if checksum == ABSENT:
            continue
        size = store.size(entry) if there is None else there.get(entry)
        if size is None or size != record.sizes.get(entry, size):
            out.append(entry)
    return out


def _check_types(record: Record) -> None:
    """Raise TypeError where a field has another type than a record's: JSON of the right names may hold anything."""
    kinds = {"stage": str, "tile": str, "fingerprint": str, "written": str, "checksums": dict, "stats": dict}
    kinds |= {"seconds": int | float, "timings": dict, "sizes": dict}  # type: ignore[dict-item]
    for name, kind in kinds.items():
        value = getattr(record, name)
        if not isinstance(value, kind):
            raise TypeError(f"{name} is a {type(value).__name__}")
    if not all(isinstance(checksum, str) for checksum in record.checksums.values()):
        raise TypeError("checksums are not all text")
    if record.written and datetime.fromisoformat(record.written).tzinfo is None:
        raise ValueError(f"written has no time zone: {record.written}")


def clear(store: Store, stage: Stage) -> None:
    """Forget a stage: its cube was made anew."""
    for entry in store.names(f"{LEDGER}/{stage}"):
        store.delete(entry)


def checksum(store: Store, names: Iterable[str]) -> dict[str, str]:
    """BLAKE2b-256 of the stored bytes of each object, `absent` for what is not there."""
    out = {}
    for entry in names:
        data = store.read(entry)
        out[entry] = ABSENT if data is None else hashlib.blake2b(data, digest_size=32).hexdigest()
    return out
