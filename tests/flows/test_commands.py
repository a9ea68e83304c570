"""`marstfn run` on the served season, interrupted and taken up again, and what one does with the cube."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import xarray as xr

MARSTFN = str(Path(sys.executable).with_name("marstfn"))

pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def place(tmp_path_factory, season):
    """(folder, environment) in which a user stands, the season's catalogue being the default."""
    folder = tmp_path_factory.mktemp("commands")
    env = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "MARSTFN_"))}
    env |= {"HOME": str(folder), "MARSTFN_CATALOG": season.catalog, "MARSTFN_YEAR": "2023"}
    (folder / "field.geojson").write_bytes(season.aoi.read_bytes())
    return folder, env


def typed(place, *arguments):
    folder, env = place
    return subprocess.run([MARSTFN, *arguments], cwd=folder, env=env, capture_output=True, text=True, timeout=400)


RUN = ["run", "field.geojson", "--method", "additive"]


@pytest.fixture(scope="module")
def interrupted(place):
    """(exit code, standard error) of a run that got Ctrl-C, as a terminal gives it, while it read."""
    folder, env = place
    # whoever runs the tests in the background of a shell hands down a deaf ear for SIGINT
    heard = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # noqa: E731
    with subprocess.Popen(
        [MARSTFN, *RUN, "-v"], cwd=folder, env=env, stderr=subprocess.PIPE, text=True, start_new_session=True,
        preexec_fn=heard,
    ) as run:  # fmt: skip
        said = []
        for line in run.stderr:
            said.append(line)
            if "Dask dashboard" in line:
                time.sleep(1.0)
                os.killpg(run.pid, signal.SIGINT)
        run.wait()
    return run.returncode, "".join(said)


@pytest.fixture(scope="module")
def finished(place, interrupted):
    """The run typed again."""
    return typed(place, *RUN)


def test_plan_shows_what_a_run_would_do(place):
    done = typed(place, "plan", "field.geojson", "--out", "plan.json")
    assert done.returncode == 0, done.stderr
    assert "120 x 120 px" in done.stdout
    assert "4 tiles of 60 px" in done.stdout
    assert re.search(r"^2023-07 +2 ", done.stdout, re.MULTILINE)
    assert (place[0] / "plan.json").is_file()
    assert not (place[0] / "field-2023").exists()


def test_an_interrupt_ends_with_130_and_says_that_nothing_is_lost(interrupted):
    code, said = interrupted
    assert code == 130, said
    assert "a run keeps its finished tiles" in said
    assert "Traceback" not in said


def test_the_same_command_goes_on_and_ends_with_the_cube(place, finished):
    assert finished.returncode == 0, finished.stderr
    path = place[0] / "field-2023" / "fused.zarr"
    assert finished.stdout.splitlines()[-1] == f"cube: {path}"
    assert "going on with the plan" in finished.stderr
    assert "Dask dashboard: http://127.0.0.1:" in finished.stderr
    ds = xr.open_zarr(path)
    assert ds.attrs["status"] == "complete"


def test_plan_tells_what_it_costs_and_with_v_scene_by_scene(place, finished):
    done = typed(place, "plan", "field.geojson", "--method", "additive", "-v")
    assert done.returncode == 0, done.stderr
    assert re.search(r"^year +8 +\d+ % +8 +2\d +\d+ %$", done.stdout, re.MULTILINE), done.stdout
    told = r"^expected to be read .*MB; about .*: .* to read, .* to fuse on .*\(rates: .*\)$"
    assert re.search(told, done.stdout, re.MULTILINE), done.stdout
    assert re.search(r"^landsat-8 2023-05-.., \d+ % clear: LC08.*, pan LC08_L1TP", done.stdout, re.MULTILINE)
    assert "expected and not in the catalogue" not in done.stdout
    assert re.search(r"^store: +nothing new since the plan of \d{4}-\d\d-\d\d$", done.stdout, re.MULTILINE)


