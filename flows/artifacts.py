"""What the Prefect page shows of a run while it works: progress, dashboard, scenes and pairs, failures, pictures."""

import base64
import contextvars
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast
from uuid import UUID

from prefect.artifacts import (
    create_image_artifact,
    create_link_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)

from flows.commands.jobs import described
from pipeline.events import Event, Note, StageDone, StageMoved, StageStarted, TileDone, TileFailed
from pipeline.plan import Plan
from pipeline.store import Store

log = logging.getLogger(__name__)

PAUSE = 2.0
"""Seconds between two updates of one progress bar: each is a write to the server's database."""

IMAGE_LIMIT = 4_000_000
"""Bytes of a picture that is put into an artifact; a larger one is named by its path."""


class Board:
    """A listener that publishes events as artifacts of the flow run it was made in.

    Their keys begin with the flow's name. It may be called from any thread. An artifact that cannot be published is a
    warning in the log, never a failed run.
    """

    def __init__(self, flow: str = "fuse-year") -> None:
        self._flow = flow
        self._context = contextvars.copy_context()
        self._lock = threading.Lock()
        self._bars: dict[str, _Bar] = {}
        self._failed: list[dict[str, str]] = []
        self._told = 0
        self._plan: Plan | None = None

    def __call__(self, event: Event) -> None:
        with self._lock:
            try:
                self._context.run(self._publish, event)
            except Exception as error:
                log.warning("the Prefect page misses an update (%s): %s", type(event).__name__, error)

    def _publish(self, event: Event) -> None:
        match event:
            case StageStarted():
                self._bars[event.stage] = _Bar(f"{self._flow}-{event.stage}", event)
            case StageMoved():
                if bar := self._bars.get(event.stage):
                    bar.move(event)
            case TileDone():
                if bar := self._bars.get(event.stage):
                    bar.step()
            case TileFailed():
                self._failed.append({"stage": event.stage, "tile": event.tile, "why": event.error})
                if len(self._failed) == 1:
                    self._failures()
            case StageDone():
                if bar := self._bars.get(event.stage):
                    bar.end(event)
                if len(self._failed) > self._told:
                    self._failures()
            case Note(kind="pairs"):
                self._pairs(event)
            case Note():
                if isinstance(event.data, Plan):
                    self._plan = event.data
                if publish := _NOTES.get(event.kind):
                    publish(event, f"{self._flow}-{event.kind}")

    def _failures(self) -> None:
        count = self._told = len(self._failed)
        remedy = "Run again with the same parameters: finished tiles are kept."
        create_table_artifact(
            table=self._failed[-200:], key=f"{self._flow}-failed-tiles", description=f"{count} tiles failed. {remedy}"
        )

    def _pairs(self, note: Note) -> None:
        if self._plan is not None:
            create_table_artifact(table=pairs(self._plan, note.data), key=f"{self._flow}-pairs", description=note.text)


class _Bar:
    """The progress of one stage."""

    def __init__(self, key: str, event: StageStarted) -> None:
        self.stage, self.total, self.done, self.unit = event.stage, event.total, event.skipped, event.unit
        self.id = cast(UUID, create_progress_artifact(self._share, key, self._text))
        self.shown = time.monotonic()

    def step(self) -> None:
        self.done += 1
        if time.monotonic() - self.shown >= PAUSE or self.done == self.total:
            self.show(self._text)

    def move(self, event: StageMoved) -> None:
        self.done, self.total = event.done, event.total
        if time.monotonic() - self.shown >= PAUSE or self.done == self.total:
            self.show(f"{self._text}, {event.text}")

    def end(self, event: StageDone) -> None:
        failed = f", {event.failed} failed" if event.failed else ""
        self.show(f"{self._text}{failed}, {event.seconds:.0f} s")

    def show(self, text: str) -> None:
        update_progress_artifact(self.id, self._share, text)
        self.shown = time.monotonic()

    @property
    def _share(self) -> float:
        return 100.0 * self.done / self.total if self.total else 100.0

    @property
    def _text(self) -> str:
        return f"{self.stage}: {self.done} of {self.total} {self.unit}"


def _dashboard(note: Note, key: str) -> None:
    create_link_artifact(
        str(note.data or note.text),
        link_text="Dask dashboard",
        key=key,
        description="Tiles at work, by name, while the run lasts",
    )


def _table(note: Note, key: str) -> None:
    create_table_artifact(table=rows(note.data), key=key, description=note.text)


def _picture(note: Note, key: str) -> None:
    folder, _, name = str(note.data).rpartition("/")
    data = Store(folder).read(name)
    if data is None or len(data) > IMAGE_LIMIT:
        create_markdown_artifact(f"{note.text}: `{note.data}`", key=key)
    else:
        text = base64.b64encode(data).decode()
        create_image_artifact(f"data:image/png;base64,{text}", key=key, description=note.text)


def rows(data: Any) -> list[dict[str, Any]]:
    """`data`, a sequence of mappings or of frozen records, as rows that fit a table artifact."""
    if not isinstance(data, Sequence):
        return []
    return [
        {str(k): v if isinstance(v, str | int | float | None) else str(v) for k, v in _mapping(row).items()}
        for row in data
    ]


def pairs(plan: Plan, found: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """A row a Landsat date: the Sentinel-2 days that may serve it, the best first."""
    landsat, sentinel2 = plan.of("landsat8"), plan.of("sentinel2")
    table = []
    for pair in found:
        days = [
            f"{sentinel2[k].day} ({age:+d} d, {100 * clear:.0f} % clear)"
            for k, age, clear in zip(pair["references"], pair["days"], pair["clear"], strict=True)
        ]
        table.append({"Landsat 8": landsat[pair["landsat"]].day.isoformat(), "references": ", ".join(days) or "none"})
    return table


def _mapping(row: Any) -> Mapping[str, Any]:
    if isinstance(row, Mapping):
        return row
    names = getattr(row, "__dataclass_fields__", None)
    return {name: getattr(row, name) for name in names} if names else {"value": row}


def _plan(note: Note, key: str) -> None:
    if isinstance(note.data, Plan):
        lines = described(note.data)
        body = "\n".join(lines)
        create_markdown_artifact(f"{note.text}\n\n```\n{body}\n```\n", key=key)


def _cube(note: Note, key: str) -> None:
    text = f"""# Finished

`{note.text}`

```python
import xarray as xr
ds = xr.open_zarr("{note.text}")
```
"""
    create_markdown_artifact(text, key=key)


def _verdicts(note: Note, key: str) -> None:
    # the key by itself is that of the stage's progress
    _table(note, f"{key}-verdicts")


def _text(note: Note, key: str) -> None:
    create_markdown_artifact(note.text, key=key)


def _weights(note: Note, key: str) -> None:
    text = f"# Trained\n\n`{note.text}`\n\n```sh\n{note.data}\n```\n"
    create_markdown_artifact(text, key=key)


_NOTES: dict[str, Callable[[Note, str], None]] = {
    "dashboard": _dashboard,
    "plan": _plan,
    "scenes": _table,
    "gate": _verdicts,
    "quicklook": _picture,
    "ndvi": _picture,
    "cube": _cube,
    "samples": _text,
    "curve": _picture,
    "validations": _table,
    "scores": _table,
    "evaluation": _text,
    "weights": _weights,
}
