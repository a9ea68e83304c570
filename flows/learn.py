"""The training from request to weights, for the flow and the command line alike: stages, cluster and log."""

from __future__ import annotations

import time
from pathlib import Path

from flows import work
from flows.work import Step, plainly
from pipeline import fitting, job, training
from pipeline.events import Listener
from pipeline.fitting import Taught
from pipeline.lesson import Course
from pipeline.training import Mine


def learn(
    course: Course, run: str, listener: Listener, *, log_file: Path | None = None, step: Step = plainly
) -> Taught:
    """Do the training that `course` asks for and return what it made; `run` names it in its log.

    `log_file` None: `logs/RUN.log` in the store. Raises MarstfnError in words; finished tiles, samples and checkpoints
    stay.
    """
    began = time.monotonic()
    with work.begun(lambda ear: training.prepare(course, ear), run, listener, log_file=log_file, step=step) as begun:
        made, hear = begun
        # nothing is fused: the worker that stands in for a device needs none
        with work.connected(course.request.scheduler, "cpu", hear) as client:
            step("ingest", lambda: job.ingest(made, client, hear))
            step("harmonise", lambda: job.harmonise(made, client, hear))
            found: Mine = step("mine", lambda: training.mine(made, course, client, hear))
        # the cluster is gone: the machine is the network's
        best = step("train", lambda: fitting.fit(made, course, found, hear))
        taught: Taught = step("report", lambda: fitting.report(made, course, found, best, hear, began=began))
    return taught
