"""The whole job on real scenes, over HTTP and with the shipped weights, held against Sentinel-2 it never referred to.

Near Wervik two Landsat dates of 2018 have a Sentinel-2 pass of the same morning. Keeping references at least a day away
leaves those passes in the cube as observed dates, and free to be the truth. Near Thoothukudi there is real pan; the
Sentinel-2 side is a stand-in made from each Landsat day itself, so each date is fused with the other day's.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import date
from functools import cached_property
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from distributed import Client, LocalCluster

from marstfn.bands import BANDS, RATIO
from marstfn.baselines import METHODS
from marstfn.weights import load
from pipeline import cluster, cube, fuse, job, request
from pipeline.cube import CLEAR, FUSED_PIXEL, FUSED_PIXELS, FUSED_SOURCE, OBSERVED, OBSERVED_SOURCE, UPSAMPLED
from pipeline.demo.score import Score, score_date
from pipeline.demo.server import serve
from pipeline.harmonise import NAME as HARMONISATION
from pipeline.harmonise import read as read_harmonisation
from pipeline.store import FUSED, INPUTS, PLAN, Store
from pipeline.verify import verify
from tests.pipeline import real

pytestmark = [pytest.mark.shared, pytest.mark.server]

SAME_DAY = (date(2018, 8, 2), date(2018, 10, 21))
"""Days that both sensors saw clear near Wervik."""
REFLECTANCE = (-0.1, 1.0)
"""Of farmland and a town without snow; a thick haze reads below 0 in the blue."""


@dataclass(frozen=True)
class Run:
    """A finished job, in its store."""

    made: job.Job

    @property
    def folder(self) -> Path:
        return Path(self.made.store.url)

    @cached_property
    def ds(self) -> xr.Dataset:
        """The cube as any reader opens it, in memory."""
        with xr.open_zarr(self.folder / FUSED) as ds:
            return ds.load()


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    """A cluster inside this process: where the flow on worker processes is not what is tested."""
    with (
        LocalCluster(
            processes=False, n_workers=1, threads_per_worker=1, resources={cluster.GPU: 1}, dashboard_address=None
        ) as local,
        Client(local, set_as_default=False) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def flanders(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """2018 near Wervik: all stages, on the embedded cluster of worker processes."""
    folder = tmp_path_factory.mktemp("flanders")
    scenes = real.write_flanders(shared, folder / "scenes")
    with serve(scenes.folder) as server:
        summary = job.run(_asked(scenes, server.url, folder / "store", weights="marstfn-nopan", tile_px=66))
        assert server.log.count("*.tif", status=206) > 500
    assert summary.cube == str(folder / "store" / FUSED)
    return Run(job.open_job(Store(summary.store)))


@pytest.fixture(scope="module")
def others(flanders: Run, client: Client) -> dict[str, Run]:
    """The same inputs, corrected in the same way, given to the methods that need no weights."""
    return {method: _again(flanders, client, method) for method in METHODS}


@dataclass(frozen=True)
class Panned:
    """The run near Thoothukudi, and what its network was given."""

    run: Run
    others: dict[str, Run]
    given: list[tuple[int, float, float]]
    """By call: patches, least and greatest value of pan in them."""


@pytest.fixture(scope="module")
def india(shared: Path, client: Client, tmp_path_factory: pytest.TempPathFactory) -> Panned:
    """Two dates of 2023 near Thoothukudi with the 15 m band, stage by stage in this process."""
    folder = tmp_path_factory.mktemp("india")
    scenes = real.write_india(shared, folder / "scenes")
    given: list[tuple[int, float, float]] = []
    with serve(scenes.folder) as server, pytest.MonkeyPatch.context() as patch:
        patch.setattr(fuse, "methods", _listening(fuse.methods, given))
        made = job.prepare(_asked(scenes, server.url, folder / "store", weights="auto", tile_px=60))
        job.ingest(made, client)
        job.harmonise(made, client)
        job.fuse(made, client)
        job.finish(made)
    run = Run(made)
    return Panned(run, {method: _again(run, client, method) for method in METHODS}, given)


def test_the_real_year_becomes_a_whole_cube(flanders: Run) -> None:
    report = verify(flanders.folder)
    assert report.ok, report.findings
    ds = flanders.ds
    assert ds.attrs["status"] == "complete"
    assert ds.attrs["simulated"] == "false"
    assert ds.attrs["weights_sha256"] == [load("marstfn-nopan").sha256]
    assert not flanders.made.plan.has_pan
    # two frames of one pass are one date
    assert [s.day for s in flanders.made.plan.scenes if len(s.items) > 1] == [date(2018, 6, 6), date(2018, 7, 24)]
    assert np.unique(ds.source.values, return_counts=True)[1].tolist() == [17, 91]
    assert (np.diff(ds.time.values) > np.timedelta64(0)).all()
    fused = ds.quality.values == FUSED_PIXEL
    assert (fused.any(axis=(1, 2)) <= (ds.source.values == FUSED_SOURCE)).all()
    assert fused[ds.source.values == FUSED_SOURCE].mean() > 0.4
    for band in BANDS:
        values = ds[band].values[fused]
        assert np.isfinite(values).all()
        assert REFLECTANCE[0] < values.min() < values.max() < REFLECTANCE[1], band
    residual = ds.coherence.values[fused]
    print(f"|D(fused) - Landsat| near Wervik: median {np.median(residual):.4f}, 99 % below "
          f"{np.quantile(residual, 0.99):.4f}")  # fmt: skip
    assert np.median(residual) < 0.01


def test_no_date_refers_to_sentinel_2_of_its_own_day(flanders: Run) -> None:
    made, ds = flanders.made, flanders.ds
    landsat, sentinel2 = made.plan.of("landsat8"), made.plan.of("sentinel2")
    pairs = json.loads(made.store.read(job.PAIRS) or b"")
    assert [p["landsat"] for p in pairs] == list(range(len(landsat)))
    referred = {landsat[p["landsat"]].day: [sentinel2[j].day for j in p["references"]] for p in pairs}
    for day in SAME_DAY:
        assert day in {s.day for s in sentinel2}
        assert referred[day]
        assert day not in referred[day]
    assert min(abs(gap) for p in pairs for gap in p["days"]) >= 1
    age = ds.reference_age.values
    assert (np.isfinite(age) == (ds.quality.values == FUSED_PIXEL)).all()
    assert np.nanmin(np.abs(age)) >= 1
    # the guard is what keeps them out: without it they would come first
    options = made.plan.options.model_copy(update={"min_reference_days": 0})
    unguarded = job.pairs(made.plan.model_copy(update={"options": options}), made.store)
    first = {landsat[p.landsat].day: sentinel2[p.references[0]].day for p in unguarded}
    assert [first[day] for day in SAME_DAY] == list(SAME_DAY)


def test_what_was_seen_on_the_day_itself_does_not_matter_to_what_is_fused(
    flanders: Run, others: dict[str, Run], client: Client
) -> None:
    """Sentinel-2 of both days overwritten with nonsense: fits and fused values of the dates stay to the last bit."""

    def spoil(store: Store) -> None:
        for band in BANDS:
            stored = cube.array(store, INPUTS, f"sentinel2/{band}", "r+")
            for k, scene in enumerate(flanders.made.plan.of("sentinel2")):
                if scene.day in SAME_DAY:
                    stored[k] = 9999 - np.asarray(stored[k])
        store.delete(HARMONISATION)

    spoiled = _again(flanders, client, "additive", name="spoiled", before=spoil)
    assert read_harmonisation(spoiled.made.store) == read_harmonisation(flanders.made.store)
    ours, theirs = spoiled.ds, others["additive"].ds
    for day in SAME_DAY:
        np.testing.assert_array_equal(_values(ours, day, FUSED_SOURCE), _values(theirs, day, FUSED_SOURCE))
        seen = [_values(ds, day, OBSERVED_SOURCE) for ds in (ours, theirs)]
        assert not np.array_equal(*seen, equal_nan=True)


def test_over_both_real_dates_fusion_is_nearer_to_sentinel_2_of_the_day_than_the_references(
    flanders: Run, others: dict[str, Run]
) -> None:
    """Scores and ranks by date are printed as measured; held is only that fusing beats not fusing."""
    pixels, squares = 0, dict.fromkeys(("network", "copy"), 0.0)
    for day in SAME_DAY:
        count, scores = _scores(flanders, others, day)
        assert count > 3000
        assert scores["network"].coverage > 95
        pixels += count
        for name in squares:
            squares[name] += count * scores[name].rmse ** 2
    pooled = {name: float(np.sqrt(total / pixels)) for name, total in squares.items()}
    print(f"both: network {pooled['network']:.5f}, copy {pooled['copy']:.5f}")
    assert pooled["network"] < pooled["copy"]


def test_pan_is_matched_and_used_for_both_dates(india: Panned) -> None:
    plan = india.run.made.plan
    assert [s.pan_items for s in plan.of("landsat8")] == [
        ("LC08_L1TP_143054_20230213_20230218_02_T1",), ("LC08_L1TP_143054_20230418_20230429_02_T1",),
    ]  # fmt: skip
    assert [(w.pan, w.sha256) for w in plan.weights if w.pan] == [(True, load("marstfn-pan").sha256)]
    records = [json.loads(p.read_text()) for p in (india.run.folder / "ledger/fuse").glob("*.json")]
    assert len(records) == 4
    assert sum(count for count, _, _ in india.given) == sum(r["stats"]["patches"] for r in records) > 0
    # top-of-atmosphere reflectance of dry land, known everywhere
    assert min(low for _, low, _ in india.given) > 0.02
    assert max(high for _, _, high in india.given) < 0.7


def test_the_cube_made_with_pan_is_whole_and_says_that_it_is_simulated(india: Panned) -> None:
    report = verify(india.run.folder)
    assert report.ok, report.findings
    ds = india.run.ds
    assert ds.attrs["status"] == "complete"
    assert load("marstfn-pan").sha256 in ds.attrs["weights_sha256"]
    assert list(ds.source.values) == [FUSED_SOURCE, OBSERVED_SOURCE] * 2
    assert [np.unique(plane).tolist() for plane in ds.quality.values] == [[FUSED_PIXEL], [OBSERVED]] * 2
    assert [np.unique(plane).tolist() for plane in ds.reference_age.values[::2]] == [[-64], [64]]
    for band in BANDS:
        assert np.isfinite(ds[band].values).all()
        assert REFLECTANCE[0] < ds[band].values.min() < ds[band].values.max() < REFLECTANCE[1], band
    residual = ds.coherence.values[::2]
    print(f"|D(fused) - Landsat| near Thoothukudi: median {np.median(residual):.4f}, 99 % below "
          f"{np.quantile(residual, 0.99):.4f}")  # fmt: skip
    assert np.median(residual) < 0.01
    assert np.quantile(residual, 0.99) < 0.02
    # Landsat is real, but all that was seen at 10 m was made up
    assert ds.attrs["simulated"] == "true"
    item = json.loads((india.run.folder / "fused.stac.json").read_text())
    assert item["properties"]["marstfn:simulated"] is True
    assert item["properties"]["marstfn:pan"] is True


def test_both_dates_are_compared_with_their_own_stand_in_everywhere(india: Panned) -> None:
    """Scores are printed and not judged: stand-ins are no truth. By the masks every pixel is scored."""
    for day in (date(2023, 2, 13), date(2023, 4, 18)):
        count, scores = _scores(india.run, india.others, day)
        assert count == 120 * 120
        assert {name: s.coverage for name, s in scores.items()} == dict.fromkeys(scores, 100.0)
        assert len({round(s.rmse, 6) for s in scores.values()}) == 4  # the methods are four, not one


def _asked(scenes: real.Real, url: str, store: Path, **extra: object) -> request.Request:
    return request.make(
        aoi=str(scenes.aoi), year=scenes.year, catalog=f"{scenes.profile}@{url}", store=str(store),
        min_reference_days=1, batch=2, threads=1, device="cpu", method="network", **extra,
    )  # fmt: skip


def _listening(methods, given: list[tuple[int, float, float]]):
    """`fuse.methods` that notes what each call is given as pan."""

    def noted(plan, name):
        made = methods(plan, name)
        if True not in made:
            return made

        def predict(s2, landsat, pan, context):
            given.append((len(pan), float(pan.min()), float(pan.max())))
            return made[True].predict(s2, landsat, pan, context)

        return {**made, True: replace(made[True], predict=predict)}

    return noted


def _again(run: Run, client: Client, method: str, *, name: str | None = None, before=None) -> Run:
    """The run's store copied, and its tiles fused by another method from the inputs and fits that are there."""
    folder = run.folder.with_name(name or method)
    shutil.copytree(run.folder, folder, ignore=shutil.ignore_patterns("fused*", "fuse", "report", "logs"))
    store, plan = Store(str(folder)), run.made.plan
    options = plan.options.model_copy(update={"method": method})
    store.write(PLAN, plan.model_copy(update={"options": options, "weights": ()}).model_dump_json().encode())
    if before is not None:
        before(store)
    made = job.open_job(store)
    job.harmonise(made, client)
    job.fuse(made, client)
    return Run(made)


