"""Each fault that a store can have is planted once, and must be told with what, where, consequence and remedy."""

from __future__ import annotations

import dataclasses
import json
import shutil
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr

from pipeline import checks, cube, ledger, verify
from pipeline.errors import CubeError
from pipeline.events import StageDone, TileDone
from pipeline.plan import Plan
from pipeline.store import FUSED, INPUTS, Store
from tests.pipeline import small_store


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Plan]:
    folder = tmp_path_factory.mktemp("verify") / "run"
    _, plan = small_store.write(folder)
    return folder, plan


@pytest.fixture
def run(finished: tuple[Path, Plan], tmp_path: Path) -> tuple[Path, Plan]:
    """A copy to plant a fault in."""
    folder = tmp_path / "run"
    shutil.copytree(finished[0], folder)
    return folder, finished[1]


def told(report: verify.Report, check: str, *words: str) -> checks.Finding:
    """The one finding of a kind that holds all words; every finding has all its parts."""
    for finding in report.findings:
        assert all((finding.what, finding.where, finding.consequence, finding.remedy))
    matching = [f for f in report.findings if f.check == check and all(w in str(f) for w in words)]
    assert len(matching) == 1, "\n".join(report.lines)
    assert not report.ok
    return matching[0]


def edit(folder: Path, name: str, where: tuple[Any, ...], value: int, cube_name: str = FUSED) -> None:
    """Change stored values and enter the new checksums, as a faulty program would that keeps its ledger well."""
    array = zarr.open_array(str(folder / cube_name / name), mode="r+")
    array[where] = value
    store = Store(str(folder))
    for stage in ("ingest", "fuse"):
        for path in (folder / "ledger" / stage).glob("*.json"):
            record = ledger.read(store, stage, path.stem)  # type: ignore[arg-type]
            assert record is not None
            ledger.write(store, dataclasses.replace(record, checksums=ledger.checksum(store, record.checksums)))


def test_nothing_is_wrong_with_a_finished_store(finished: tuple[Path, Plan]) -> None:
    events: list[Any] = []
    report = verify.verify(finished[0], listener=events.append)
    assert report.findings == ()
    assert report.ok
    assert report.tiles == 4
    # 18 dates in blocks of 8: 3 shards of 10 variables; 12 and 6 input dates: 2 and 1 of 7 variables
    assert report.objects == 4 * (3 * 10 + 2 * 7 + 1 * 7)
    assert [e.tile for e in events if isinstance(e, TileDone)] == ["r000c000", "r000c001", "r001c000", "r001c001"]
    assert events[-1] == StageDone("verify", report.seconds, 4, 0)


def test_the_cube_inside_the_store_is_an_address_too(finished: tuple[Path, Plan]) -> None:
    assert verify.verify(finished[0] / "fused.zarr").ok


def test_one_flipped_byte_in_a_shard(run: tuple[Path, Plan]) -> None:
    folder, _ = run
    shard = folder / "fused.zarr/red/c/1/0/1"
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    report = verify.verify(folder)
    finding = told(report, "objects", "fused.zarr/red/c/1/0/1", "r000c001", "checksum")
    assert "ledger record" in finding.remedy
    assert len(report.findings) == 1


def test_a_deleted_shard(run: tuple[Path, Plan]) -> None:
    folder, _ = run
    (folder / "inputs.zarr/landsat8/nir08/c/0/1/0").unlink()
    report = verify.verify(folder)
    told(report, "objects", "inputs.zarr/landsat8/nir08/c/0/1/0", "r001c000", "gone")
    assert len(report.findings) == 1


def test_a_shard_where_none_was_written(run: tuple[Path, Plan]) -> None:
    folder, _ = run
    store = Store(str(folder))
    record = ledger.read(store, "fuse", "r000c000")
    assert record is not None
    name = "fused.zarr/coherence/c/2/0/0"
    ledger.write(store, dataclasses.replace(record, checksums=record.checksums | {name: ledger.ABSENT}))
    told(verify.verify(folder), "objects", name, "none was written")


def test_a_deleted_ledger_record(run: tuple[Path, Plan]) -> None:
    folder, _ = run
    (folder / "ledger/fuse/r001c001.json").unlink()
    finding = told(verify.verify(folder), "ledger", "r001c001", "fuse")
    assert "Run again" in finding.remedy


