"""A Prefect server on loopback: how it is started, and the few questions and orders it is given."""

from __future__ import annotations

import json
import os
import socket
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from flows import processes
from flows.processes import TOKEN, Process

DEAD_RUNS = Path(__file__).with_name("dead_runs.json")
"""The automation that finds dead runs, as `prefect automation create --from-file` takes it, too.

It waits three heartbeats, which the deployments set to 30 s, the least Prefect allows: with fewer, healthy runs of a
busy machine would count as crashed."""
TAG = "marstfn"
"""Tag of the deployments, and so of their runs."""


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
        "PREFECT_WORKER_QUERY_SECONDS": "1",
        "PREFECT_CLI_PROMPT": "false",
    }


def start(env: Mapping[str, str], log: Path, *, tied: bool = False) -> Process:
    """A Prefect server on loopback at the port that `env` names, not yet awaited; `tied`: ends with this process."""
    port = env["PREFECT_SERVER_API_PORT"]
    command = ["prefect", "server", "start", "--host", "127.0.0.1", "--port", port]
    log.parent.mkdir(parents=True, exist_ok=True)
    return processes.start("server", command, env=env, cwd=log.parent, log=log, tied=tied)


def await_answer(api: str, server: Process, say: Callable[[str], None] = lambda text: None) -> None:
    """Wait until the server answers; the first start makes its database. Raises ServiceError with its log's end."""
    processes.wait(lambda: healthy(api), server, say=say)


def online(api: str, pool: str) -> bool:
    """Whether a worker of `pool` is ready for work."""
    workers = ask(api, f"/work_pools/{pool}/workers/filter", {}) or []
    return any(w.get("status") == "ONLINE" for w in workers)


def healthy(api: str) -> bool:
    """Whether the server answers."""
    return ask(api, "/health") is True


def ask(api: str, path: str, body: Any = None, method: str | None = None) -> Any:
    """The answer of Prefect's API as JSON, None where there is none (yet); by default GET, with a body POST."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{api}{path}", data, {"Content-Type": "application/json"}, method=method)
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=10) as answer:
            return json.loads(answer.read() or b"null")
    except (urllib.error.URLError, OSError, ValueError):
        return None


def watch_for_dead_runs(api: str, within: float | None = None) -> bool:
    """Mark a run as crashed once its heartbeat stays away; False where the server refuses.

    Without it a worker that was killed together with its run leaves it running for ever. `within`: seconds without a
    heartbeat, by default as `dead_runs.json` has it, which takes the place of what an earlier release left.
    """
    body = json.loads(DEAD_RUNS.read_text())
    if within is None:
        for known in ask(api, "/automations/filter", {"automations": {"name": {"any_": [body["name"]]}}}) or []:
            ask(api, f"/automations/{known['id']}", method="DELETE")
    else:
        body["name"] += f" (after {within:g} s)"
        body["trigger"]["within"] = within
    return ask(api, "/automations/", body) is not None


def bury(api: str) -> int:
    """Mark as crashed what the server takes for running while no worker is there: runs of an earlier one, all dead;
    their number.

    Only runs of our own deployments, by their tag. A dead run would hold the one place its deployment has.
    """
    lost = "The worker ended, or its machine, and this run with it. Finished tiles are kept: run again to go on."
    ends = {"RUNNING": "CRASHED", "PENDING": "CRASHED", "CANCELLING": "CANCELLED"}
    count = 0
    for before, after in ends.items():
        body = {
            "flow_runs": {"state": {"type": {"any_": [before]}}, "tags": {"all_": [TAG]}},
            "state": {"type": after, "message": lost},
        }
        while True:  # the server takes some at a time
            results = (ask(api, "/flow_runs/bulk_set_state", body) or {}).get("results", [])
            done = sum(result["status"] == "ACCEPT" for result in results)
            count += done
            if not done:
                break
    return count


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
