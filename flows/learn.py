"""The training from request to weights, for the flow and the command line alike: stages, cluster and log."""

from __future__ import annotations

import logging
import time
from contextlib import ExitStack
from pathlib import Path

from flows import work
from flows.work import Step, plainly
from pipeline import cluster, fitting, hosts, job, logs, settings, training
from pipeline.events import Event, Listener, Note
from pipeline.fitting import Taught
from pipeline.lesson import Course
from pipeline.training import Mine

log = logging.getLogger(__name__)


def learn(
    course: Course, run: str, listener: Listener, *, log_file: Path | None = None, step: Step = plainly
) -> Taught:
    """Do the training that `course` asks for and return what it made; `run` names it in its log.

    `log_file` None: `logs/RUN.log` in the store. Raises MarstfnError in words; finished tiles, samples and checkpoints
    stay.
    """
    began = time.monotonic()

    def hear(event: Event) -> None:
        work.write_down(event)
        listener(event)

    with ExitStack() as stack:
        if log_file is not None:
            stack.enter_context(logs.to_file(log_file, run))
        made = step("plan", lambda: work.prepared(lambda ear: training.prepare(course, ear), hear))
        stack.enter_context(job.alone(made.store))
        path = log_file or work.log_path(made.store, run)
        if log_file is None:
            stack.enter_context(logs.to_file(path, run))
        hear(Note("log", str(path)))
        log.info("training on %s %d, plan %s", made.plan.name, made.plan.year, made.plan.fingerprint)
        stack.enter_context(hosts.announced(listener))
        with work.endings():
            with ExitStack() as started:
                # nothing is fused: the worker that stands in for a device needs none
                connected = cluster.connect(course.request.scheduler, device="cpu", defaults=settings.load())
                with work.interrupts_held():
                    client = started.enter_context(connected)
                logs.forward(client)
                hear(Note("dashboard", client.dashboard_link))
                step("ingest", lambda: job.ingest(made, client, hear))
                step("harmonise", lambda: job.harmonise(made, client, hear))
                found: Mine = step("mine", lambda: training.mine(made, course, client, hear))
            # the cluster is gone: the machine is the network's
            best = step("train", lambda: fitting.fit(made, course, found, hear))
            taught: Taught = step("report", lambda: fitting.report(made, course, found, best, hear, began=began))
    return taught
