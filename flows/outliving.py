"""A run outlives the worker that started it: what it says then is heard by nobody, and that is no reason to end."""

from __future__ import annotations

import contextlib
import logging
from typing import TextIO

from prefect.logging.handlers import PrefectConsoleHandler


class Steady:
    """A text stream whose reader may go away: what is written then is lost without a word."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write, or lose, `text`; its length."""
        with contextlib.suppress(BrokenPipeError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush where somebody still reads."""
        with contextlib.suppress(BrokenPipeError):
            self._stream.flush()

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)


def outlive_worker() -> None:
    """Let Prefect's console handlers in this process survive the end of whoever reads them; twice does no harm.

    The worker reads a run's output through a pipe. Once it is killed, the next line of the log would raise SystemExit
    in the middle of the run (rich.console.Console.on_broken_pipe).
    """
    named = [logger for logger in logging.Logger.manager.loggerDict.values() if isinstance(logger, logging.Logger)]
    for logger in (logging.getLogger(), *named):
        for handler in logger.handlers:
            if isinstance(handler, PrefectConsoleHandler) and not isinstance(handler.console.file, Steady):
                handler.console.file = Steady(handler.console.file)  # type: ignore[arg-type, assignment]
