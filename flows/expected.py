"""Errors in words stay in words: what Prefect would log of them as tracebacks is left out of a run's log."""

from __future__ import annotations

import logging

from pipeline.errors import MarstfnError

LOGGERS = ("prefect.engine", "prefect.flow_runs", "prefect.task_runs")
"""Where Prefect's engines report the exception that ended a task or a flow, each anew and with its whole chain."""


class InWords(logging.Filter):
    """Drops records that carry a MarstfnError's traceback, unless the logger is to say everything (DEBUG).

    The flow itself has logged the error in one line, and the state's message holds it.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        return not isinstance(error, MarstfnError) or logging.getLogger(record.name).isEnabledFor(logging.DEBUG)


def keep_in_words() -> None:
    """Let the loggers of Prefect's engines in this process be free of such tracebacks; twice does no harm."""
    for name in LOGGERS:
        logger = logging.getLogger(name)
        if not any(isinstance(known, InWords) for known in logger.filters):
            logger.addFilter(InWords())
