"""The literal command, by real processes: `marstfn up`, `prefect deployment run fuse-year ...`, `marstfn down`."""

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import pytest
import xarray as xr

from flows import processes, profiles, server

pytestmark = pytest.mark.server

MARSTFN, PREFECT = (str(Path(sys.executable).with_name(name)) for name in ("marstfn", "prefect"))
MINE = '# my own\nactive = "work"\n\n[profiles.work]\nPREFECT_LOGGING_LEVEL = "WARNING"\n'


@dataclass(frozen=True)
class Site:
    """A home of its own, and a folder in which a user stands; neither holds a prefect.toml."""

    root: Path
    env: dict[str, str]

    @property
    def here(self) -> Path:
        return self.root / "here"

    @property
    def profiles(self) -> Path:
        return self.root / "prefect" / "profiles.toml"

    def run(self, *command, timeout=240, env=None):
        return subprocess.run(
            command, cwd=self.here, env=self.env | (env or {}), capture_output=True, text=True, timeout=timeout
        )

    def state(self):
        """What `up` wrote down, None where there is nothing."""
        path = self.root / "marstfn" / "services.json"
        return json.loads(path.read_text()) if path.exists() else None

    def ask(self, path, body=None):
        return server.ask(f"http://127.0.0.1:{self.state()['port']}/api", path, body)


@pytest.fixture(scope="module")
def site(tmp_path_factory, season):
    """Server and worker, made by `marstfn up` with the simulated season as the worker's default catalogue."""
    root = tmp_path_factory.mktemp("site")
    (root / "here").mkdir()
    env = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "MARSTFN_"))}
    env |= {
        "HOME": str(root),
        "PREFECT_HOME": str(root / "prefect"),
        "MARSTFN_HOME": str(root / "marstfn"),
        "NO_PROXY": "127.0.0.1",
    }
    here = Site(root, env)
    profiles.write(here.profiles, MINE)
    shutil.copy(season.aoi, here.here / "hailar.geojson")
    defaults = {"MARSTFN_CATALOG": season.catalog, "MARSTFN_YEAR": "2023"}
    port = server.any_port()
    begun = here.run(MARSTFN, "up", "--port", str(port), env=defaults, timeout=1500)
    try:
        assert begun.returncode == 0, begun.stderr
        assert "prefect deployment run fuse-year --param aoi=hailar.geojson" in begun.stdout
        assert f"http://127.0.0.1:{port}" in begun.stdout
        yield here
    finally:
        here.run(MARSTFN, "down")


def test_the_users_other_profiles_are_as_they_were(site):
    text = site.profiles.read_text()
    assert profiles.active(text) == "marstfn"
    assert profiles.removed(text, "work") == MINE


def test_up_again_changes_nothing(site):
    before = site.state()
    again = site.run(MARSTFN, "up")
    assert again.returncode == 0, again.stderr
    assert "running already" in again.stderr
    assert site.state() == before


def test_the_plugin_says_so_when_asked(site):
    found = site.run(PREFECT, "plugins", "diagnose")
    assert "marstfn: active" in found.stdout
    assert "marstfn: success" in found.stdout


def test_the_schema_is_enforced_before_a_run_is_made(site):
    before = site.ask("/flow_runs/count", {})
    refused = site.run(
        PREFECT, "deployment", "run", "fuse-year", "--param", "aoi=hailar.geojson", "--param", "year=1900"
    )
    assert refused.returncode == 1
    assert "1900" in refused.stdout + refused.stderr
    assert site.ask("/flow_runs/count", {}) == before


