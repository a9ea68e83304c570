"""Exported files read back with rasterio, against what is stored."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import numpy as np
import pytest
import rasterio
import xarray as xr
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_zeros
from rasterio.crs import CRS

from marstfn.bands import BANDS
from pipeline import export as exporting
from pipeline.errors import CubeError, PlanError, StoreError
from pipeline.export import export
from pipeline.plan import Plan
from tests.pipeline import small_store


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Plan]:
    folder = tmp_path_factory.mktemp("export") / "run"
    _, plan = small_store.write(folder)
    return folder, plan


def position(plan: Plan, day: str, sensor: str) -> int:
    return next(k for k, s in enumerate(plan.scenes) if s.day.isoformat() == day and s.sensor == sensor)


def test_a_day_seen_by_both_sensors_is_two_files(run: tuple[Path, Plan], tmp_path: Path) -> None:
    done: list[tuple[int, int, str]] = []
    files = export(run[0], tmp_path, dates=["2023-05-28"], progress=lambda k, n, p: done.append((k, n, p.name)))
    assert [f.name for f in files] == ["2023-05-28_landsat-8-fused.tif", "2023-05-28_sentinel-2-observed.tif"]
    assert done == [(1, 2, files[0].name), (2, 2, files[1].name)]
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(f.name for f in files)  # nothing half-made left


def test_a_date_without_a_known_pixel_gets_no_file(run: tuple[Path, Plan], tmp_path: Path) -> None:
    ds = exporting.open_cube(str(run[0])).load()
    ds[list(BANDS)] = ds[list(BANDS)].where(ds["time"] != ds["time"][3])
    ds["quality"][3] = ds["quality"].dtype.type(4)
    done: list[int] = []
    files = export(ds, tmp_path, progress=lambda k, n, p: done.append(n))
    assert len(files) == ds.sizes["time"] - 1
    assert sorted(tmp_path.iterdir()) == sorted(files)
    assert done == [ds.sizes["time"]] * ds.sizes["time"]
    assert len(export(ds, tmp_path / "flags", bands=["quality"])) == len(files)


def test_integers_come_back_as_stored(run: tuple[Path, Plan], tmp_path: Path) -> None:
    folder, plan = run
    k = position(plan, "2023-03-11", "sentinel2")
    (file,) = export(folder, tmp_path, dates=[date(2023, 3, 11)])
    with rasterio.open(file) as src:
        expected = np.stack([small_store.fields(plan)[b].values[k] for b in BANDS])
        np.testing.assert_array_equal(src.read(), expected)
        assert (expected == -9999).any()
        assert src.dtypes == ("int16",) * 6
        assert src.nodata == -9999
        assert src.scales == (1e-4,) * 6
        assert src.offsets == (0.0,) * 6
        assert src.descriptions == BANDS
        assert src.crs == CRS.from_epsg(plan.grid.epsg)
        assert src.transform == plan.grid.geobox(10).affine
        assert src.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert src.tags()["simulated"] == "true"
        assert src.tags()["TIFFTAG_DATETIME"] == "2023:03:11 02:55:00"


def test_floats_are_reflectance_with_nan(run: tuple[Path, Plan], tmp_path: Path) -> None:
    folder, plan = run
    k = position(plan, "2023-03-25", "landsat8")
    (file,) = export(folder, tmp_path, dates=["2023-03-25"], bands=["nir08", "red"], dtype="float32", source="fused")
    assert file.name == "2023-03-25_landsat-8-fused_nir08-red.tif"
    with rasterio.open(file) as src:
        stored = np.stack([small_store.fields(plan)[b].values[k] for b in ("nir08", "red")]).astype(float)
        stored[stored == -9999] = np.nan
        np.testing.assert_allclose(src.read(), stored * 1e-4, rtol=1e-6)
        assert np.isnan(src.nodata)
        assert src.scales == (1.0, 1.0)
        assert src.descriptions == ("nir08", "red")


def test_provenance_can_be_exported_with_its_own_scales(run: tuple[Path, Plan], tmp_path: Path) -> None:
    folder, plan = run
    k = position(plan, "2023-03-25", "landsat8")
    (file,) = export(folder, tmp_path, dates=["2023-03-25"], bands=["quality", "reference_age", "coherence"])
    with rasterio.open(file) as src:
        stored = small_store.fields(plan)
        for band, name in enumerate(("quality", "reference_age", "coherence"), start=1):
            np.testing.assert_array_equal(src.read(band), stored[name].values[k])
        assert src.scales == (1.0, 1.0, 1e-4)


def test_all_dates_of_one_source(run: tuple[Path, Plan], tmp_path: Path) -> None:
    files = export(run[0], tmp_path, source="fused", bands=["red"])
    assert len(files) == len(run[1].of("landsat8")) == 6
    assert all(f.name.endswith("_landsat-8-fused_red.tif") for f in files)


def test_dates_are_read_in_groups_that_fit_memory(
    run: tuple[Path, Plan], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = export(run[0], tmp_path / "whole")
    monkeypatch.setattr(exporting, "MEMORY", 2 * 120 * 108 * 20)  # two dates of six bands
    ds = xr.open_zarr(run[0] / "fused.zarr")
    # shards are 6 dates deep: no group reaches over their ends
    assert list(exporting._groups(ds, [0, 1, 2, 5, 6, 7, 17], 6)) == [[0, 1], [2, 5], [6, 7], [17]]
    pieces = export(run[0], tmp_path / "pieces")
    assert [f.name for f in pieces] == [f.name for f in whole]
    assert len(whole) == 18
    for one, other in zip(whole, pieces, strict=True):
        with rasterio.open(one) as a, rasterio.open(other) as b:
            np.testing.assert_array_equal(a.read(), b.read())


def test_a_scene_larger_than_a_block_gets_overviews(tmp_path: Path) -> None:
    box = GeoBox((1100, 1200), rasterio.Affine(10, 0, 300000, 0, -10, 5460000), "EPSG:32651")
    plane = xr_zeros(box, dtype="float32").expand_dims(time=[np.datetime64("2023-06-01T02:00:00", "ns")])
    ds = xr.Dataset({"red": plane + np.float32(0.25)})
    (file,) = export(ds, tmp_path, bands=["red"], dtype="float32")
    with rasterio.open(file) as src:
        assert src.overviews(1) == [2, 4]
        assert src.block_shapes == [(512, 512)]


def test_an_unknown_date_lists_what_there_is(run: tuple[Path, Plan], tmp_path: Path) -> None:
    with pytest.raises(CubeError, match=r"no entry on 2023-05-29.*2023-05-28, 2023-06-09"):
        export(run[0], tmp_path / "out", dates=["2023-05-28", "2023-05-29"])
    with pytest.raises(CubeError, match="no fused entry on 2023-01-10; its fused dates are 2023-01-20"):
        export(run[0], tmp_path / "out", dates=["2023-01-10"], source="fused")
    with pytest.raises(CubeError, match="YYYY-MM-DD"):
        export(run[0], tmp_path / "out", dates=["28.5.2023"])
    with pytest.raises(CubeError, match="no date was named"):
        export(run[0], tmp_path / "out", dates=[])
    assert not (tmp_path / "out").exists()


def test_an_unknown_band_lists_what_there_is(run: tuple[Path, Plan], tmp_path: Path) -> None:
    with pytest.raises(CubeError, match=r"no band nir; it has blue, green, red, nir08, .*coherence"):
        export(run[0], tmp_path, bands=["red", "nir"])
    with pytest.raises(CubeError, match="none was named"):
        export(run[0], tmp_path, bands=[])


def test_files_are_not_written_over_without_being_told(run: tuple[Path, Plan], tmp_path: Path) -> None:
    (file, _) = export(run[0], tmp_path, dates=["2023-05-28"])
    file.write_bytes(b"precious")
    with pytest.raises(StoreError, match=r"holds 2023-05-28_landsat-8-fused\.tif"):
        export(run[0], tmp_path, dates=["2023-05-28", "2023-06-09"])
    assert file.read_bytes() == b"precious"
    assert len(list(tmp_path.iterdir())) == 2  # the third file was not begun
    export(run[0], tmp_path, dates=["2023-05-28"], overwrite=True)
    with rasterio.open(file) as src:
        assert src.count == 6


def test_an_address_is_no_folder(run: tuple[Path, Plan]) -> None:
    with pytest.raises(StoreError, match="a folder on disk, not to s3://bucket/out"):
        export(run[0], "s3://bucket/out")


def test_a_folder_that_cannot_be_made(run: tuple[Path, Plan], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match="cannot make the folder"):
        export(run[0], tmp_path / "file", dates=["2023-05-28"])
    with pytest.raises(PlanError, match="file is no folder; nothing was read or written"):
        export(run[0], tmp_path / "file" / "out", dates=["2023-05-28"])
