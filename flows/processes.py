"""Background processes of our own: started on their own feet, known by id and birth, ended without touching others."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil  # type: ignore[import-untyped]

from pipeline.errors import MarstfnError

TOKEN = "MARSTFN_SERVICES"
"""Environment variable all descendants of one `marstfn up` carry: finds those whose parent is gone."""
PATIENCE = 600.0
"""Seconds given to a process that lives: a busy machine takes minutes over what takes seconds otherwise."""
TELL = 30.0
"""Seconds between two lines that say a process is still awaited."""

_ties: dict[int, subprocess.Popen[bytes]] = {}
"""Holds the pipes of tied processes open."""


class ServiceError(MarstfnError):
    """The local Prefect server or worker cannot be started."""


@dataclass(frozen=True, slots=True)
class Process:
    """A process we started: `born` (seconds since the epoch) tells it from a later one with the same id."""

    name: str
    pid: int
    born: float
    log: str

    @property
    def alive(self) -> bool:
        return _find(self.pid, self.born) is not None


def start(
    name: str, arguments: Sequence[str], *, env: Mapping[str, str], cwd: Path, log: Path, tied: bool = False
) -> Process:
    """Start `python -m` with these arguments, detached from this terminal, its output appended to `log`.

    `tied`: it ends when this process does, even by SIGKILL.
    """
    command = [sys.executable, "-m", *(["flows.tether"] if tied else []), *arguments]
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as out, _interruptible():
        child = subprocess.Popen(
            command,
            env=dict(env),
            cwd=cwd,
            stdin=subprocess.PIPE if tied else subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    if tied:
        _ties[child.pid] = child
    try:
        born = psutil.Process(child.pid).create_time()
    except psutil.NoSuchProcess:
        born = time.time()
    return Process(name, child.pid, born, str(log))


def stop(processes: Sequence[Process], token: str, grace: float = 10.0) -> int:
    """End `processes`, their descendants and whatever carries `token`; returns how many there were.

    Asks with SIGTERM in the order given, waits `grace` seconds, then kills what is left.
    """
    roots = [found for p in processes if (found := _find(p.pid, p.born)) is not None]
    family = {p.pid: p for root in roots for p in [root, *_descendants(root)]} | {p.pid: p for p in _carrying(token)}
    for process in roots:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
        psutil.wait_procs([process], timeout=grace)
        _reap(process.pid)
    # flows run in sessions of their own and may have been started while we waited
    family |= {p.pid: p for p in _carrying(token)}
    left = [p for p in family.values() if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
    for process in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    _, stubborn = psutil.wait_procs(left, timeout=min(grace, 5.0))
    for process in stubborn:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(stubborn, timeout=5.0)
    for process in processes:
        if (tie := _ties.pop(process.pid, None)) is not None and tie.stdin is not None:
            tie.stdin.close()
            tie.wait(5.0)
    return len(family)


def wait(
    done: Callable[[], bool],
    process: Process,
    seconds: float = PATIENCE,
    *,
    ends: bool = False,
    say: Callable[[str], None] = lambda text: None,
) -> None:
    """Wait until `done`, at most `seconds` and while `process` lives; with `ends` it may end by itself.

    `say` hears every half minute that it still lives. Raises ServiceError at once where it has died: after how long,
    under what load, with the end of its log.
    """
    began = told = time.monotonic()
    while not done():
        now = time.monotonic()
        if not ends and not process.alive:
            reason = f"it ended by itself after {now - began:.0f} s"
            remedy = "Mend what its log names, then try again"
            break
        if now - began > seconds:
            reason = f"it still ran after {now - began:.0f} s without being ready; {load()}"
            remedy = "Try again when the machine has less to do"
            break
        if now - told >= TELL:
            told = now
            say(f"the Prefect {process.name} is alive but not ready after {now - began:.0f} s; {load()}")
        time.sleep(0.2)
    else:
        return
    raise ServiceError(
        f"the Prefect {process.name} did not come up: {reason}; everything was stopped again. {remedy}. "
        f"The end of its log, {process.log}:\n{tail(process.log)}"
    )


def load() -> str:
    """How busy the machine is, in words."""
    busy, cores = os.getloadavg()[0], os.cpu_count() or 1
    return f"{busy:.1f} processes want the machine's {cores} core{'s' if cores > 1 else ''}"


def tail(log: str | Path, lines: int = 15) -> str:
    """The last lines of a log, for an error message."""
    try:
        return "\n".join(Path(log).read_text(errors="replace").splitlines()[-lines:]) or "(log empty)"
    except OSError:
        return "(no log)"


def _find(pid: int, born: float) -> psutil.Process | None:
    try:
        process = psutil.Process(pid)
        if abs(process.create_time() - born) < 1.0 and process.status() != psutil.STATUS_ZOMBIE:
            return process
    except psutil.Error:
        pass
    return None


def _descendants(process: psutil.Process) -> list[psutil.Process]:
    try:
        return list(process.children(recursive=True))
    except psutil.Error:
        return []


def _carrying(token: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        # other users' processes refuse, and any may end while we look
        with contextlib.suppress(psutil.Error, OSError):
            if process.pid != os.getpid() and process.environ().get(TOKEN) == token:
                found.append(process)
    return found


def _reap(pid: int) -> None:
    with contextlib.suppress(ChildProcessError, OSError):
        os.waitpid(pid, os.WNOHANG)


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Children of a shell's background job inherit SIGINT ignored, and then Prefect's worker never stops."""
    try:
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
    except ValueError:  # not the main thread: nothing can be changed from here
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