def test_the_literal_command(site, season):
    """The command of the mission, in the folder where the AOI file lies; loopback only while it runs."""
    assert list(site.here.iterdir()) == [site.here / "hailar.geojson"]
    command = [PREFECT, "deployment", "run", "fuse-year", "--param", "aoi=hailar.geojson", "--watch"]
    with subprocess.Popen(
        command, cwd=site.here, env=site.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as run:
        addresses = set()
        while run.poll() is None:
            addresses |= listening(site.state()["token"])
            time.sleep(0.5)
        said, errors = run.communicate()
    assert run.returncode == 0, said + errors + processes.tail(site.state()["worker"]["log"], 60)
    assert f"marstfn: area of interest: the file {site.here}/hailar.geojson" in errors
    assert "Flow run finished successfully" in said
    assert len(addresses) >= 4, "server, scheduler, dashboard and Dask's workers listen"
    assert {host for host, _ in addresses} == {"127.0.0.1"}
    ds = xr.open_zarr(site.here / "hailar-2023" / "fused.zarr")
    assert ds.attrs["status"] == "complete"
    assert ds.sizes["y"] == ds.sizes["x"] == 120
    sources = ds["source"].values.tolist()
    passes = [acq for acq in season.simulation.acquisitions() if acq.time.month in range(5, 9)]
    assert sources.count("landsat-8 fused") == sum(acq.landsat for acq in passes)
    assert sources.count("sentinel-2 observed") == sum(not acq.landsat for acq in passes)
    assert (np.diff(ds["time"].values) > np.timedelta64(0)).all()
    red = ds["red"].values
    assert 0.2 < np.isfinite(red).mean() < 0.9
    assert 0.0 < np.nanmedian(red) < 0.4
    truth = season.simulation.truth(passes[0].time, season.grid.left, season.grid.top, (120, 120))
    assert abs(np.nanmedian(red) - np.median(truth[2])) < 0.1


def test_the_page_shows_the_run(site):
    """Artifacts of the run: progress, dashboard, scenes and pairs, pictures, where the cube is."""
    found = {a["key"]: a for a in site.ask("/artifacts/latest/filter", {"limit": 100})}
    for stage in ("ingest", "harmonise", "fuse"):
        assert float(found[f"fuse-year-{stage}"]["data"]) == 100.0
    assert "http://127.0.0.1:" in found["fuse-year-dashboard"]["data"]
    assert len(json.loads(found["fuse-year-pairs"]["data"])) == len(json.loads(found["fuse-year-scenes"]["data"]))
    assert found["fuse-year-quicklook"]["data"].startswith("data:image/png;base64,")
    assert "fused.zarr" in found["fuse-year-cube"]["data"]
    assert "fuse-year-failed-tiles" not in found
    names = {t["name"] for t in site.ask("/task_runs/filter", {})}
    assert names == {"plan", "ingest", "harmonise", "gate", "fuse", "finish"}


def test_the_full_name_goes_on_where_the_run_stands(site):
    ledger = site.here / "hailar-2023" / "ledger"
    before = {p: p.stat().st_mtime_ns for kind in ("ingest", "fuse") for p in (ledger / kind).glob("*.json")}
    command = ["deployment", "run", "fuse-year/fuse-year", "-p", "aoi=hailar.geojson", "--watch"]
    again = site.run(PREFECT, *command)
    assert again.returncode == 0, again.stdout + again.stderr
    assert len(before) == 8
    assert {p: p.stat().st_mtime_ns for p in before} == before


def test_a_run_that_cannot_be_done_fails_in_words(site):
    """A bad area, given as a name that is no file: the flow fails, and its message says what and what to do."""
    failed = site.run(PREFECT, "deployment", "run", "fuse-year", "--param", "aoi=typo.geojson", "--watch")
    assert failed.returncode == 1
    assert "is no file and typo.geojson is no bundled name" in failed.stderr
    run = site.ask("/flow_runs/filter", {"sort": "START_TIME_DESC", "limit": 1})[0]
    assert run["state_type"] == "FAILED"
    assert "there is no file" in run["state"]["message"]
    assert "typo.geojson" in run["state"]["message"]
    told = site.ask("/logs/filter", {"logs": {"flow_run_id": {"any_": [run["id"]]}}, "limit": 200})
    assert [line["message"] for line in told if "Traceback" in line["message"]] == []
    assert sum(line["message"].startswith("AOIError: ") for line in told) == 1


def test_training_is_a_command_like_the_other(site):
    """From the same folder and into the same store, whose inputs it finds read."""
    given = {"aoi": "hailar.geojson", "preset": "quick", "patch": 12, "near_days": 4, "min_clear": 60, "steps": 8}
    given |= {"batch": 2, "threads": 1, "out": "mine.safetensors"}
    params = [word for name, value in given.items() for word in ("--param", f"{name}={value}")]
    done = site.run(PREFECT, "deployment", "run", "train-year", *params, "--watch", timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr + processes.tail(site.state()["worker"]["log"], 60)
    assert (site.here / "mine.safetensors").stat().st_size > 10_000
    assert (site.here / "hailar-2023" / "training" / "cut.json").is_file()
    found = {a["key"]: a for a in site.ask("/artifacts/latest/filter", {"limit": 100})}
    for stage in ("ingest", "mine", "train"):
        assert float(found[f"train-year-{stage}"]["data"]) == 100.0
    assert found["train-year-curve"]["data"].startswith("data:image/png;base64,")
    assert {row["method"] for row in json.loads(found["train-year-scores"]["data"])} >= {"network", "additive"}
    assert "--weights" in found["train-year-weights"]["data"]


def test_an_evaluation_is_a_command_like_the_others(site):
    """From the same folder and into the same store, whose inputs it finds read."""
    given = {"aoi": "hailar.geojson", "methods": '["additive","bicubic"]', "draws": 100, "windows": 1, "side": 36}
    params = [word for name, value in given.items() for word in ("--param", f"{name}={value}")]
    done = site.run(PREFECT, "deployment", "run", "evaluate-year", *params, "--watch", timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr + processes.tail(site.state()["worker"]["log"], 60)
    report = site.here / "hailar-2023" / "evaluation"
    assert (report / "report.html").stat().st_size > 100_000
    assert "Comparison of fusion methods: hailar 2023" in (report / "scores.md").read_text()
    found = {a["key"]: a for a in site.ask("/artifacts/latest/filter", {"limit": 100})}
    for stage in ("ingest", "harmonise", "compare"):
        assert float(found[f"evaluate-year-{stage}"]["data"]) == 100.0
    names = {t["name"] for t in site.ask("/task_runs/filter", {})}
    assert names >= {"compare", "report"}


def test_down_leaves_no_trace(site):
    token = site.state()["token"]
    gone = site.run(MARSTFN, "down")
    assert gone.returncode == 0, gone.stderr
    assert processes._carrying(token) == []
    assert site.profiles.read_text() == MINE
    assert not (site.root / "marstfn").exists()
    again = site.run(MARSTFN, "down")
    assert again.returncode == 0
    assert "nothing was running" in again.stdout


def listening(token):
    """(host, port) on which a descendant of this `up` listens."""
    found = set()
    for process in processes._carrying(token):
        try:
            connections = process.net_connections(kind="inet")
        except psutil.Error:
            continue
        found |= {(c.laddr.ip, c.laddr.port) for c in connections if c.status == psutil.CONN_LISTEN}
    return found
