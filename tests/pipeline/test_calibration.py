"""How fast this machine is: measured once, kept, remade where what was kept is no good, and outweighed by runs."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from pipeline import calibration, experience
from pipeline.duration import NETWORK_PX_S, Rates
from pipeline.ledger import Record
from pipeline.plan import Options
from tests.pipeline import small_store

MEASURED = Rates(1234.0, 200.0, 300.0, source="measured on this machine")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MARSTFN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / calibration.NAME


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    calls: list[Any] = []

    def measured(plan: Any) -> Rates:
        calls.append(plan)
        return MEASURED

    monkeypatch.setattr(calibration, "measured", measured)
    monkeypatch.setattr(calibration, "busy", lambda: False)
    return calls


def test_a_machine_is_measured_once_for_a_kind_of_plan(cache: Path, counted: list[Any]) -> None:
    plan = small_store.plan()
    assert calibration.rates(plan) == MEASURED
    assert calibration.rates(plan) == MEASURED
    assert len(counted) == 1
    calibration.rates(plan.model_copy(update={"options": Options(time_shard=8, threads=3)}))
    calibration.rates(plan.model_copy(update={"versions": {"torch": "another"}}))
    calibration.rates(plan.model_copy(update={"weights": (plan.weights[0].model_copy(update={"sha256": "1" * 64}),)}))
    assert len(counted) == 4
    assert calibration.rates(plan) == MEASURED
    assert len(counted) == 4


def test_what_is_measured_on_a_busy_machine_says_so_and_is_not_kept(
    cache: Path, counted: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = small_store.plan()
    monkeypatch.setattr(calibration, "busy", lambda: True)
    assert "other work" in calibration.rates(plan).source
    assert not cache.exists()
    monkeypatch.setattr(calibration, "busy", lambda: False)
    assert calibration.rates(plan) == MEASURED
    monkeypatch.setattr(calibration, "busy", lambda: True)
    assert calibration.rates(plan) == MEASURED
    assert len(counted) == 2


@pytest.mark.parametrize(("load", "held"), [(0.1, False), (1e6, True), (None, False)])
def test_the_load_of_the_last_minute_tells_whether_a_machine_is_busy(
    monkeypatch: pytest.MonkeyPatch, load: float | None, held: bool
) -> None:
    def loads() -> tuple[float, float, float]:
        if load is None:
            raise OSError("unobtainable")
        return load, 0.0, 0.0

    monkeypatch.setattr(calibration.os, "getloadavg", loads)
    assert calibration.busy() is held


def test_what_is_old_is_measured_anew(cache: Path, counted: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    plan = small_store.plan()
    calibration.rates(plan)
    now = time.time()
    monkeypatch.setattr(calibration.time, "time", lambda: now + 2 * calibration.STALE_S)
    calibration.rates(plan)
    assert len(counted) == 2


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"{",
        b"[]",
        b'{"format": "0"}',
        b'{"format": "1", "calibrations": 7}',
        b'{"format": "1", "calibrations": {"KEY": {"taken": 1e12, "method_px_s": -1}}}',
        b'{"format": "1", "calibrations": {"KEY": {"taken": 1e12, "method_px_s": "fast"}}}',
        b'{"format": "1", "calibrations": {"KEY": {"taken": 1e12, "warp": 9}}}',
        b'{"format": "1", "calibrations": {"KEY": {"taken": "yesterday", "method_px_s": 1.0}}}',
    ],
)
def test_a_damaged_cache_is_remade(cache: Path, counted: list[Any], damage: bytes) -> None:
    plan = small_store.plan()
    cache.parent.mkdir(parents=True)
    cache.write_bytes(damage.replace(b"KEY", calibration.identity(plan).encode()))
    assert calibration.rates(plan) == MEASURED
    assert json.loads(cache.read_bytes())["calibrations"][calibration.identity(plan)]["method_px_s"] == 1234.0
    assert calibration.rates(plan) == MEASURED
    assert len(counted) == 1


@pytest.mark.parametrize("runs", [5, None, {}, "all"])
def test_damaged_runs_are_none_and_are_written_over(cache: Path, counted: list[Any], runs: Any) -> None:
    plan = small_store.plan()
    calibration.keep("runs", calibration._kind(plan, ""), {"runs": runs})
    assert calibration.rates(plan) == MEASURED
    calibration.learn(plan, "", 1.0, 2.0, "r1")
    assert calibration.rates(plan).ingest_mb_s == 1.0


def test_a_cache_in_nobodys_home_costs_only_its_use(counted: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MARSTFN_CACHE", "~nobodyhere/x")
    assert calibration.rates(small_store.plan()) == MEASURED
    calibration.learn(small_store.plan(), "", 1.0, 2.0, "r1")


def test_a_cache_that_cannot_be_written_costs_only_its_use(
    tmp_path: Path, counted: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("MARSTFN_CACHE", str(tmp_path / "file" / "below"))
    plan = small_store.plan()
    assert calibration.rates(plan) == calibration.rates(plan) == MEASURED
    assert len(counted) == 2


def test_without_calibration_nothing_is_measured(cache: Path, counted: list[Any]) -> None:
    plan = small_store.plan()
    found = calibration.rates(plan, calibrate=False)
    assert found.method_px_s == NETWORK_PX_S
    assert found.source == "assumed"
    assert not counted
    assert not cache.exists()


def test_runs_of_one_kind_outweigh_the_measure(cache: Path, counted: list[Any]) -> None:
    plan = small_store.plan()
    for run, (read, fused) in {"a": (5.0, 900.0), "b": (7.0, 1100.0), "c": (6.0, None)}.items():
        calibration.learn(plan, "", read, fused, run)
    calibration.learn(plan, "", 7.0, 1100.0, "b")  # told twice, counted once
    found = calibration.rates(plan)
    assert (found.ingest_mb_s, found.fuse_px_s) == (6.0, 1100.0)
    assert "3 earlier" in found.source
    elsewhere = plan.model_copy(update={"catalog": "simulated@http://127.0.0.1:2"})
    assert calibration.rates(elsewhere).ingest_mb_s == 6.0
    assert calibration.rates(plan, "tcp://10.0.0.1:8786").ingest_mb_s is None
    assert calibration.rates(plan.model_copy(update={"catalog": "earth-search"})).ingest_mb_s is None


def test_no_more_runs_are_kept_than_are_wanted(cache: Path) -> None:
    plan = small_store.plan()
    for run in range(3 * calibration.RUNS):
        calibration.learn(plan, "", 1.0 + run, 1.0, str(run))
    (kept,) = json.loads(cache.read_bytes())["runs"].values()
    assert [r["run"] for r in kept["runs"]] == [str(r) for r in range(2 * calibration.RUNS, 3 * calibration.RUNS)]


def test_time_in_which_no_tile_was_in_work_is_not_counted() -> None:
    def record(end: str, seconds: float) -> Record:
        return Record("fuse", "t", "f", {}, seconds=seconds, written=f"2026-05-01T{end}+00:00")

    together = [record("12:00:10", 10), record("12:00:12", 10), record("12:00:20", 8)]
    assert experience.busy(together) == pytest.approx(20)
    assert experience.busy([*together, record("18:00:00", 5)]) == pytest.approx(25)
    assert experience.busy([]) == 0
    assert experience.rate(100.0, together) == pytest.approx(5)
    assert experience.rate(100.0, [Record("fuse", "t", "f", {})]) is None
    assert experience.rate(100.0, together[:1]) is not None
    assert experience.rate(100.0, [record("12:00:10", 9)]) is None  # it may have loaded libraries for as long


def test_a_finished_store_is_remembered_and_a_half_finished_one_is_not(cache: Path, tmp_path: Path) -> None:
    store, plan = small_store.write(tmp_path / "store")
    items = {item.id: item for item in small_store.collection(plan.scenes)}
    for record in (tmp_path / "store/ledger").glob("*/*.json"):
        record.write_text(json.dumps(json.loads(record.read_text()) | {"seconds": 30.0}))
    (tmp_path / "store/ledger/fuse/r001c001.json").rename(tmp_path / "away")
    experience.remember(plan, store, items)
    assert not cache.exists()
    (tmp_path / "away").rename(tmp_path / "store/ledger/fuse/r001c001.json")
    experience.remember(plan, store, items)
    found = calibration.rates(plan, calibrate=False)
    assert found.ingest_mb_s is not None
    assert found.fuse_px_s is None  # these records count no patches


@pytest.mark.parametrize("method", ["bicubic", "fsdaf"])
def test_the_measures_give_rates(method: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ENOUGH_S",):
        monkeypatch.setattr(calibration, name, 0.01)
    options = Options(method=method, time_shard=8, threads=1)
    found = calibration.measured(small_store.plan(weights=(), options=options))
    assert found.pack_mb_s > 0
    assert found.reads_s is not None
    assert found.reads_s > 0
    # what has to compile first is not waited for
    assert (found.method_px_s is None) == (method == "fsdaf")