def test_the_log_carries_run_and_tile(place, finished):
    logs = sorted((place[0] / "field-2023" / "logs").glob("*.log"), key=lambda p: p.stat().st_mtime)
    text = logs[-1].read_text()
    assert f"run={logs[-1].stem} " in text
    assert set(re.findall(r"tile=(\S+) flows\.work: stage fuse: done", text)) == {
        "r000c000", "r000c001", "r001c000", "r001c001"
    }  # fmt: skip
    assert "cube: " in text
    assert "interrupted" in logs[0].read_text()


def test_an_update_that_finds_nothing_new_says_so_and_keeps_the_cube(place, finished):
    done = typed(place, *RUN, "--update")
    assert done.returncode == 0, done.stderr
    assert "nothing new since the plan of" in done.stderr
    assert "cube: " in done.stdout


def test_status_and_verify(place, finished):
    state = typed(place, "status", "field-2023")
    assert state.returncode == 0
    assert "4 of 4 tiles" in state.stdout
    assert f"complete: {place[0] / 'field-2023' / 'fused.zarr'}" in state.stdout
    assert "harmonise done" in state.stdout
    good = typed(place, "verify", "field-2023/fused.zarr")
    assert good.returncode == 0, good.stdout


def test_ndvi_at_a_point_as_a_plot_and_as_a_cube(place, finished, season):
    lon, lat = season.grid.geobox(10).extent.centroid.to_crs("EPSG:4326").coords[0]
    done = typed(place, "ndvi", "field-2023", "--point", f"{lon},{lat}", "--plot", "n.png", "--out", "n.zarr")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("time,ndvi,")
    assert len([line for line in lines if line.startswith("2023-")]) == xr.open_zarr(place[0] / "n.zarr").sizes["time"]
    assert (place[0] / "n.png").read_bytes().startswith(b"\x89PNG")
    again = typed(place, "ndvi", "field-2023", "--out", "n.zarr")
    assert again.returncode == 1
    assert "exists already" in again.stderr
    outside = typed(place, "ndvi", "field-2023", "--point", "-0.5,51.5")
    assert outside.returncode == 1
    assert "outside the cube" in outside.stderr


def test_export(place, finished):
    import rasterio

    ds = xr.open_zarr(place[0] / "field-2023" / "fused.zarr")
    known = ds["red"].notnull().any(("y", "x")).values
    days = [str(t)[:10] for t in ds["time"].values]
    day = days[int(known.argmax())]
    done = typed(place, "export", "field-2023", "--out", "tiffs", "--dates", day, "--bands", "red", "nir08")
    assert done.returncode == 0, done.stderr
    with rasterio.open(place[0] / done.stdout.split()[0]) as tiff:
        assert tiff.count == 2
        assert tiff.shape == (120, 120)
    everything = typed(place, "export", "field-2023", "--out", "all", "--bands", "red")
    assert len(everything.stdout.splitlines()) == known.sum()
    left = f", {(~known).sum()} without a known pixel" if not known.all() else ""
    assert f"{len(days)} dates, {known.sum()} written{left}" in everything.stderr
    wrong = typed(place, "export", "field-2023", "tiffs", "--dates", "2023-01-01")
    assert wrong.returncode == 1
    assert "2023-01-01" in wrong.stderr


def test_another_year_into_the_same_store_is_refused(place, finished):
    done = typed(place, "run", "field.geojson", "--method", "bicubic", "--store", "field-2023")
    assert done.returncode == 1
    assert "holds another plan" in done.stderr
    assert "--store" in done.stderr


def test_a_damaged_shard_is_found(place, finished):
    shard = next(p for p in (place[0] / "field-2023" / "fused.zarr" / "red" / "c").rglob("*") if p.is_file())
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 0xFF
    shard.write_bytes(bytes(data))
    done = typed(place, "verify", "field-2023")
    assert done.returncode == 1
    assert str(shard.relative_to(place[0] / "field-2023")) in done.stdout
