"""The evaluation from request to report, for the flow and the command line alike."""

from __future__ import annotations

import time
from pathlib import Path

from flows import work
from flows.work import Step, plainly
from pipeline import examination, job, logs
from pipeline.errors import CubeError
from pipeline.events import Event, Listener, Note
from pipeline.examination import Examination, Examined
from pipeline.page import Findings
from pipeline.request import Request


def examine(
    exam: Examination,
    request: Request | None,
    run: str,
    listener: Listener,
    *,
    log_file: Path | None = None,
    step: Step = plainly,
) -> Examined:
    """Do the evaluation that `exam` asks for and return what it made; an area is first read and harmonised as `request`
    has it, into the store that a run would use, too.

    Raises MarstfnError in words; what was read stays.
    """
    began = time.monotonic()
    if request is not None:
        with work.begun(
            lambda ear: examination.prepare(request, ear), run, listener, log_file=log_file, step=step
        ) as begun:
            made, hear = begun
            with work.connected(request.scheduler, "cpu", hear) as client:
                step("ingest", lambda: job.ingest(made, client, hear))
                step("harmonise", lambda: job.harmonise(made, client, hear))
            # the cluster is gone: the machine is the methods'
            title = f"Comparison of fusion methods: {made.plan.name} {made.plan.year}"
            return _stages(exam, hear, began, step, (made.store.url, title, request))

    def hear_and_write(event: Event) -> None:
        work.write_down(event)
        listener(event)

    if log_file is None:
        return _stages(exam, listener, began, step)
    with logs.to_file(log_file, run):
        hear_and_write(Note("log", str(log_file)))
        with work.endings():
            return _stages(exam, hear_and_write, began, step)


def _stages(
    exam: Examination, hear: Listener, began: float, step: Step, area: tuple[str, str, Request] | None = None
) -> Examined:
    """`area`: the store that an area was read into, the report's title, and as which it was read."""
    store, title, request = area or (None, "", None)

    def compared(asked: Examination) -> Findings:
        return examination.gathered(asked, examination.contest(asked, hear, store=store))

    def contest() -> Findings:
        if store is None or exam.protocol != "auto":
            return compared(exam)
        try:
            return compared(exam)
        except CubeError as error:
            hear(Note("warning", f"{error}; going on at reduced resolution, where Landsat at 30 m is the truth"))
            return compared(exam.model_copy(update={"protocol": "reduced"}))

    findings = step("compare", contest)
    made: Examined = step(
        "report",
        lambda: examination.report(exam, findings, hear, store=store, began=began, title=title, request=request),
    )
    return made
