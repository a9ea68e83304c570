"""NDVI against plain numpy on what is stored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dask.array
import numpy as np
import pytest
import xarray as xr
import zarr
from matplotlib.image import imread
from pyproj import Transformer

from pipeline import indices
from pipeline.errors import CubeError, StoreError
from pipeline.plan import Plan
from tests.pipeline import small_store


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Plan]:
    folder = tmp_path_factory.mktemp("indices") / "run"
    _, plan = small_store.write(folder)
    return folder, plan


def reference(plan: Plan) -> np.ndarray[Any, np.dtype[np.float64]]:
    """NDVI of the stored integers, in float64, by the definition."""
    stored = small_store.fields(plan)
    red, nir = (np.where(stored[b] == -9999, np.nan, stored[b] * 1e-4) for b in ("red", "nir08"))
    return (nir - red) / (nir + red)


def test_ndvi_is_the_definition_on_every_pixel(run: tuple[Path, Plan]) -> None:
    ds = xr.open_zarr(run[0] / "fused.zarr")
    index = indices.ndvi(ds)
    assert isinstance(index.data, dask.array.Array)  # not computed yet
    assert index.dtype == np.float32
    assert index.dims == ("time", "y", "x")
    np.testing.assert_allclose(index.values, reference(run[1]), rtol=0, atol=2e-6)
    assert np.isnan(index.values).sum() > 1000  # the clouds and the swath's edge
    assert index.odc.geobox == run[1].grid.geobox(10)


@pytest.mark.parametrize(
    ("red", "nir", "expected"),
    [
        (0.1, 0.3, 0.5),
        (0.3, 0.1, -0.5),
        (0.2, 0.2, 0.0),
        (0.0, 0.4, 1.0),
        (0.0, 0.0, np.nan),
        (-0.1, 0.1, np.nan),
        (-0.3, 0.1, np.nan),
        (-0.05, 0.4, np.nan),  # would be 1.29
        (np.nan, 0.3, np.nan),
        (0.3, np.nan, np.nan),
    ],
)
def test_ndvi_at_the_edges_of_its_domain(red: float, nir: float, expected: float) -> None:
    ds = xr.Dataset({"red": ("x", [red]), "nir08": ("x", [nir])})
    np.testing.assert_allclose(indices.ndvi(ds).values, np.float32([expected]), atol=1e-6)


def test_ndvi_of_stored_integers_or_without_a_band_is_refused(run: tuple[Path, Plan]) -> None:
    raw = xr.open_zarr(run[0] / "fused.zarr", mask_and_scale=False)
    with pytest.raises(CubeError, match="stored integers"):
        indices.ndvi(raw)
    with pytest.raises(CubeError, match="nir08"):
        indices.ndvi(xr.open_zarr(run[0] / "fused.zarr").drop_vars("nir08"))


def test_a_point_is_the_pixel_that_holds_it(run: tuple[Path, Plan]) -> None:
    folder, plan = run
    row, col = 71, 33
    to_lon_lat = Transformer.from_crs(plan.grid.epsg, 4326, always_xy=True)
    expected = reference(plan)[:, row, col]
    # the middle of the pixel and places near two of its corners are all the same pixel
    for dx, dy in ((5, 5), (0.5, 0.5), (9.5, 9.5)):
        lon, lat = to_lon_lat.transform(plan.grid.left + 10 * col + dx, plan.grid.top - 10 * row - dy)
        table = indices.ndvi_point(folder, lon, lat)
        np.testing.assert_allclose(table["ndvi"], expected, atol=2e-6)
        assert (table.attrs["x"], table.attrs["y"]) == (plan.grid.left + 335, plan.grid.top - 715)
    assert list(table["source"]) == [
        "landsat-8 fused" if s.sensor == "landsat8" else "sentinel-2 observed" for s in plan.scenes
    ]
    assert [t.date() for t in table.index] == [s.day for s in plan.scenes]
    assert list(table["quality"]) == list(small_store.fields(plan)["quality"].values[:, row, col])


@pytest.mark.parametrize(
    ("lon", "lat", "words"),
    [
        (49.255, 120.26, "not a point on Earth"),
        (121.0, 49.255, "outside the cube, which covers longitude 120.25"),
        (120.26, 49.5, "outside the cube"),
        (float("nan"), 49.255, "not a point on Earth"),
    ],
)
def test_a_point_outside_is_refused_with_what_the_cube_covers(
    run: tuple[Path, Plan], lon: float, lat: float, words: str
) -> None:
    with pytest.raises(CubeError, match=words):
        indices.ndvi_point(run[0], lon, lat)


def test_ndvi_written_is_ndvi_read(run: tuple[Path, Plan], tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    out = tmp_path / "ndvi.zarr"
    indices.write_ndvi(run[0], out, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1][0] == seen[-1][1] > 10
    stored = zarr.open_array(str(out / "ndvi"), mode="r")
    cube_array = zarr.open_array(str(run[0] / "fused.zarr/red"), mode="r")
    assert (stored.dtype, stored.fill_value) == (np.dtype("int16"), -32768)
    assert (stored.shards, stored.chunks) == (cube_array.shards, cube_array.chunks)
    ds = xr.open_zarr(out)
    np.testing.assert_allclose(ds["ndvi"].values, reference(run[1]), rtol=0, atol=5.1e-5)
    assert ds.odc.geobox == run[1].grid.geobox(10)
    assert ds.attrs["simulated"] == "true"
    assert [str(s) for s in ds["source"].values][:2] == ["sentinel-2 observed", "landsat-8 fused"]
    assert not out.with_name("ndvi.zarr.partial").exists()


def test_ndvi_is_not_written_over_without_being_told(run: tuple[Path, Plan], tmp_path: Path) -> None:
    out = tmp_path / "ndvi.zarr"
    out.mkdir()
    (out / "precious").write_text("x")
    with pytest.raises(StoreError, match="nothing was written"):
        indices.write_ndvi(run[0], out)
    assert (out / "precious").read_text() == "x"
    with pytest.raises(StoreError, match="no NDVI cube that this program wrote"):
        indices.write_ndvi(run[0], out, overwrite=True)
    assert (out / "precious").read_text() == "x"
    own = tmp_path / "own.zarr"
    indices.write_ndvi(run[0], own)
    (own / "stale").write_text("x")
    indices.write_ndvi(run[0], own, overwrite=True)
    assert not (own / "stale").exists()
    assert "ndvi" in xr.open_zarr(own)
    assert {p.name for p in tmp_path.iterdir() if p.name.endswith(".partial")} == set()


def test_the_cube_itself_is_never_written_over(run: tuple[Path, Plan]) -> None:
    cube = run[0] / "fused.zarr" if (run[0] / "fused.zarr").is_dir() else run[0]
    with pytest.raises(StoreError, match="no NDVI cube"):
        indices.write_ndvi(run[0], cube, overwrite=True)
    assert xr.open_zarr(cube).sizes["time"] > 0


def test_an_address_is_no_folder(run: tuple[Path, Plan]) -> None:
    with pytest.raises(StoreError, match="a folder on disk, not to s3://bucket/ndvi"):
        indices.write_ndvi(run[0], "s3://bucket/ndvi.zarr")


def test_a_write_that_fails_leaves_what_was_there(
    run: tuple[Path, Plan], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "ndvi.zarr"
    indices.write_ndvi(run[0], out)
    (out / "precious").write_text("x")

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(indices, "ratio", fail)
    with pytest.raises(StoreError, match="disk full"):
        indices.write_ndvi(run[0], out, overwrite=True)
    assert [p.name for p in tmp_path.iterdir()] == ["ndvi.zarr"]
    assert (out / "precious").read_text() == "x"


def test_the_curve_is_a_picture(run: tuple[Path, Plan], tmp_path: Path) -> None:
    table = indices.ndvi_point(run[0], 120.26, 49.255)
    path = indices.plot(table, tmp_path / "curve.png")
    image = imread(path)
    assert image.shape[1] >= 900
    # the stamp's red, for the cube is simulated
    assert ((image[..., 0] > 0.65) & (image[..., 1] < 0.2) & (image[..., 2] < 0.2)).sum() > 200
    with pytest.raises(StoreError, match="no picture was made"):
        indices.plot(table, tmp_path / "nowhere" / "curve.png")


def test_the_benchmark_says_how_long_one_pixel_takes(run: tuple[Path, Plan]) -> None:
    taken = indices.benchmark(run[0], 120.26, 49.255, repeats=5)
    print(f"\nopen and one pixel of two bands over the year: {taken}")
    assert 0 < taken["best_ms"] <= taken["median_ms"] <= taken["worst_ms"]