def test_a_ledger_record_cut_short(run: tuple[Path, Plan]) -> None:
    folder, _ = run
    path = folder / "ledger/ingest/r000c000.json"
    path.write_bytes(path.read_bytes()[:100])
    told(verify.verify(folder), "ledger", "r000c000", "not a ledger record")


def test_a_record_of_other_inputs(run: tuple[Path, Plan]) -> None:
    folder, _ = run
    path = folder / "ledger/ingest/r000c001.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps(record | {"fingerprint": "ab" * 32}))
    told(verify.verify(folder), "ledger", "r000c001", "fingerprint abababababab")


def test_a_fused_tile_of_other_options(run: tuple[Path, Plan]) -> None:
    """A plan edited after the run leads to other fingerprints than the ledger's."""
    folder, _ = run
    path = folder / "plan.json"
    plan = json.loads(path.read_text())
    plan["options"]["stride"] = 30
    path.write_text(json.dumps(plan))
    report = verify.verify(folder)
    assert sum(f.check == "ledger" and "fingerprint" in f.what for f in report.findings) == 4
    told(report, "attributes", "plan_fingerprint", "fused.zarr")
    told(report, "attributes", "plan_fingerprint", "inputs.zarr")


@pytest.mark.parametrize(("content", "words"), [(None, "missing"), ("{", "cannot be read")])
def test_fits_that_are_gone_or_damaged(run: tuple[Path, Plan], content: str | None, words: str) -> None:
    path = run[0] / "ledger/harmonise.json"
    path.unlink() if content is None else path.write_text(content)
    report = verify.verify(run[0])
    told(report, "ledger", "ledger/harmonise.json", words)
    assert len(report.findings) == 1


def test_a_record_that_leaves_out_a_shard(run: tuple[Path, Plan]) -> None:
    folder, _ = run
    path = folder / "ledger/fuse/r000c000.json"
    record = json.loads(path.read_text())
    del record["checksums"]["fused.zarr/blue/c/0/0/0"]
    path.write_text(json.dumps(record))
    told(verify.verify(folder), "ledger", "r000c000", "fused.zarr/blue/c/0/0/0")


def test_two_times_changed_places(run: tuple[Path, Plan]) -> None:
    folder, plan = run
    times = zarr.open_array(str(folder / "fused.zarr/time"), mode="r+")
    values = np.asarray(times[:])
    values[[3, 4]] = values[[4, 3]]
    times[:] = values
    report = verify.verify(folder)
    told(report, "time", "position 4", "does not follow")
    told(report, "time", "position 3", "the plan says", plan.scenes[3].day.isoformat())


def test_a_time_moved_by_an_hour(run: tuple[Path, Plan]) -> None:
    folder, _ = run
    times = zarr.open_array(str(folder / "inputs.zarr/sentinel2/time"), mode="r+")
    times[2] = times[2] + int(timedelta(hours=1) / timedelta(microseconds=1))
    report = verify.verify(folder)
    told(report, "time", "inputs.zarr/sentinel2/time", "position 2")
    assert len(report.findings) == 1


def test_a_source_that_is_not_the_plans(run: tuple[Path, Plan]) -> None:
    folder, _ = run
    names = zarr.open_array(str(folder / "fused.zarr/source"), mode="r+")
    names[0] = cube.FUSED_SOURCE
    told(verify.verify(folder), "time", "position 0", "landsat-8 fused", "sentinel-2 observed")


