"""Runs and workers killed under `marstfn up`: nothing is lost, and the page does not show a dead run as running."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from prefect.events.schemas.automations import AutomationCore

from flows import processes, server, services
from flows.processes import Process
from pipeline.demo.faults import Fault
from tests.conftest import Served, assert_same_cubes, whole_run

pytestmark = [pytest.mark.server, pytest.mark.timeout(1500)]

MARSTFN, PREFECT = (str(Path(sys.executable).with_name(name)) for name in ("marstfn", "prefect"))
SLOW = Fault("*.tif", times=None, every=3, latency=0.4)
"""Reading takes seconds, and leaves time to strike in its middle."""
QUICK = 35.0
"""Seconds without a heartbeat in the test's own copy of the automation: one beat, in place of three."""
PATIENCE = 400.0


@dataclass(frozen=True)
class Site:
    """A home of its own, and a folder in which a user stands."""

    root: Path
    env: dict[str, str]
    season: Served

    @property
    def here(self) -> Path:
        return self.root / "here"

    @property
    def state(self) -> dict:
        return json.loads((self.root / "marstfn" / "services.json").read_text())

    @property
    def api(self) -> str:
        return f"http://127.0.0.1:{self.state['port']}/api"

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, cwd=self.here, env=self.env, capture_output=True, text=True, timeout=1200, check=False
        )

    def up(self) -> str:
        done = self.run(MARSTFN, "up", "--port", str(server.any_port()))
        assert done.returncode == 0, done.stderr
        return done.stderr

    def ask(self, path: str, body: object = None) -> Any:
        """The answer of the server, which may at first be too busy to give one."""
        until = time.monotonic() + 60
        while (answer := server.ask(self.api, path, body)) is None:
            assert time.monotonic() < until, f"no answer to {path}: {processes.tail(self.state['server']['log'], 40)}"
            time.sleep(1)
        return answer

    def submit(self, store: str) -> str:
        """Ask for a run over the season; its id."""
        given = {"aoi": "field.geojson", "store": store, "method": "additive", "tile": 60, "threads": 1}
        params = [word for name, value in given.items() for word in ("--param", f"{name}={value}")]
        done = self.run(PREFECT, "deployment", "run", "fuse-year", *params)
        assert done.returncode == 0, done.stderr
        return self.ask("/flow_runs/filter", {"sort": "EXPECTED_START_TIME_DESC", "limit": 1})[0]["id"]

    def told(self, run: str) -> dict:
        """The state of a run."""
        return self.ask(f"/flow_runs/{run}")["state"]

    def ended(self, run: str, patience: float = PATIENCE) -> dict:
        """The state in which a run ends."""
        until = time.monotonic() + patience
        while (state := self.told(run))["type"] not in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED"):
            assert time.monotonic() < until, f"{state['name']}: {processes.tail(self.state['worker']['log'], 40)}"
            time.sleep(0.2)
        return state

    def begun(self, run: str, store: str) -> psutil.Process:
        """The process of a run, once it has finished a first tile and is at the others."""
        until = time.monotonic() + PATIENCE
        while not ledger(self.here / store):
            state = self.told(run)
            assert state["type"] not in ("FAILED", "CRASHED"), state["message"]
            assert time.monotonic() < until, f"{state['name']}: {processes.tail(self.state['worker']['log'], 40)}"
            time.sleep(0.1)
        return next(p for p in processes._carrying(self.state["token"]) if "prefect.engine" in p.cmdline())

    def kill_worker(self) -> None:
        worker = Process(**self.state["worker"])
        if worker.alive:
            os.kill(worker.pid, signal.SIGKILL)
        while worker.alive:
            time.sleep(0.05)


def ledger(store: Path) -> dict[str, bytes]:
    return {str(path.relative_to(store)): path.read_bytes() for path in store.glob("ledger/*/*.json")}


@pytest.fixture(scope="module")
def site(tmp_path_factory, season):
    root = tmp_path_factory.mktemp("site")
    (root / "here").mkdir()
    env = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "MARSTFN_"))}
    env |= {"HOME": str(root), "PREFECT_HOME": str(root / "prefect"), "MARSTFN_HOME": str(root / "marstfn")}
    env |= {"NO_PROXY": "127.0.0.1", "MARSTFN_CATALOG": season.catalog, "MARSTFN_YEAR": "2023"}
    here = Site(root, env, season)
    shutil.copy(season.aoi, here.here / "field.geojson")
    here.up()
    try:
        yield here
    finally:
        here.run(MARSTFN, "down")


@pytest.fixture(scope="module")
def undisturbed(season, tmp_path_factory):
    store = tmp_path_factory.mktemp("undisturbed") / "store"
    whole_run(season, season.catalog, store)
    return store


