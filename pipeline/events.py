"""What a run says while it works; the command line, the flow and the log each listen in their own way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class StageStarted:
    """A stage begins: `total` tiles (or what `unit` says), of which `skipped` are already done."""

    stage: str
    total: int
    skipped: int = 0
    unit: str = "tiles"


@dataclass(frozen=True, slots=True)
class StageMoved:
    """A stage that is no matter of tiles has come to `done` of its `total`; `text` says how it stands."""

    stage: str
    done: int
    total: int
    text: str


@dataclass(frozen=True, slots=True)
class TileDone:
    """One tile of a stage is in the ledger."""

    stage: str
    tile: str
    seconds: float
    timings: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TileFailed:
    """One tile of a stage failed for good; `error` says why in words."""

    stage: str
    tile: str
    error: str


@dataclass(frozen=True, slots=True)
class StageDone:
    """A stage has ended."""

    stage: str
    seconds: float
    done: int
    failed: int


@dataclass(frozen=True, slots=True)
class Note:
    """Something a person should know: `kind` names it (`dashboard`, `plan`, `pairs`, `quicklook`, `warning`, ...)."""

    kind: str
    text: str
    data: Any = None


Event = StageStarted | StageMoved | TileDone | TileFailed | StageDone | Note
Listener = Callable[[Event], None]


def silent(event: Event) -> None:
    """Listen to nothing."""


def counted(number: int, name: str) -> str:
    """A number of things as people say it: `1 item`, `2 items`."""
    return f"{number} {name}" + ("" if number == 1 else "s")