@pytest.mark.parametrize(
    ("name", "where", "value", "words"),
    [
        ("nir08", (5, 70, 80), 32000, ("nir08", "r001c001", "row 10, column 20", "outside -0.5 to 3")),
        ("red", (0, 0, 0), -7000, ("red", "r000c000", "outside -0.5 to 3")),
        ("quality", (0, 0, 0), 7, ("quality", "a flag")),
        ("quality", (0, 0, 0), 2, ("quality", "a flag", "sentinel-2a 2023-01-10")),
        ("blue", (0, 0, 0), -9999, ("blue", "no value where `quality` says there is one")),
        ("swir22", (2, 0, 110), 100, ("swir22", "a value where `quality` says there is none")),
        ("reference_age", (9, 0, 0), 500, ("reference_age", "not 0 to 120 days")),
        ("reference_age", (0, 0, 0), 3, ("reference_age", "an age where nothing is fused")),
        ("coherence", (9, 0, 0), -3, ("coherence", "outside 0 to")),
        ("coherence", (0, 0, 0), 3, ("coherence", "no Landsat went in")),
        ("uncertainty", (9, 0, 0), 30, ("uncertainty", "one where no method gave it")),
    ],
)
def test_a_value_that_cannot_be(
    run: tuple[Path, Plan], name: str, where: tuple[int, ...], value: int, words: tuple[str, ...]
) -> None:
    folder, plan = run
    if name in ("reference_age", "coherence") and where[0] == 9:
        where = (next(k for k, s in enumerate(plan.scenes) if s.sensor == "landsat8" and k > 6), 0, 0)
    edit(folder, name, where, value)
    told(verify.verify(folder), "values", *words)


def test_an_input_hole_that_the_mask_calls_clear(run: tuple[Path, Plan]) -> None:
    folder, _ = run
    edit(folder, "sentinel2/green", (0, 3, 4), cube.FILL, INPUTS)
    told(verify.verify(folder), "values", "inputs.zarr/sentinel2/green", "row 3, column 4", "the mask says clear")


def test_pixels_are_left_alone_where_only_bytes_are_asked_for(run: tuple[Path, Plan]) -> None:
    edit(run[0], "red", (0, 0, 0), 32000)
    assert not verify.verify(run[0]).ok
    assert verify.verify(run[0], values=False).ok


def test_a_wrong_transform(run: tuple[Path, Plan]) -> None:
    folder, _ = run
    path = folder / "fused.zarr/zarr.json"
    root = json.loads(path.read_text())
    attrs = root["consolidated_metadata"]["metadata"]["spatial_ref"]["attributes"]
    attrs["GeoTransform"] = attrs["GeoTransform"].replace("300000", "300005")
    path.write_text(json.dumps(root))
    report = verify.verify(folder)
    told(report, "grid", "GeoTransform", "300005")
    told(report, "attributes", "fused.zarr/spatial_ref", "consolidated copy")


def test_coordinates_half_a_pixel_off(run: tuple[Path, Plan]) -> None:
    folder, _ = run
    axis = zarr.open_array(str(folder / "inputs.zarr/landsat8/x"), mode="r+")
    axis[:] = np.asarray(axis[:]) + 15
    told(verify.verify(folder), "grid", "inputs.zarr/landsat8/x", "15 m off")


def test_another_crs(run: tuple[Path, Plan]) -> None:
    folder, _ = run
    path = folder / "inputs.zarr/sentinel2/spatial_ref/zarr.json"
    found = json.loads(path.read_text())
    found["attributes"]["crs_wkt"] = found["attributes"]["spatial_ref"] = "EPSG:32650"
    path.write_text(json.dumps(found))
    told(verify.verify(folder), "grid", "inputs.zarr/sentinel2/spatial_ref", "CRS")


def test_a_status_in_progress(run: tuple[Path, Plan]) -> None:
    folder, _ = run
    cube.set_status(Store(str(folder)), "in progress")
    finding = told(verify.verify(folder), "status", "in progress")
    assert "same store" in finding.remedy
    assert verify.verify(folder, finished=False).ok


def test_attributes_that_do_not_lead_back_to_the_run(run: tuple[Path, Plan]) -> None:
    folder, _ = run
    group = zarr.open_group(str(folder / "fused.zarr"), mode="r+")
    group.attrs["plan_fingerprint"] = "0" * 64
    del group.attrs["credits"]
    report = verify.verify(folder)
    told(report, "attributes", "plan_fingerprint")
    told(report, "attributes", "credits", "missing")


def test_another_format_version(run: tuple[Path, Plan]) -> None:
    folder, _ = run
    zarr.open_group(str(folder / "fused.zarr"), mode="r+").attrs["format_version"] = "9"
    finding = told(verify.verify(folder), "format", "'9'")
    assert "release" in finding.remedy


def test_a_plan_of_another_format(run: tuple[Path, Plan]) -> None:
    folder, _ = run
    path = folder / "plan.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": "0"}))
    told(verify.verify(folder), "format", "plan.json", "'0'")


