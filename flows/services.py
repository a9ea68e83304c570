"""A Prefect server and a worker on loopback, made by `marstfn up` and taken down, without trace, by `marstfn down`."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import socket
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from flows import processes, profiles
from flows import server as server_api
from flows.processes import TOKEN, Process
from pipeline.errors import MarstfnError

POOL = "marstfn"
DEPLOYMENT = "fuse-year/fuse-year"
PORT = 4200
Say = Callable[[str], None]


class ServiceError(MarstfnError):
    """The local Prefect server or worker cannot be started."""


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
    """Start server and worker, deploy `fuse-year`, and make the profile `marstfn` the active one; idempotent.

    Raises ServiceError with the end of the log where one of them does not come up; what was started is stopped again.
    """
    with _locked():
        state = load()
        if state is not None and state.running and server_api.healthy(state.api):
            say("server and worker are running already")
            _activate(state)
            return state
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
        if not keep:
            shutil.rmtree(home() / "prefect", ignore_errors=True)
            shutil.rmtree(home() / "logs", ignore_errors=True)
    if not keep:
        (home() / "lock").unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # something of the user's lies there
            home().rmdir()
    return state is not None


def _start(port: int | None, old: State | None, say: Say) -> State:
    port = port or (PORT if free(PORT) else any_port())
    if not free(port):
        raise ServiceError(f"port {port} of 127.0.0.1 is taken; nothing was started. Choose another (--port)")
    token = uuid.uuid4().hex
    env = environment(port, token, home() / "prefect")
    logs = home() / "logs"
    cwd = Path.cwd()
    say(f"starting the Prefect server on 127.0.0.1:{port} (the first start makes its database)")
    server = start_server(env, logs / "server.log")
    started = [server]
    try:
        api = f"http://127.0.0.1:{port}/api"
        await_server(api, server)
        say("starting a worker")
        command = ["prefect", "worker", "start", "--pool", POOL, "--type", "process", "--name", POOL]
        worker = processes.start("worker", command, env=env, cwd=cwd, log=logs / "worker.log")
        started.insert(0, worker)
        _wait(lambda: server_api.ask(api, f"/work_pools/{POOL}") is not None, worker, 60)
        say("deploying fuse-year")
        _deploy(env, logs / "deploy.log")
        if not server_api.watch_for_zombies(api):
            raise ServiceError("the server refused the automation that finds dead runs; everything was stopped again")
        _wait(lambda: server_api.online(api, POOL), worker, 60)
        now = profiles.text(profiles.path())
        before = old.before if old is not None and now == old.after else profiles.without_ours(now)
        after = profiles.added(now or "", _settings(port))
        state = State(port, token, server, worker, str(profiles.path()), before, after)
        profiles.write(home() / "services.json", json.dumps(asdict(state), indent=1))
        profiles.write(Path(state.profiles), after)
    except BaseException:
        processes.stop(started, token)
        raise
    return state


def _stop(state: State) -> int:
    return processes.stop([state.worker, state.server], state.token)


def environment(port: int, token: str, prefect_home: Path) -> dict[str, str]:
    """Environment of server and worker: nothing of the user's own Prefect, everything of the user's MARSTFN_... ."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")}
    return env | {
        TOKEN: token,
        "PWD": str(Path.cwd()),
        "PREFECT_HOME": str(prefect_home),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_SERVER_API_HOST": "127.0.0.1",
        "PREFECT_SERVER_API_PORT": str(port),
        "PREFECT_UI_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_UI_V2_ENABLED": "false",  # the new pages ask a server on the internet for their configuration
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
        "DO_NOT_TRACK": "1",
        "PREFECT_PLUGINS_ENABLED": "false",  # helpers of the worker import prefect inside a running loop
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(server_api.HEARTBEAT),
        "PREFECT_WORKER_QUERY_SECONDS": "1",
        "PREFECT_CLI_PROMPT": "false",
    }


def start_server(env: Mapping[str, str], log: Path, *, tied: bool = False) -> Process:
    """A Prefect server on loopback at the port that `env` names, not yet awaited; `tied`: ends with this process."""
    port = env["PREFECT_SERVER_API_PORT"]
    command = ["prefect", "server", "start", "--host", "127.0.0.1", "--port", port]
    log.parent.mkdir(parents=True, exist_ok=True)
    return processes.start("server", command, env=env, cwd=log.parent, log=log, tied=tied)


def await_server(api: str, server: Process) -> None:
    """Wait until the server answers; the first start makes its database. Raises ServiceError with its log's end."""
    _wait(lambda: server_api.healthy(api), server, 180)


def _settings(port: int) -> dict[str, str]:
    """What our profile sets for whoever types `prefect` in any folder."""
    return {
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_PLUGINS_ENABLED": "true",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    }


def _deploy(env: Mapping[str, str], log: Path) -> None:
    process = processes.start(
        "deploy",
        ["prefect", "--no-prompt", "deploy", "--all", "--prefect-file", str(definition())],
        env=env,
        cwd=home(),
        log=log,
    )
    _wait(lambda: not process.alive, process, 120, ends=True)
    if server_api.ask(env["PREFECT_API_URL"], f"/deployments/name/{DEPLOYMENT}") is None:
        raise ServiceError(
            f"fuse-year could not be deployed; everything was stopped again. The log:\n{processes.tail(log)}"
        )


def definition() -> Path:
    """The deployment's definition: in the checkout's `deploy/`, or as the wheel carries it."""
    here = Path(__file__).resolve().parent
    return next(p for p in (here.parent / "deploy" / "prefect.yaml", here / "prefect.yaml") if p.is_file())


def _wait(done: Callable[[], bool], process: Process, seconds: float, *, ends: bool = False) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        if not ends and not process.alive:
            break
        if time.monotonic() > deadline:
            break
        time.sleep(0.2)
    else:
        return
    raise ServiceError(
        f"the Prefect {process.name} did not come up; everything was stopped again. "
        f"The end of its log, {process.log}:\n{processes.tail(process.log)}"
    )


def _activate(state: State) -> None:
    """Make our profile active again where the user has switched to another since."""
    path = Path(state.profiles)
    now = profiles.text(path) or ""
    after = profiles.added(now, _settings(state.port))
    if after != now:
        profiles.write(path, after)


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


def free(port: int) -> bool:
    """Whether `port` of 127.0.0.1 can be bound."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def any_port() -> int:
    """A port of 127.0.0.1 that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
