"""The job from request to cube, for the flow and the command line alike: stages, cluster and log in one place."""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any, Protocol, TypeVar

from distributed import Client

from pipeline import cluster, hosts, job, logs, room, settings
from pipeline.errors import MarstfnError
from pipeline.events import Event, Listener, Note, StageDone, StageMoved, StageStarted, TileDone, TileFailed
from pipeline.job import Job, Summary
from pipeline.request import Request
from pipeline.store import Store
from pipeline.views import Truth

log = logging.getLogger(__name__)

T = TypeVar("T")


class Step(Protocol):
    """How a stage is run: plainly, or as a task that Prefect watches."""

    def __call__(self, name: str, stage: Callable[[], Any]) -> Any: ...


def plainly(name: str, stage: Callable[[], Any]) -> Any:
    """Run the stage, and nothing else."""
    return stage()


def work(
    request: Request,
    run: str,
    listener: Listener,
    *,
    log_file: Path | None = None,
    step: Step = plainly,
    truth: Truth | None = None,
) -> Summary:
    """Do the job that `request` asks for and return what it made; `run` names it in its log.

    `log_file` None: `logs/RUN.log` in the store. `truth(day, x0, y0, shape)`: exact reflectance for the pictures of a
    simulated run. Raises MarstfnError in words; finished tiles stay.
    """
    began = time.monotonic()
    with begun(lambda ear: job.prepare(request, ear), run, listener, log_file=log_file, step=step) as (made, hear):
        with connected(request.scheduler, made.plan.options.device, hear) as client:
            step("ingest", lambda: job.ingest(made, client, hear))
            step("harmonise", lambda: job.harmonise(made, client, hear))
            if made.plan.options.method == "auto":
                step("gate", lambda: job.gate(made, client, hear))
            step("fuse", lambda: job.fuse(made, client, hear))
        summary: Summary = step("finish", lambda: job.finish(made, hear, truth=truth, began=began))
        remembered(made, request.scheduler)
    return summary


def remembered(made: Job, scheduler: str | None) -> None:
    """Let the run tell how long the next one will take; that it cannot is no reason for a finished run to fail."""
    from pipeline import experience  # torch: the last stage has it already

    try:
        experience.remember(made.plan, made.store, made.items, scheduler)
    except (MarstfnError, OSError, ValueError) as error:
        log.info("the rates of this run are not kept: %s", error)


@contextmanager
def begun(
    prepare: Callable[[Listener], Job],
    run: str,
    listener: Listener,
    *,
    log_file: Path | None = None,
    step: Step = plainly,
) -> Iterator[tuple[Job, Listener]]:
    """The job that `prepare` plans or finds, its store held for this run alone, and a listener that writes down in the
    log of `run` (default: `logs/RUN.log` in the store) what it passes on to `listener`."""

    def hear(event: Event) -> None:
        write_down(event)
        listener(event)

    with ExitStack() as stack:
        if log_file is not None:
            stack.enter_context(logs.to_file(log_file, run))
        made = step("plan", lambda: prepared(prepare, hear))
        stack.enter_context(job.alone(made.store))
        path = log_file or log_path(made.store, run)
        if log_file is None:
            stack.callback(keep_log, made.store, path, run)
            stack.enter_context(logs.to_file(path, run))
        hear(Note("log", str(path)))
        log.info("plan %s: %s %d", made.plan.fingerprint, made.plan.name, made.plan.year)
        # the log has what workers say of servers already: only the listener is to hear it
        stack.enter_context(hosts.announced(listener))
        with endings(), room.noticed(made.store, "a record of this run"):
            yield made, hear


@contextmanager
def connected(scheduler: str | None, device: str, hear: Listener) -> Iterator[Client]:
    """A client of the scheduler at an address, or of a cluster on this machine that ends with the context."""
    with ExitStack() as stack:
        started = cluster.connect(scheduler, device=device, defaults=settings.load())
        with interrupts_held():
            client = stack.enter_context(started)
        logs.forward(client)
        hear(Note("dashboard", client.dashboard_link))
        yield client


@contextmanager
def endings() -> Iterator[None]:
    """Let the log say how a run ended that did not come to its end."""
    try:
        yield
    except MarstfnError as error:
        log.error("%s", error)
        raise
    except Exception:
        log.exception("the run ended in an error nobody foresaw")
        raise
    except BaseException as end:
        log.error("interrupted (%s); finished tiles are kept", type(end).__name__)
        raise


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Ctrl-C waits until the end of this context, and for ever in processes started within it: a terminal sends it to
    all of them, but it is this one that ends the others, without their tracebacks."""
    resource_tracker.ensure_running()  # it would let interrupts through again in the thread that starts it
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def prepared(prepare: Callable[[Listener], Job], listener: Listener) -> Job:
    """The job, planned or found by `prepare`; where that fails, no empty folder stays behind."""
    new: list[Path] = []

    def hear(event: Event) -> None:
        if isinstance(event, Note) and event.kind == "store":
            store = Store(event.text)
            folder = store.local
            if folder is not None and not store.present:
                new.append(folder)
        listener(event)

    try:
        return prepare(hear)
    except BaseException:
        for folder in new:
            with suppress(OSError):  # not empty: something was kept there
                folder.rmdir()
        raise


def log_path(store: Store, run: str) -> Path:
    """Where a run's log goes: into its store, or where that is no folder, among the user's own state; from there it is
    copied into the store when the run ends."""
    if store.local is not None:
        return store.local / "logs" / f"{run}.log"
    state = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(state).expanduser() / "marstfn" / f"{run}.log"


def keep_log(store: Store, path: Path, run: str) -> None:
    """Copy a log that could not be written in its store, an object store, to `logs/RUN.log` there."""
    if store.local is not None:
        return
    try:
        store.reach()  # where the store is what ended the run, nobody waits for it here
        store.write(f"logs/{run}.log", path.read_bytes())
    except (MarstfnError, OSError) as error:
        log.warning("the log stays at %s: %s", path, error)


def write_down(event: Event) -> None:
    """Events as lines of the log; those of a tile carry its name."""
    match event:
        case StageStarted():
            log.info("stage %s: %d %s, %d of them done before", event.stage, event.total, event.unit, event.skipped)
        case StageMoved():
            log.debug("stage %s: %d of %d, %s", event.stage, event.done, event.total, event.text)
        case TileDone():
            timings = ", ".join(f"{k} {v:.2f}" for k, v in event.timings.items())
            with logs.tile(event.tile):
                log.info("stage %s: done in %.2f s%s", event.stage, event.seconds, f" ({timings})" if timings else "")
        case TileFailed():
            with logs.tile(event.tile):
                log.error("stage %s: failed: %s", event.stage, event.error)
        case StageDone():
            log.info("stage %s: %d done, %d failed, %.1f s", event.stage, event.done, event.failed, event.seconds)
        case Note():
            log.log(logging.WARNING if event.kind == "warning" else logging.INFO, "%s: %s", event.kind, event.text)