def _values(ds: xr.Dataset, day: date, source: str, flags: tuple[int, ...] | None = None) -> np.ndarray:
    """(6, H, W) of a day of one sensor, NaN where `quality` is none of `flags`."""
    (k,) = np.flatnonzero((ds.time.values.astype("datetime64[D]") == np.datetime64(day)) & (ds.source.values == source))
    image = np.stack([ds[band].values[k] for band in BANDS])
    return image if flags is None else np.where(np.isin(ds.quality.values[k], flags), image, np.nan)


def _scores(run: Run, others: dict[str, Run], day: date) -> tuple[int, dict[str, Score]]:
    """Pixels scored, and network and other methods against Sentinel-2 of the same day; printed, too.

    Scored are the pixels that Landsat's and that day's Sentinel-2's own masks call clear, whatever a method makes of
    them; one that a method has no reference for counts as bicubic Landsat.
    """
    ds = run.ds
    index = [s.day for s in run.made.plan.of("landsat8")].index(day)
    clear = np.asarray(cube.array(run.made.store, INPUTS, "landsat8/clear")[index]) == CLEAR
    truth = _values(ds, day, OBSERVED_SOURCE, (OBSERVED,))
    scored = np.repeat(np.repeat(clear, RATIO, 0), RATIO, 1) & np.isfinite(truth).all(axis=0)
    truth = np.where(scored, truth, 0).astype(np.float32)
    enlarged = _values(others["bicubic"].ds, day, FUSED_SOURCE, (UPSAMPLED,))
    made = {"network": _values(ds, day, FUSED_SOURCE, (FUSED_PIXEL,)), "bicubic": enlarged}
    for name in ("additive", "copy"):
        made[name] = _values(others[name].ds, day, FUSED_SOURCE, FUSED_PIXELS)
    scores = score_date(truth, made, scored, enlarged)
    count = int(scored.sum())
    print(f"\n{day}, {count} px\n{'method':10}{'RMSE':>9}{'SSIM':>8}{'PSNR':>8}{'coverage':>10}")
    for name, score in sorted(scores.items(), key=lambda entry: entry[1].rmse):
        print(f"{name:10}{score.rmse:9.5f}{score.ssim:8.4f}{score.psnr:8.2f}{score.coverage:9.1f}%")
    return count, scores
