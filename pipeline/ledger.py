"""What is done: one small object a stage and tile, written after the tile's shards."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from pipeline.errors import CubeError
from pipeline.store import LEDGER, Store

Stage = Literal["ingest", "fuse", "mine"]
ABSENT = "absent"
"""Checksum of a shard that is fill throughout: Zarr stores no object for it."""


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


def name(stage: Stage, tile: str) -> str:
    """Name in the store of a tile's record."""
    return f"{LEDGER}/{stage}/{tile}.json"


def write(store: Store, record: Record) -> None:
    """Enter a tile; to be called when all its shards are stored. Raises StoreError."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    text = json.dumps({**asdict(record), "written": now}, sort_keys=True, allow_nan=False)
    store.write(name(record.stage, record.tile), text.encode())


def read(store: Store, stage: Stage, tile: str) -> Record | None:
    """The record of a tile, or None. Raises CubeError where it cannot be understood."""
    data = store.read(name(stage, tile))
    if data is None:
        return None
    try:
        return Record(**json.loads(data))
    except (ValueError, TypeError) as error:
        where = store.join(name(stage, tile))
        raise CubeError(f"{where} is not a ledger record ({error}); delete it and the tile is made again") from error


def done(store: Store, stage: Stage, tile: str, fingerprint: str) -> bool:
    """Whether a tile was finished from these very inputs."""
    record = read(store, stage, tile)
    return record is not None and record.fingerprint == fingerprint


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
