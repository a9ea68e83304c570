"""`marstfn train` on the served season: stopped for time, taken up again, and its weights put to use."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from flows import cli
from marstfn import dataset, weights
from pipeline import job, mining
from pipeline.errors import PlanError
from pipeline.split import SETS
from pipeline.store import Store
from pipeline.verify import verify

pytestmark = pytest.mark.server

MARSTFN = str(Path(sys.executable).with_name("marstfn"))
TRAIN = ["train", "field.geojson", "--preset", "quick", "--patch", "12", "--near-days", "4", "--min-clear", "60"]
BUDGET = ["--steps", "24", "--batch", "2", "--threads", "1", "--out", "mine.safetensors"]


@pytest.fixture(scope="module")
def place(tmp_path_factory, season):
    """(folder, environment) in which a user stands, the season's catalogue being the default."""
    folder = tmp_path_factory.mktemp("train")
    env = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "MARSTFN_"))}
    env |= {"HOME": str(folder), "MARSTFN_CATALOG": season.catalog, "MARSTFN_YEAR": "2023", "OMP_NUM_THREADS": "1"}
    (folder / "field.geojson").write_bytes(season.aoi.read_bytes())
    return folder, env


def typed(place, *arguments):
    folder, env = place
    return subprocess.run([MARSTFN, *arguments], cwd=folder, env=env, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def stopped(place):
    """A training that its time ran out on after a step."""
    return typed(place, *TRAIN, *BUDGET, "--seconds", "0.01")


@pytest.fixture(scope="module")
def finished(place, stopped, season):
    """The same command, with time; what it asked the catalogue for is in the log."""
    season.server.log.clear()
    return typed(place, *TRAIN, *BUDGET)


def store(place) -> Path:
    return place[0] / "field-2023"


def run_folder(place) -> Path:
    (folder,) = (store(place) / "training").glob("run-*")
    return folder


def test_out_of_time_it_says_so_and_keeps_the_weights_it_has(place, stopped):
    assert stopped.returncode == 0, stopped.stderr
    assert "1 of 24 steps: the same command goes on from here" in stopped.stdout
    assert stopped.stdout.splitlines()[-1] == f"weights: {place[0] / 'mine.safetensors'}"


def test_the_same_command_goes_on(place, stopped, finished, season):
    assert finished.returncode == 0, finished.stderr
    assert season.server.log.count("*.tif") == 0, "nothing is read twice"
    assert "going on with the plan" in finished.stderr
    assert "train: 1 of 24 steps are done already" in finished.stderr
    assert "train: 24 of 24 steps, loss" in finished.stderr
    assert "of additive" in finished.stderr
    assert "24 of 24 steps" in finished.stdout
    curve = (run_folder(place) / "curve.csv").read_text().splitlines()
    assert [int(line.split(",")[0]) for line in curve[1:]] == [1, 6, 12, 18, 24]
    assert (run_folder(place) / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_the_samples_on_disk_are_those_of_the_cut(place, finished):
    want = mining.wanted(Store(str(store(place))))
    for name, picks in zip(SETS, want.cut.picks, strict=True):
        there = dataset.read(store(place) / "training" / name)
        assert 0 < len(there["truth"]) <= len(picks)
        assert there["truth"].shape[1:] == (6, 12, 12)
        assert there["scored"].mean() > 0.5
        # references are of other days: no pixel of the truth came in that way
        ages = there["context"][:, 6:] * 1e-4 * 60
        assert ages.min() >= 0.99


def test_the_table_compares_with_every_free_method(finished, place):
    from marstfn.baselines import LOCAL, METHODS

    for name in ("network", *(name for name, method in METHODS.items() if method.side == LOCAL)):
        assert f"\n{name} " in finished.stdout
    scores = json.loads((run_folder(place) / "scores.json").read_text())
    assert scores["verdict"] in ("ahead", "tie", "behind")
    assert scores["low"] <= scores["difference"] <= scores["high"]
    best = scores["best_free"]
    assert f"network is {scores['verdict'].upper()}" in finished.stdout or best in finished.stdout


def test_the_weights_say_what_they_are(place, finished, season):
    found = weights.load(place[0] / "mine.safetensors")
    header = found.header
    assert (found.config.patch, found.config.pan) == (12, True)
    assert "SIMULATED" in header["data"]
    assert season.catalog in header["data"]
    assert header["protocol"].startswith("cross-sensor")
    items = json.loads(header["items"])
    assert len(items) > 20
    metrics = json.loads(header["metrics"])
    assert metrics["test"]["samples"] > 0
    assert {s["method"] for s in metrics["test"]["scores"]} >= {"network", "additive", "bicubic"}
    assert set(header) >= {"bands", "scale", "radiometry", "credits", "licence", "version", "commit", "created"}
    assert json.loads(header["training"])["steps"] == 24


def test_they_fuse_the_same_store_at_once(place, finished, season):
    """The inputs that training read serve the run: nothing is read again."""
    season.server.log.clear()
    (use,) = re.findall(r"^to use them: (.*)$", finished.stdout, re.M)
    words = use.split()
    assert words[:3] == ["marstfn", "run", "field.geojson"]
    done = typed(place, *words[1:], "--batch", "64", "--threads", "1")
    assert done.returncode == 0, done.stderr
    assert season.server.log.count("*.tif") == 0
    assert "going on with the inputs" in done.stderr
    with xr.open_zarr(store(place) / "fused.zarr") as ds:
        assert ds.attrs["status"] == "complete"
        assert ds.attrs["weights_sha256"] == [weights.load(place[0] / "mine.safetensors").sha256]
        assert np.isfinite(ds["red"].values).mean() > 0.2
    # a cube of these weights is there now: what is told next leads elsewhere, for it would be refused here
    again = typed(place, *TRAIN, *BUDGET)
    assert f"--store {store(place)}-mine --weights" in again.stdout
    report = verify(str(store(place)))
    assert report.ok, report.findings


@pytest.fixture
def here(place, monkeypatch):
    """This process stands where the user stands."""
    monkeypatch.chdir(place[0])
    for name in ("MARSTFN_CATALOG", "MARSTFN_YEAR"):
        monkeypatch.setenv(name, place[1][name])


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--patch", "60"], 1, ["too few clear pairs", "24, 4, 4", "cross-sensor protocol: 0 train", "1800 m", "kept"]),
        (["--start", "2023-06-01"], 1, ["holds another plan", "first day", "--store"]),
        (["--weights", "no.safetensors"], 2, ["no.safetensors", "nothing was started"]),
        (["--weights", "marstfn-nopan", "--patch", "24"], 2, ["another form", "patch is 60, asked is 24"]),
        (["--weights", "marstfn-nopan", "--preset", "paper"], 2, ["not the paper's"]),
        (["--patch", "13"], 2, ["patch = 13", "multiple of 6"]),
        (["--min-clear", "200"], 2, ["min_clear = 200"]),
    ],
)
def test_what_cannot_be_done_is_said_in_words(place, finished, here, capsys, arguments, code, words):
    before = {p: p.stat().st_mtime_ns for p in (store(place) / "training").rglob("*.npz")}
    assert cli.run(["train", "field.geojson", *arguments]) == code
    said = capsys.readouterr().err
    assert [w for w in words if w not in said] == []
    assert "Traceback" not in said
    assert {p: p.stat().st_mtime_ns for p in before} == before


def test_another_catalogue_without_pan_trains_none_with_it(place, finished):
    from pipeline import lesson, training

    course = lesson.make(aoi="field.geojson", base=place[0], pan=True)
    made = job.open_job(Store(str(store(place))))
    assert training.pan_of(made.plan, course)
    bare = [scene.model_copy(update={"pan_items": ()}) for scene in made.plan.scenes]
    with pytest.raises(PlanError, match="--no-pan"):
        training.pan_of(made.plan.model_copy(update={"scenes": tuple(bare)}), course)