def test_a_killed_flow_is_shown_as_crashed_and_its_killed_worker_costs_nothing(site, catalogue, undisturbed):
    """First the run is killed, then, in the run that takes it up, the worker: that run goes on to its end alone."""
    catalogue.server.faults.set([SLOW])
    run = site.submit("store")
    process = site.begun(run, "store")
    process.kill()
    state = site.ended(run, patience=60)
    assert state["type"] == "CRASHED"
    before = ledger(site.here / "store")
    assert 1 <= len(before) < 8

    again = site.submit("store")
    until = time.monotonic() + PATIENCE
    while site.told(again)["type"] != "RUNNING":
        assert time.monotonic() < until
        time.sleep(0.2)
    site.kill_worker()
    catalogue.server.faults.set()
    state = site.ended(again)
    assert state["type"] == "COMPLETED", f"{state['message']}\n{processes.tail(site.state['worker']['log'], 40)}"
    after = ledger(site.here / "store")
    assert {name: after[name] for name in before} == before, "a finished tile was made again"
    assert_same_cubes(site.here / "store", undisturbed)


def test_what_ran_when_the_worker_ended_is_buried_with_it(site):
    """`up` brings another worker, and leaves no run of the first to look alive."""
    site.kill_worker()
    deployment = site.ask("/deployments/name/train-year/train-year")
    left = {}
    for kind in ("RUNNING", "PENDING", "CANCELLING"):
        made = site.ask(f"/deployments/{deployment['id']}/create_flow_run", {"parameters": {"aoi": "x"}})
        left[kind] = made["id"]
        for step in ("RUNNING", kind) if kind == "CANCELLING" else (kind,):
            state = {"state": {"type": step}, "force": True}
            assert site.ask(f"/flow_runs/{made['id']}/set_state", state)["status"] == "ACCEPT"
    stranger = site.ask("/flow_runs/", {"flow_id": deployment["flow_id"], "state": {"type": "RUNNING"}})
    said = site.up()
    assert "3 runs that an earlier worker left behind are marked as ended" in said
    ends = {kind: site.told(run) for kind, run in left.items()}
    assert {kind: state["type"] for kind, state in ends.items()} == {
        "RUNNING": "CRASHED", "PENDING": "CRASHED", "CANCELLING": "CANCELLED",
    }  # fmt: skip
    assert "run again to go on" in ends["RUNNING"]["message"]
    assert site.told(stranger["id"])["type"] == "RUNNING", "it is none of ours"


def test_a_run_killed_with_its_worker_is_found_dead_by_its_heartbeat(site, catalogue, undisturbed):
    """The server lives on alone: nothing but the missing heartbeat tells that the run is dead."""
    known = site.ask("/automations/filter", {})
    shipped = json.loads(server.DEAD_RUNS.read_text())
    assert [(a["name"], a["trigger"]["within"]) for a in known] == [(shipped["name"], 90)]
    assert server.watch_for_dead_runs(site.api, within=QUICK)
    catalogue.server.faults.set([SLOW])
    run = site.submit("other")
    process = site.begun(run, "other")
    site.kill_worker()
    process.kill()
    killed = time.monotonic()
    assert site.told(run)["type"] == "RUNNING"
    before = ledger(site.here / "other")
    state = site.ended(run, patience=QUICK + 60)
    print(f"crashed {time.monotonic() - killed:.0f} s after the kill, heartbeats awaited for {QUICK:g} s")
    assert state["type"] == "CRASHED"
    assert "run again with the same parameters to go on" in state["message"]
    catalogue.server.faults.set()
    whole_run(catalogue, catalogue.catalog, site.here / "other")
    after = ledger(site.here / "other")
    assert {name: after[name] for name in before} == before, "a finished tile was made again"
    assert_same_cubes(site.here / "other", undisturbed)


def test_a_server_of_the_users_own_takes_the_same_automation():
    """`prefect automation create --from-file flows/dead_runs.json`: three beats of what the deployments ask for."""
    rule = AutomationCore.model_validate(json.loads(server.DEAD_RUNS.read_text()))
    deployments = yaml.safe_load(services.definition().read_text())["deployments"]
    assert len(deployments) == len(services.DEPLOYMENTS)
    for deployment in deployments:
        beat = int(deployment["work_pool"]["job_variables"]["env"]["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"])
        assert rule.trigger.within.total_seconds() >= 3 * beat
        assert server.TAG in deployment["tags"]
    assert rule.trigger.match_related.root["prefect.resource.id"] == f"prefect.tag.{server.TAG}"


def test_a_console_whose_reader_is_gone_ends_nothing():
    """Prefect's console handler would raise SystemExit where the worker that reads its pipe has been killed."""
    code = """
import logging, os, sys
from prefect.logging import get_logger
from prefect.logging.configuration import setup_logging
setup_logging()
from flows.outliving import outlive_worker
if sys.argv[1:] == ["steady"]:
    outlive_worker()
    outlive_worker()
elif sys.argv[1:]:
    os.environ["PREFECT__FLOW_RUN_ID"] = sys.argv[1]
    import flows.fuse_year
reader, writer = os.pipe()
os.dup2(writer, 1)
os.dup2(writer, 2)
os.close(writer)
os.close(reader)
get_logger().warning("a line that nobody hears")
os._exit(7)
"""
    ends = [
        subprocess.run([sys.executable, "-c", code, *more], capture_output=True, timeout=120, check=False).returncode
        for more in ([], ["steady"], ["the id of a run"])
    ]
    assert ends == [1, 7, 7], "Prefect survives it by itself now: flows.outliving is not needed any more"
