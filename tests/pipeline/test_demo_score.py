"""Scores against the exact truth: on one pixel set for all methods, from a store as a run leaves it."""

import csv
import json
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from marstfn.bands import BANDS
from marstfn.simulate import Simulation
from pipeline import cube, harmonise, job, sampling, workers
from pipeline.demo import score
from pipeline.demo.score import Row, Score
from pipeline.errors import CubeError, PlanError
from pipeline.fuse import fuse_tile
from pipeline.ingest import ingest_fingerprint, ingest_tile
from pipeline.request import Request
from pipeline.store import FUSED, Store
from tests.conftest import Served

SHAPE = (24, 30)


def image(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0.02, 0.5, (6, *SHAPE)).astype(np.float32)


def test_perfection_and_a_known_error() -> None:
    truth, everywhere = image(1), np.ones(SHAPE, bool)
    scores = score.score_date(truth, {"exact": truth, "off": truth + np.float32(0.01)}, everywhere, truth)
    assert scores["exact"].psnr == np.inf
    assert scores["exact"].ssim == pytest.approx(1)
    assert scores["off"].rmse == pytest.approx(0.01, rel=1e-4)
    assert scores["off"].psnr == pytest.approx(40, abs=1e-3)
    assert {s.coverage for s in scores.values()} == {100.0}


def test_what_a_method_leaves_empty_is_scored_with_the_fallback_and_said() -> None:
    truth, fallback = image(1), image(1) + np.float32(0.1)
    half = truth.copy()
    half[2, :, :15] = np.nan
    scored = np.zeros(SHAPE, bool)
    scored[4:20, 5:25] = True
    scores = score.score_date(truth, {"half": half, "bicubic": fallback}, scored, fallback)
    assert scores["half"].coverage == 50.0
    # a pixel that lacks one band is empty in all
    assert scores["half"].rmse == pytest.approx(0.1 * np.sqrt(0.5), rel=1e-4)
    assert scores["bicubic"].rmse == pytest.approx(0.1, rel=1e-4)


def test_pixels_outside_the_set_do_not_matter() -> None:
    truth, made = image(1), image(2)
    scored = np.zeros(SHAPE, bool)
    scored[3:20, 3:20] = True
    changed = made.copy()
    changed[:, ~scored] = 0.9
    other_truth = truth.copy()
    other_truth[:, ~scored] = 0.1
    first = score.score_date(truth, {"m": made}, scored, truth)["m"]
    assert score.score_date(other_truth, {"m": changed}, scored, truth)["m"] == first
    assert score.score_date(truth, {"m": made}, np.zeros(SHAPE, bool), truth) == {}


def test_reference_is_per_pixel_the_nearer_of_the_first_clear_days_before_and_after() -> None:
    days, called = [], []
    for k, (columns, gap) in enumerate([((0, 10), -1), ((5, 20), 2), ((0, 30), 1), ((0, 30), -3)]):
        clear = np.zeros(SHAPE, bool)
        clear[:, columns[0] : columns[1]] = True

        def values(k: int = k) -> np.ndarray:
            called.append(k)
            return np.full((6, *SHAPE), k, np.float32)

        days.append((values, clear, gap))
    wanted = np.ones(SHAPE, bool)
    wanted[:, 25:] = False
    found, age = score.composed(days, wanted)
    # an equal distance goes to the earlier day, and a day farther on in the list to no pixel that its side has served
    np.testing.assert_array_equal(age[0], [1] * 5 + [-1] * 5 + [2] * 10 + [1] * 5 + [cube.FILL] * 5)
    np.testing.assert_array_equal(found[3, 7, :25], [2] * 5 + [0] * 5 + [1] * 10 + [2] * 5)
    assert np.isnan(found[:, :, 25:]).all()
    called.clear()
    score.composed(days, days[0][1] & ~days[1][1])
    assert called == [2]  # days that serve no wanted pixel are not read


def test_mean_over_dates_leaves_out_slivers() -> None:
    def row(percent: float, psnr: float) -> Row:
        return Row("2023-05-01", "2023-05-02", -1, 50, percent, {"fusion": Score(psnr, 0.9, 0.01, 100.0)})

    rows = [row(50, 30), row(20, 40), row(1, 5), Row("2023-06-01", None, None, 0, 0, {})]
    assert score.means(rows) == {"fusion": Score(35.0, 0.9, 0.01, 100.0)}
    assert score.means(rows[2:]) == {}