def test_a_plan_that_is_none(run: tuple[Path, Plan]) -> None:
    (run[0] / "plan.json").write_text('{"format": "1", "name": ')
    told(verify.verify(run[0]), "plan", "plan.json", "not a plan")


def test_items_that_were_altered(run: tuple[Path, Plan]) -> None:
    folder, _ = run
    path = folder / "items.json"
    found = json.loads(path.read_text())
    found["features"][0]["id"] = "another"
    path.write_text(json.dumps(found))
    told(verify.verify(folder), "plan", "items.json", "not what the plan was made from")


def test_what_a_killed_write_left(run: tuple[Path, Plan]) -> None:
    folder, _ = run
    (folder / "fused.zarr/red/c/0/0/0.1234.partial").write_bytes(b"half")
    told(verify.verify(folder), "stray", "fused.zarr/red/c/0/0/0.1234.partial", "killed")


@pytest.mark.parametrize("name", ["fused.zarr/red/c/9/0/0", "fused.zarr/ndvi/c/0/0/0", "ledger/fuse/r009c000.json"])
def test_an_object_that_no_stage_writes(run: tuple[Path, Plan], name: str) -> None:
    folder, _ = run
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(b"{}")
    told(verify.verify(folder), "stray", name)


def test_a_variable_of_another_fill_value(run: tuple[Path, Plan]) -> None:
    folder, _ = run
    for path in (folder / "fused.zarr/blue/zarr.json", folder / "fused.zarr/zarr.json"):
        found = json.loads(path.read_text())
        metadata = found if path.parent.name == "blue" else found["consolidated_metadata"]["metadata"]["blue"]
        metadata["fill_value"] = 0
        path.write_text(json.dumps(found))
    told(verify.verify(folder), "layout", "fused.zarr/blue", "fill value is 0")


def test_a_cube_that_is_gone(run: tuple[Path, Plan]) -> None:
    shutil.rmtree(run[0] / "fused.zarr")
    report = verify.verify(run[0])
    finding = told(report, "format", "fused.zarr", "cannot be opened")
    assert "run again with the same store" in finding.remedy
    assert len(report.findings) == 1, "what is gone as a whole is told once"


@pytest.mark.parametrize("name", ["fused.zarr", "fused.zarr/red", "inputs.zarr", "inputs.zarr/landsat8/red"])
def test_metadata_cut_short_are_a_finding(run: tuple[Path, Plan], name: str) -> None:
    path = run[0] / name / "zarr.json"
    path.write_bytes(path.read_bytes()[:-40])
    report = verify.verify(run[0])
    assert any(f.where.startswith(name.partition("/")[0]) and "run again" in f.remedy for f in report.findings)


def test_no_store_at_all(tmp_path: Path) -> None:
    with pytest.raises(CubeError, match="give the folder that the run printed"):
        verify.verify(tmp_path / "nowhere")
    with pytest.raises(CubeError, match=r"plan\.json"):
        verify.verify(tmp_path)


def test_the_report_reads_as_text(run: tuple[Path, Plan]) -> None:
    (run[0] / "ledger/fuse/r001c001.json").unlink()
    report = verify.verify(run[0])
    assert "1 finding" in report.lines[0]
    assert report.lines[1].startswith("  ledger/fuse/r001c001.json: there is no record; ")
    assert report.lines[1].endswith("Run again with the same store to finish it")


def test_the_fixture_is_a_cube_that_opens_silently(
    finished: tuple[Path, Plan], recwarn: pytest.WarningsRecorder
) -> None:
    ds = xr.open_zarr(finished[0] / "fused.zarr")
    assert ds.sizes == {"time": 18, "y": 108, "x": 120}
    assert not [w for w in recwarn if "onsolidated" in str(w.message)]


def test_every_check_is_a_function_of_what_it_is_given() -> None:
    """The judgements need no store: a mismatch given by hand is found."""
    found: list[checks.Finding] = []
    recorded = {"a": "1", "b": "2", "c": ledger.ABSENT}
    found += checks.shard_objects("fuse", "r000c000", recorded, recorded | {"b": "3"})
    assert [f.where for f in found] == ["b (fuse, tile r000c000)"]
