"""What a person at a terminal sees of a run: progress bars, the notes that matter, errors in words."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from pipeline.events import Event, Note, StageDone, StageMoved, StageStarted, TileDone, TileFailed

NORMAL = frozenset({"area", "plan", "update", "catalog", "gate", "protocol", "retries", "samples"})
"""Notes shown as they are at ordinary verbosity; `-v` shows all, `-q` warnings alone."""

PAUSE = 15.0
"""Seconds between two lines of progress where the output is no terminal."""


class Display:
    """A listener that draws: one bar a stage on a terminal, a line now and then elsewhere. Use as a context."""

    def __init__(self, console: Console, verbosity: int = 0) -> None:
        self.console, self.verbosity = console, verbosity
        self._lock = threading.Lock()
        self._bars: dict[str, TaskID] = {}
        self._stages: dict[str, _Count] = {}
        self._progress = Progress(
            TextColumn("  {task.description:<10}"),
            BarColumn(bar_width=32),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[text]}"),
            console=console,
            disable=verbosity < 0 or not console.is_terminal,
        )

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def __call__(self, event: Event) -> None:
        with self._lock:
            match event:
                case StageStarted():
                    self._begin(event)
                case StageMoved():
                    self._move(event)
                case TileDone():
                    self._step(event)
                case TileFailed():
                    self.say(f"[red]failed[/] {event.stage} {event.tile}: {_plain(event.error)}", always=True)
                case StageDone():
                    self._end(event)
                case Note():
                    self._note(event)

    @contextmanager
    def counting(self, what: str) -> Iterator[Callable[[int, int], None]]:
        """A bar for work that counts itself: call the yielded function with (done, total)."""
        task = self._progress.add_task(what, total=None, text="")

        def progress(done: int, total: int) -> None:
            self._progress.update(task, completed=done, total=total)

        yield progress

    def say(self, text: str, *, always: bool = False) -> None:
        """One line above the bars."""
        if always or self.verbosity >= 0:
            self._progress.console.print(text, highlight=False, soft_wrap=True)

    def _begin(self, event: StageStarted) -> None:
        self._stages[event.stage] = _Count(event.total, event.skipped, time.monotonic(), event.unit)
        self._bars[event.stage] = self._progress.add_task(
            event.stage, total=event.total, completed=event.skipped, text=""
        )
        if event.skipped:
            self.say(f"{event.stage}: {event.skipped} of {_units(event.total, event.unit)} are done already")

    def _move(self, event: StageMoved) -> None:
        self._progress.update(self._bars[event.stage], completed=event.done, total=event.total, text=event.text)
        count = self._stages[event.stage]
        if not self.console.is_terminal and (time.monotonic() - count.told >= PAUSE or event.done == event.total):
            count.told = time.monotonic()
            self.say(f"{event.stage}: {event.done} of {_units(event.total, count.unit)}, {event.text}")

    def _step(self, event: TileDone) -> None:
        self._progress.advance(self._bars[event.stage])
        count = self._stages[event.stage]
        count.done += 1
        if self.verbosity > 0:
            self.say(f"[dim]{event.stage} {event.tile} {event.seconds:.1f} s[/]")
        elif not self.console.is_terminal and time.monotonic() - count.told >= PAUSE and count.done < count.total:
            count.told = time.monotonic()
            self.say(f"{event.stage}: {count.done} of {count.total} tiles")

    def _end(self, event: StageDone) -> None:
        failed = f", [red]{event.failed} failed[/]" if event.failed else ""
        if not self.console.is_terminal or event.failed:
            self.say(
                f"{event.stage}: {_units(event.done, self._stages[event.stage].unit)} in {event.seconds:.1f} s{failed}"
            )

    def _note(self, note: Note) -> None:
        if note.kind == "warning":
            self.say(f"[yellow]note[/] {_plain(note.text)}", always=True)
        elif note.kind == "dashboard":
            self.say(f"Dask dashboard: [link={note.text}]{note.text}[/link]")
        elif note.kind in ("store", "log"):
            self.say(f"{note.kind}: {_plain(note.text)}")
        elif note.kind in NORMAL or self.verbosity > 0:
            self.say(_plain(note.text))


class _Count:
    def __init__(self, total: int, done: int, told: float, unit: str) -> None:
        self.total, self.done, self.told, self.unit = total, done, told, unit


def table(title: str, rows: list[dict[str, str]], *, right: frozenset[str] = frozenset()) -> Table:
    """A table with the keys of the first row as columns; those in `right` are flush right."""
    drawn = Table(title=title, title_justify="left", title_style="bold", header_style="bold", box=None, pad_edge=False)
    for name in rows[0] if rows else ():
        drawn.add_column(name, justify="right" if name in right else "left", no_wrap=True)
    for row in rows:
        drawn.add_row(*row.values())
    return drawn


def quieten(verbosity: int) -> None:
    """Let the libraries' own logging through only where a person asked for it."""
    level = logging.ERROR if verbosity < 1 else logging.WARNING if verbosity < 2 else logging.INFO
    for name in ("distributed", "rasterio", "botocore", "prefect", "urllib3", "pystac_client", "odc"):
        logging.getLogger(name).setLevel(level)


def _units(number: int, unit: str) -> str:
    return f"{number} {unit.removesuffix('s') if number == 1 else unit}"


def _plain(text: str) -> str:
    """`text` with square brackets that are no markup."""
    return text.replace("[", "\\[")