@pytest.fixture(scope="module")
def finished(season: Served, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """The small season through ingest, harmonisation and the additive method, in this process."""
    folder = tmp_path_factory.mktemp("scored")
    request = Request(
        aoi=str(season.aoi), year=2023, catalog=season.catalog, method="additive", tile_px=60, store=str(folder / "s"),
        base=folder,
    )  # fmt: skip
    made = job.prepare(request)
    plan, store = made.plan, made.store
    assert plan.grid == season.grid
    assert (len(plan.of("landsat8")), len(plan.of("sentinel2")), plan.simulated) == (8, 24, True)
    cube.create_inputs(plan, store)
    tiles = list(plan.grid.tiles())
    for tile in tiles:
        ingest_tile(plan, store, tile, made.items)
    identity = harmonise.harmonise_fingerprint(plan, [ingest_fingerprint(plan, tile) for tile in tiles])
    fits = harmonise.fit_scenes(plan, [sampling.sample_tile(plan, store, tile, 1500) for tile in tiles], identity)
    harmonise.write(store, fits)
    cube.create_fused(plan, store)
    pairs = workers.pairs(plan, store)
    for tile in tiles:
        fuse_tile(plan, store, tile, fits, pairs)
    return store


@pytest.fixture(scope="module")
def rows(season: Served, finished: Store) -> tuple[Row, ...]:
    return score.score(finished, season.simulation)


def test_a_row_for_every_landsat_date(season: Served, finished: Store, rows: tuple[Row, ...]) -> None:
    days = [a.time.date().isoformat() for a in season.simulation.acquisitions() if a.landsat and 5 <= a.time.month < 9]
    assert [row.date for row in rows] == days
    scored = [row for row in rows if row.scores]
    assert len(scored) >= 4
    for row in scored:
        assert set(row.scores) == set(score.METHODS)
        assert row.reference is not None
        assert row.reference_age == (date.fromisoformat(row.date) - date.fromisoformat(row.reference)).days
        assert 0 < row.scored_percent <= row.clear_percent <= 100
        assert all(s.coverage == 100 for s in row.scores.values())
        others = [row.scores[m].psnr for m in ("fusion", "bicubic", "copy")]
        assert row.scores["ceiling"].psnr > max(others)
    for row in rows:
        assert row.scores or (row.scored_percent, row.reference) == (0, None)


def test_set_and_reference_are_those_the_cube_used(finished: Store, rows: tuple[Row, ...]) -> None:
    with xr.open_zarr(finished.join(FUSED)) as ds:
        fused = ds.isel(time=(ds.source == cube.FUSED_SOURCE).values)
        for k, row in enumerate(rows):
            quality, age = fused.quality[k].values, fused.reference_age[k].values
            assert row.scored_percent == pytest.approx(100 * (quality == cube.FUSED_FREELY).mean(), abs=0.006)
            if row.scores:
                ages, counts = np.unique(age[np.isfinite(age)], return_counts=True)
                assert row.reference_age == ages[counts.argmax()]


def test_scores_agree_with_a_computation_of_their_own(season: Served, finished: Store, rows: tuple[Row, ...]) -> None:
    row = max(rows, key=lambda r: r.scored_percent)
    box = season.grid
    truth = season.simulation.truth(date.fromisoformat(row.date), box.left, box.top, box.shape(10))
    with xr.open_zarr(finished.join(FUSED)) as ds:
        fused = ds.isel(time=(ds.source == cube.FUSED_SOURCE).values)
        day = fused.isel(time=int(np.argmax(fused.time.dt.date.values == date.fromisoformat(row.date))))
        image = np.stack([day[band].values for band in BANDS])
        scored = day.quality.values == cube.FUSED_FREELY
    error = np.sqrt(((image - truth)[:, scored].astype(np.float64) ** 2).mean())
    assert row.scores["fusion"].rmse == pytest.approx(error, rel=1e-6)
    assert row.scores["fusion"].psnr == pytest.approx(-20 * np.log10(error), abs=1e-6)
    ceiling = season.simulation.sentinel2(date.fromisoformat(row.date), box.left, box.top, box.shape(10))
    error = np.sqrt(((ceiling - truth)[:, scored].astype(np.float64) ** 2).mean())
    assert row.scores["ceiling"].rmse == pytest.approx(error, rel=1e-6)


def test_tables_hold_all_rows(finished: Store, rows: tuple[Row, ...]) -> None:
    names = score.write(finished, rows)
    root = Path(finished.url)
    table = json.loads((root / names[0]).read_text())
    assert table["simulated"] is True
    assert [r["date"] for r in table["rows"]] == [r.date for r in rows]
    assert table["mean"]["fusion"]["psnr"] == score.means(rows)["fusion"].psnr
    lines = list(csv.DictReader((root / names[1]).open()))
    assert [line["date"] for line in lines] == [r.date for r in rows]
    for line, row in zip(lines, rows, strict=True):
        if row.scores:
            assert float(line["copy_ssim"]) == pytest.approx(row.scores["copy"].ssim, abs=1e-5)
        else:
            assert line["fusion_psnr"] == line["reference"] == ""


def test_refusals(season: Served, finished: Store, tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=r"2023.*not of the simulation of 2022.*Score a run over"):
        score.score(finished, replace(season.simulation, year=2022))
    with pytest.raises(PlanError, match="EPSG:32651"):
        score.score(finished, Simulation(season.simulation.seed, 2023, 32651))
    other = Store(str(tmp_path))
    for name in ("plan.json", "items.json"):
        other.write(name, finished.read(name))
    with pytest.raises(CubeError, match=r"harmonise\.json is missing.*run it again"):
        score.score(other, season.simulation)
