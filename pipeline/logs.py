"""The log of a run: one file, every line with the run's id and, where there is one, the tile's name."""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from pipeline.errors import StoreError

OURS = ("marstfn", "pipeline", "flows")
"""The loggers whose records belong in a run's log."""

FORMAT = "%(asctime)s %(levelname)-7s run=%(run)s tile=%(tile)s %(name)s: %(message)s"

_tile: ContextVar[str] = ContextVar("marstfn_tile", default="-")
_install = threading.Lock()


@contextmanager
def tile(name: str) -> Iterator[None]:
    """Within this context every record of this thread carries the tile's `name`, also when Dask forwards it."""
    _stamp_records()
    token = _tile.set(name)
    try:
        yield
    finally:
        _tile.reset(token)


@contextmanager
def to_file(path: Path, run: str, level: int = logging.INFO) -> Iterator[Path]:
    """Append what `marstfn`, `pipeline` and `flows` log at `level` or above to `path`, each line stamped with `run`.

    Raises StoreError where the file cannot be opened.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handler = _File(path, encoding="utf-8")
    except OSError as error:
        raise StoreError(
            f"cannot write the log {path}: {error}; the run was not started. Name another file (--log)"
        ) from error
    handler.setLevel(level)
    handler.addFilter(_Stamp(run))
    handler.setFormatter(_formatter())
    loggers = [logging.getLogger(name) for name in OURS]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
        if logger.getEffectiveLevel() > level:
            logger.setLevel(level)
    # the cluster's own complaints (lost workers, memory) explain many a failed tile
    cluster, relay = logging.getLogger("distributed"), _Relay(handler)
    quiet, others = cluster.level, {other: other.level for other in cluster.handlers}
    # a terminal that is to stay quiet silences the logger itself: its handlers do as well, and leave the file its own
    for other, least in others.items():
        other.setLevel(max(least, quiet))
    cluster.setLevel(min(quiet or logging.WARNING, logging.WARNING))
    cluster.addHandler(relay)
    try:
        yield path
    finally:
        cluster.removeHandler(relay)
        cluster.setLevel(quiet)
        for other, least in others.items():
            other.setLevel(least)
        for logger, old in zip(loggers, before, strict=True):
            logger.removeHandler(handler)
            logger.setLevel(old)
        with contextlib.suppress(OSError):  # what a full disk did not take
            handler.close()


def forward(client: Any, level: int = logging.INFO) -> None:
    """Bring the records of `pipeline` on the workers of the Dask `client` to this process, tile names included."""
    from distributed.diagnostics.plugin import WorkerPlugin

    class Level(WorkerPlugin):  # type: ignore[misc]  # distributed is untyped
        name = "marstfn-logs"

        def setup(self, worker: Any) -> None:
            import logging

            logging.getLogger("pipeline").setLevel(level)

    client.register_plugin(Level())
    client.forward_logging("pipeline", level=level)


class _File(logging.FileHandler):
    """A file on a disk that may be full: the run itself says so, not each line of its log with a traceback."""

    def handleError(self, record: logging.LogRecord) -> None:
        if not isinstance(sys.exception(), OSError):
            super().handleError(record)


class _Relay(logging.Handler):
    """Hands warnings on. A cluster that silences its logs raises the level of every stream handler on its logger,
    and the file's own would stay mute for all."""

    def __init__(self, target: logging.Handler) -> None:
        super().__init__(logging.WARNING)
        self.target = target

    def emit(self, record: logging.LogRecord) -> None:
        self.target.handle(record)


class _Stamp(logging.Filter):
    """Gives every record a run and a tile, keeping the tile it was born with."""

    def __init__(self, run: str) -> None:
        super().__init__()
        self.run = run

    def filter(self, record: logging.LogRecord) -> bool:
        record.run = self.run
        if not hasattr(record, "tile"):
            record.tile = _tile.get()
        return True


def _formatter() -> logging.Formatter:
    formatter = logging.Formatter(FORMAT, "%Y-%m-%dT%H:%M:%SZ")
    formatter.converter = time.gmtime
    return formatter


def _stamp_records() -> None:
    """Let records remember the tile they were made in: a filter on arrival would look in the wrong process."""
    with _install:
        made = logging.getLogRecordFactory()
        if getattr(made, "stamps_tile", False):
            return

        def factory(*args: Any, **kwargs: Any) -> logging.LogRecord:
            record = made(*args, **kwargs)
            record.tile = _tile.get()
            return record

        factory.stamps_tile = True  # type: ignore[attr-defined]
        logging.setLogRecordFactory(factory)
