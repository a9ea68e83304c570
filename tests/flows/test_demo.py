"""The demo's parts that need no minutes: its area, its year, its table, and when it starts anew."""

import json
import shutil

import numpy as np
import pytest

from flows import demo, server
from marstfn.simulate import Simulation
from pipeline import aoi as areas
from pipeline import job, planner
from pipeline import request as requests
from pipeline.demo.score import Row, Score
from pipeline.store import PLAN, Store


@pytest.fixture(scope="module")
def year():
    return Simulation(demo.SEED, demo.YEAR, demo.GRID.epsg).acquisitions()


def test_the_area_leads_to_the_grid(tmp_path):
    area = areas.read(demo.write_aoi(tmp_path))
    grid = planner.covering(area, demo.GRID.tile_px)
    assert grid == demo.GRID
    assert grid.shape(10) == (240, 240)
    assert len(list(grid.tiles())) == 4


def test_the_year_is_whole_and_cloudy(year):
    landsat = [acq for acq in year if acq.landsat]
    sentinel = [acq for acq in year if not acq.landsat]
    assert len(landsat) >= 20
    assert len(sentinel) >= 60
    assert {acq.time.month for acq in landsat} == {acq.time.month for acq in sentinel} == set(range(1, 13))
    assert 35 <= np.mean([acq.cloud_cover for acq in year]) <= 60


def test_the_table_names_every_method_and_marks_what_is_simulated(capsys):
    scores = {name: Score(psnr=30.0 + k, ssim=0.9, rmse=0.03, coverage=100.0) for k, name in enumerate(demo.TITLES)}
    demo.show(
        [
            Row("2023-06-01", "2023-06-03", -2, 80.0, 78.0, scores),
            Row("2023-06-17", None, None, 0.0, 0.0, {}),
            Row("2023-07-03", "2023-07-03", 0, 0.2, 0.2, scores),
            Row("2023-07-19", "2023-07-18", 1, 3.4, 3.3, scores),
        ]
    )
    text = capsys.readouterr().out
    assert text.startswith("SIMULATED")
    assert [t for t in demo.TITLES.values() if t not in text] == []
    assert "2023-06-03 (-2 d)" in text
    assert "30.0 / 0.900" in text
    assert "1 dates" in text
    assert "<1 few" in text
    assert "3 few" in text
    assert "80 few" not in text
    assert "Higher is better" in text
    assert "few: under 5 % of all, and not in the mean" in text


def test_an_earlier_demo_is_gone_on_with(tmp_path, season, monkeypatch):
    monkeypatch.setattr(demo, "GRID", season.grid)
    store = Store(str(tmp_path / "store"))
    asked = requests.make(aoi=str(season.aoi), store=store.url, **demo.asked_for(season.catalog))
    job.prepare(asked)
    assert demo.earlier_port(season.aoi, store) == (0, f"port {season.url.rsplit(':', 1)[1]} of its catalogue is taken")
    monkeypatch.setattr(server, "free", lambda port: True)
    assert demo.earlier_port(season.aoi, store) == (int(season.url.rsplit(":", 1)[1]), "")
    monkeypatch.setattr(demo, "YEAR", 2022)
    port, why = demo.earlier_port(season.aoi, store)
    assert port == 0
    assert why.startswith("the earlier demo was made otherwise (year")


def test_a_plan_of_another_version_is_not_gone_on_with(tmp_path):
    store = Store(str(tmp_path / "store"))
    store.write(PLAN, json.dumps({"format": "0"}).encode())
    assert demo.earlier_port(tmp_path / "demo.geojson", store) == (0, "what is there was not made by this version")


def test_the_place_it_suggests_lies_on_even_ground_of_the_cube(tmp_path):
    from pipeline import indices, places
    from pipeline.cube import open_cube
    from tests.pipeline import small_store

    store, _ = small_store.write(tmp_path / "run")
    cube = open_cube(store.url)
    row, col = indices.pixel_of(cube, *demo.field(store))
    assert (row, col) == places.pick(indices.ndvi(cube).values)[0][1:]


def test_the_next_commands_exist(tmp_path, monkeypatch):
    from flows import cli

    monkeypatch.chdir(tmp_path)
    commands = demo.next_commands(Store(str(tmp_path / "demo" / "demo-2023")), (119.7, 49.2))
    text = "\n".join(commands)
    assert "--point 119.70000,49.20000 --plot demo/ndvi-here.png" in text
    assert "--out demo/tiffs" in text
    assert "marstfn catalogue demo/scenes" in text
    for command in commands:
        words = command.split("#")[0].split()
        if words[0] == "marstfn":
            assert words[1] in cli.app
        else:
            assert shutil.which(words[0]) or words[0] in ("source", "export", "prefect")
