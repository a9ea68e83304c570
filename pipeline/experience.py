"""What a finished run tells of how long the next one will take: its ledger's timings over its work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

import pystac

from pipeline import calibration, ledger
from pipeline.errors import CubeError
from pipeline.ledger import Record
from pipeline.methods import patch_side
from pipeline.outlook import outlook
from pipeline.plan import Plan
from pipeline.store import Store

LEAST_S = 10.0
"""Seconds of work under which a stage tells more of its beginning than of its rate."""


def remember(plan: Plan, store: Store, items: Mapping[str, pystac.Item], cluster: str | None = None) -> None:
    """Keep the rates of a run that is complete, for the estimates of plans to come on the same `cluster`."""
    ingested, fused = (_records(plan, store, stage) for stage in ("ingest", "fuse"))
    if len(ingested) < len(plan.tiles) or len(fused) < len(plan.tiles):
        return
    last = max(record.written for record in fused)
    read, patches = outlook(plan, items.values()).read_mb, sum(int(r.stats.get("patches", 0)) for r in fused)
    calibration.learn(
        plan,
        cluster or "",
        rate(read, ingested),
        rate(patches * patch_side(plan) ** 2, fused),
        f"{plan.fingerprint[:16]} {last}",
    )


def rate(amount: float, records: Sequence[Record]) -> float | None:
    """`amount` over the seconds in which a tile was in work; None where these are too few or nothing was done."""
    seconds = busy(records)
    return amount / seconds if seconds >= LEAST_S and amount else None


def busy(records: Sequence[Record]) -> float:
    """Seconds in which at least one of the tiles was in work: interruptions of the run do not count."""
    spans = sorted((end - r.seconds, end) for r in records if r.written for end in [_stamp(r)])
    total, until = 0.0, float("-inf")
    for begin, end in spans:
        total += max(0.0, end - max(begin, until))
        until = max(until, end)
    return total


def _stamp(record: Record) -> float:
    return datetime.fromisoformat(record.written).timestamp()


def _records(plan: Plan, store: Store, stage: str) -> list[Record]:
    out = []
    for tile in plan.tiles:
        try:
            record = ledger.read(store, "ingest" if stage == "ingest" else "fuse", tile.name)
        except CubeError:
            continue
        if record is not None:
            out.append(record)
    return out
