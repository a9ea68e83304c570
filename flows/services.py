"""A Prefect server and a worker on loopback, made by `marstfn up` and taken down, without trace, by `marstfn down`."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from flows import processes, profiles
from flows import server as server_api
from flows.processes import Process, ServiceError

POOL = "marstfn"
DEPLOYMENTS = ("fuse-year/fuse-year", "train-year/train-year", "evaluate-year/evaluate-year")
PORT = 4200
TEMPORARY = "tmp"
"""Folder in `home` for the temporary files of server, worker and runs."""
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class State:
    """What `up` made and `down` takes back."""

    port: int
    token: str
    server: Process
    worker: Process
    profiles: str
    """Path of the user's file of Prefect profiles."""
    before: str | None
    """Its text before we touched it; None where there was no such file."""
    after: str
    """Its text as we left it: while it still reads so, `before` comes back to the letter."""

    @property
    def ui(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def api(self) -> str:
        return f"{self.ui}/api"

    @property
    def running(self) -> bool:
        return self.server.alive and self.worker.alive


def home() -> Path:
    """The folder that holds the server's database, logs and state; MARSTFN_HOME names another."""
    if named := os.environ.get("MARSTFN_HOME"):
        return Path(named).expanduser()
    return Path(os.environ.get("XDG_DATA_HOME") or "~/.local/share").expanduser() / "marstfn"


def load() -> State | None:
    """The state of the services, None where none were started."""
    try:
        values = json.loads((home() / "services.json").read_text())
        return State(**values | {k: Process(**values[k]) for k in ("server", "worker")})
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ServiceError(
            f"the record of what was started, {home() / 'services.json'}, cannot be read: {error}. "
            "End the Prefect server and worker yourself and remove that folder"
        ) from error


def up(*, port: int | None = None, say: Say = lambda text: None) -> State:
    """Start server and worker, deploy the flows, and make the profile `marstfn` the active one; idempotent.

    Raises ServiceError with the end of the log where one of them does not come up; what was started is stopped again.
    """
    with _locked():
        state = load()
        if state is not None and state.running and server_api.healthy(state.api):
            other = (
                f" (not on {port}, which was asked for: `marstfn down` first)" if port not in (None, state.port) else ""
            )
            say(f"server and worker are running already, on port {state.port}{other}")
            return _activate(state)
        if state is not None:
            say("what was started before is gone or ill: starting afresh")
            _stop(state)
        return _start(port, state, say)


def down(*, keep: bool = False, say: Say = lambda text: None) -> bool:
    """End what `up` started, restore the Prefect profile and remove what was made (`keep`: not the run history).

    Returns False where nothing was there to be taken down.
    """
    if not home().exists():
        return False
    with _locked():
        state = load()
        if state is not None:
            say(f"{_stop(state)} processes ended")
            profiles.restore(Path(state.profiles), state.before, state.after)
            say(f"Prefect profile: {profiles.active(profiles.text(Path(state.profiles)) or '') or 'as before, none'}")
            (home() / "services.json").unlink()
        shutil.rmtree(home() / TEMPORARY, ignore_errors=True)
        if not keep:
            shutil.rmtree(home() / "prefect", ignore_errors=True)
            shutil.rmtree(home() / "logs", ignore_errors=True)
    if not keep:
        (home() / "lock").unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # something of the user's lies there
            home().rmdir()
    return state is not None


def _start(port: int | None, old: State | None, say: Say) -> State:
    usual = [old.port, PORT] if old is not None else [PORT]
    port = port or next((p for p in usual if server_api.free(p)), None) or server_api.any_port()
    if not server_api.free(port):
        raise ServiceError(f"port {port} of 127.0.0.1 is taken; nothing was started. Choose another (--port)")
    token = uuid.uuid4().hex
    # the worker copies each flow it runs to a temporary folder and leaves it: let it lie where `down` clears up
    spare = home() / TEMPORARY
    spare.mkdir(parents=True, exist_ok=True)
    env = server_api.environment(port, token, home() / "prefect") | {"TMPDIR": str(spare)}
    logs = home() / "logs"
    cwd = Path.cwd()
    say(f"starting the Prefect server on 127.0.0.1:{port} (the first start makes its database)")
    server = server_api.start(env, logs / "server.log")
    started = [server]
    try:
        api = f"http://127.0.0.1:{port}/api"
        server_api.await_answer(api, server, say)
        if dead := server_api.bury(api):
            say(f"{dead} {'run' if dead == 1 else 'runs'} that an earlier worker left behind are marked as ended")
        say("starting a worker")
        command = ["prefect", "worker", "start", "--pool", POOL, "--type", "process", "--name", POOL]
        worker = processes.start("worker", command, env=env, cwd=cwd, log=logs / "worker.log")
        started.insert(0, worker)
        processes.wait(lambda: server_api.ask(api, f"/work_pools/{POOL}") is not None, worker, say=say)
        say("deploying fuse-year, train-year and evaluate-year")
        _deploy(env, logs / "deploy.log", say)
        if not server_api.watch_for_dead_runs(api):
            raise ServiceError("the server refused the automation that finds dead runs; everything was stopped again")
        processes.wait(lambda: server_api.online(api, POOL), worker, say=say)
        now = profiles.text(profiles.path())
        former = profiles.active(old.before or "") if old is not None else None
        before = old.before if old is not None and now == old.after else profiles.without_ours(now, former)
        after = profiles.added(now or "", _settings(port))
        state = State(port, token, server, worker, str(profiles.path()), before, after)
        _save(state)
        profiles.write(Path(state.profiles), after)
    except BaseException:
        processes.stop(started, token)
        raise
    return state


def _stop(state: State) -> int:
    return processes.stop([state.worker, state.server], state.token)


def _settings(port: int) -> dict[str, str]:
    """What our profile sets for whoever types `prefect` in any folder."""
    return {
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_PLUGINS_ENABLED": "true",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    }


def _deploy(env: Mapping[str, str], log: Path, say: Say) -> None:
    process = processes.start(
        "deploy",
        ["prefect", "--no-prompt", "deploy", "--all", "--prefect-file", str(definition())],
        env=env,
        cwd=home(),
        log=log,
    )
    processes.wait(lambda: not process.alive, process, ends=True, say=say)
    for name in DEPLOYMENTS:
        if server_api.ask(env["PREFECT_API_URL"], f"/deployments/name/{name}") is None:
            raise ServiceError(
                f"{name} could not be deployed; everything was stopped again. The log:\n{processes.tail(log)}"
            )


def definition() -> Path:
    """The deployment's definition: in the checkout's `deploy/`, or as the wheel carries it."""
    here = Path(__file__).resolve().parent
    return next(p for p in (here.parent / "deploy" / "prefect.yaml", here / "prefect.yaml") if p.is_file())


def _activate(state: State) -> State:
    """Make our profile active again where the user has switched to another since: that one comes back in the end."""
    path = Path(state.profiles)
    now = profiles.text(path) or ""
    after = profiles.added(now, _settings(state.port))
    if after == now:
        return state
    former = profiles.active(state.before or "")
    state = replace(state, before=profiles.removed(now, former), after=after)
    _save(state)
    profiles.write(path, after)
    return state


def _save(state: State) -> None:
    profiles.write(home() / "services.json", json.dumps(asdict(state), indent=1))


@contextlib.contextmanager
def _locked() -> Iterator[None]:
    """One `up` or `down` at a time."""
    try:
        home().mkdir(parents=True, exist_ok=True)
        lock = (home() / "lock").open("w")
    except OSError as error:
        raise ServiceError(f"cannot write to {home()}: {error}; name another folder (MARSTFN_HOME)") from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
