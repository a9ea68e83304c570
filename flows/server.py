"""The few questions and orders `marstfn up` has for a Prefect server, over its API on loopback."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any

HEARTBEAT = 30
"""Seconds between the heartbeats of a flow run; Prefect allows no less."""
ZOMBIE = 90
"""Seconds without a heartbeat after which a run counts as crashed: under three heartbeats, healthy runs would."""

_ENDS = ("Completed", "Failed", "Cancelled", "Crashed")


def online(api: str, pool: str) -> bool:
    """Whether a worker of `pool` is ready for work."""
    workers = ask(api, f"/work_pools/{pool}/workers/filter", {}) or []
    return any(w.get("status") == "ONLINE" for w in workers)


def healthy(api: str) -> bool:
    """Whether the server answers."""
    return ask(api, "/health") is True


def ask(api: str, path: str, body: Any = None) -> Any:
    """The answer of Prefect's API as JSON, None where there is none (yet)."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{api}{path}", data, {"Content-Type": "application/json"})
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=10) as answer:
            return json.loads(answer.read() or b"null")
    except (urllib.error.URLError, OSError, ValueError):
        return None


def watch_for_zombies(api: str) -> bool:
    """Mark a run as crashed once its heartbeat stays away; False where the server refuses.

    Without it a worker that was killed leaves its run running for ever.
    """
    name = "marstfn: a run without heartbeat has crashed"
    known = ask(api, "/automations/filter", {"automations": {"name": {"any_": [name]}}})
    if known:
        return True
    body = {
        "name": name,
        "enabled": True,
        "trigger": {
            "type": "event",
            "after": ["prefect.flow-run.heartbeat"],
            "expect": ["prefect.flow-run.heartbeat", *(f"prefect.flow-run.{s}" for s in _ENDS)],
            "match": {"prefect.resource.id": ["prefect.flow-run.*"]},
            "for_each": ["prefect.resource.id"],
            "posture": "Proactive",
            "threshold": 1,
            "within": ZOMBIE,
        },
        "actions": [
            {
                "type": "change-flow-run-state",
                "state": "CRASHED",
                "message": f"No heartbeat for {ZOMBIE} s: the worker or its machine is gone. Run again to resume.",
            }
        ],
    }
    return ask(api, "/automations/", body) is not None
