"""From an item of each catalogue to stored reflectance, by values: known digital numbers in, hand-computed ones out.

Small cloud-optimised GeoTIFFs are served over HTTP behind items of each profile's shape, which go the whole way: search
(of a file of items), choice of scenes, the rule for radiometry, the frozen items, reading, storing. Recorded items are
used where there are some; only hrefs, footprint and grid are rewritten. None is recorded of these, which are built:
USGS Level-1 pan (the shape of its recorded Level-2 item), DEA Sentinel-2 (of DEA's Landsat item), DE Africa Landsat (of
USGS's Level-2 item, whose copy it is), and all of `simulated` (by the demo's own writer). CDSE's JPEG 2000 files are
GeoTIFFs here. Hrefs in s3:// and signed ones point at the server; the keys of bands are written here once more, from
the catalogues' own documents, not taken from the profiles.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from numpy.typing import NDArray
from odc.geo.geom import Geometry

from marstfn.bands import BANDS, PAN
from pipeline import catalog, cube, items, profiles, scenes, sensors
from pipeline.demo import landsat, sentinel
from pipeline.demo.raster import File, Raster, write, write_json
from pipeline.demo.server import Remote, serve
from pipeline.grid import Grid
from pipeline.ingest import ingest_tile
from pipeline.plan import Adjustment, Options, Plan
from pipeline.profiles import Role
from pipeline.store import INPUTS, Store

pytestmark = pytest.mark.server

Json = dict[str, Any]
Numbers = NDArray[Any]

GRID = Grid(32613, 600_000, 4_200_000, 12, 12, 60)
"""720 m, more than one tile: patches of 120 m, six by six, are what files are painted in."""
PATCHES, PATCH = 6, 120
FIRST, LAST = date(2019, 1, 1), date(2026, 12, 31)

NAMED = dict(zip(BANDS, BANDS, strict=True))
PC_KEYS = dict(zip(BANDS, ("B02", "B03", "B04", "B8A", "B11", "B12"), strict=True))
CDSE_KEYS = dict(zip(BANDS, ("B02_10m", "B03_10m", "B04_10m", "B8A_20m", "B11_20m", "B12_20m"), strict=True))
DEA_L8 = dict(zip(BANDS, [f"nbart_{b}" for b in ("blue", "green", "red", "nir", "swir_1", "swir_2")], strict=True))
DEA_S2 = dict(zip(BANDS, [f"nbart_{b}" for b in ("blue", "green", "red", "nir_2", "swir_2", "swir_3")], strict=True))
AFRICA_L8 = dict(zip(BANDS, ("SR_B2", "SR_B3", "SR_B4", "SR_B5", "SR_B6", "SR_B7"), strict=True))
FINE = {band: 10 if band in ("blue", "green", "red") else 20 for band in BANDS}
COARSE = dict.fromkeys(BANDS, 30)


@dataclass(frozen=True)
class Law:
    """Digital numbers as a product's guide explains them: reflectance = (number * scale + offset) / sine."""

    scale: str
    offset: str
    step: int
    """Numbers that are multiples of it become whole ten-thousandths."""
    lowest: int
    highest: int
    dtype: str = "uint16"
    nodata: int = 0
    sine: str = "1"

    def units(self, number: int) -> int:
        """Reflectance in units of 1e-4, exactly."""
        value = (Fraction(number) * Fraction(self.scale) + Fraction(self.offset)) / Fraction(self.sine) * 10_000
        assert value.denominator == 1, "the test's numbers must come out whole"
        return int(value)


SENTINEL_NEW = Law("1/10000", "-1/10", 1, 1, 17_000)  # from baseline 04.00 on: 1000 was added
SENTINEL_OLD = Law("1/10000", "0", 1, 1, 17_000)
LANDSAT = Law("275/10000000", "-2/10", 40, 40, 65_520)
PAN_30 = Law("2/100000", "-1/10", 5, 5, 40_000, sine="1/2")  # sun elevation 30 degrees
DEA = Law("1/10000", "0", 1, -998, 12_000, "int16", -999)

SCL = {0: 0, 1: 2, 2: 1, 3: 2, 4: 1, 5: 1, 6: 1, 7: 1, 8: 2, 9: 2, 10: 2, 11: 1}
FMASK = {0: 0, 1: 1, 2: 2, 3: 2, 4: 1, 5: 1}
# clear, water, snow, dilated cloud | cloud, shadow, cirrus | fill
QA = {21824: 1, 21952: 1, 30048: 1, 21762: 1, 22280: 2, 23888: 2, 54596: 2, 1: 0}
"""What each mask's numbers are worth by default: 0 nothing, 1 clear, 2 masked."""


@dataclass(frozen=True)
class Case:
    """One collection of a catalogue in one role, and what its files hold."""

    role: Role
    item: Callable[[Path], Json]
    keys: Mapping[str, str]
    resolution: Mapping[str, int]
    law: Law
    rule: str
    """Words of the rule that must decide."""
    mask: str = ""
    mask_resolution: int = 30
    worth: Mapping[int, int] = field(default_factory=dict)
    mask_type: tuple[str, int | None] = ("uint8", 0)
    saturation: str = ""


def recorded(name: str, **changes: Any) -> Callable[[Path], Json]:
    """A recorded item; changes are to its top level."""

    def load(shared: Path) -> Json:
        return {**json.loads((shared / "stac" / f"{name}.json").read_text()), **changes}

    return load


def renamed(
    load: Callable[[Path], Json], keys: Mapping[str, str], properties: Json, **changes: Any
) -> Callable[[Path], Json]:
    """The shape of one item under another's asset keys."""

    def build(shared: Path) -> Json:
        item = load(shared)
        assets = {keys.get(key, key): asset for key, asset in item["assets"].items()}
        return {**item, **changes, "assets": assets, "properties": {**item["properties"], **properties}}

    return build


def with_properties(load: Callable[[Path], Json], **properties: Any) -> Callable[[Path], Json]:
    return renamed(load, {}, properties)


PC_L8 = recorded("planetary-computer/landsat-c2-l2/LC08_L2SP_033032_20241127_02_T1")
PC_2024 = recorded("planetary-computer/sentinel-2-l2a/S2B_MSIL2A_20241203T174629_R098_T13TDE_20241203T211406")
PC_2020 = recorded("planetary-computer/sentinel-2-l2a/S2A_MSIL2A_20200601T080611_R078_T35MNM_20201027T072253")
ES_L8 = recorded("earth-search-v1/landsat-c2-l2/LC08_L2SP_033032_20231008_02_T1")
ES_C1 = recorded("earth-search-v1/sentinel-2-c1-l2a/S2A_T13TDE_20240402T174230_L2A")
ES_APPLIED = recorded("earth-search-v1/sentinel-2-l2a/S2A_13TDE_20231008_0_L2A")
ES_NOT_APPLIED = recorded("earth-search-v1/sentinel-2-l2a/S2A_28QCH_20200714_0_L2A")
USGS_L8 = recorded("usgs-landsatlook/landsat-c2l2-sr/LC08_L2SP_028030_20200114_20200824_02_T1_SR")
CDSE_S2 = recorded("cdse/sentinel-2-l2a/S2C_MSIL2A_20260527T014651_N0512_R017_T55WFR_20260527T042005")
# recorded before its collection's name was part of an item
DEA_ITEM = recorded("dea/ga_ls8c_ard/ga_ls8c_ard_3-1-0_088080_2020-05-25_final", collection="ga_ls8c_ard_3")
AFRICA_S2 = recorded("de-africa/s2_l2a_c1/S2B_T37MGP_20240710T073012_L2A")
USGS_PAN = renamed(
    USGS_L8, {"blue": "pan"}, {"view:sun_elevation": 30.0, "landsat:correction": "L1TP"},
    id="LC08_L1TP_028030_20200114_20200824_02_T1", collection="landsat-c2l1",
)  # fmt: skip


def without_alternates(load: Callable[[Path], Json]) -> Callable[[Path], Json]:
    """An item whose assets have one address each."""

    def build(shared: Path) -> Json:
        item = load(shared)
        for asset in item["assets"].values():
            asset.pop("alternate", None)
        return item

    return build


AFRICA_L8_ITEM = renamed(
    without_alternates(USGS_L8), {**AFRICA_L8, "qa_pixel": "QA_PIXEL", "qa_radsat": "QA_RADSAT"}, {},
    id="LC08_L2SP_028030_20200114_20200824_02_T1-africa", collection="ls8_sr",
)  # fmt: skip


def dea_sentinel(satellite: str) -> Callable[[Path], Json]:
    keys = {DEA_L8[band]: DEA_S2[band] for band in BANDS}
    name = f"ga_s2{satellite}m_ard_3"
    return renamed(DEA_ITEM, keys, {"platform": f"sentinel-2{satellite}"}, id=name, collection=name)


PASS = landsat.LandsatPass(
    "LC08_L2SP_124026_20230503_20230510_02_T1", "LC08_L1TP_124026_20230503_20230509_02_T1",
    datetime(2023, 5, 3, 2, 55, 31, tzinfo=UTC), 30.0, 150.0, 5.0,
)  # fmt: skip
OVERPASS = sentinel.SentinelPass(
    "S2A_T50UQV_20230504T030531_L2A", "S2A_MSIL2A_20230504T030531_N0509_R075_T50UQV_20230504T070000", "sentinel-2a",
    datetime(2023, 5, 4, 3, 5, 31, tzinfo=UTC), "05.09", 55.0, 150.0, 5.0,
)  # fmt: skip
AT_30 = Raster(32613, 600_000, 4_200_000, 30, (24, 24))
AT = {10: Raster(32613, 600_000, 4_200_000, 10, (72, 72)), 20: Raster(32613, 600_000, 4_200_000, 20, (36, 36))}


def surface(item: Callable[[Path], Json], rule: str, keys: Mapping[str, str] = NAMED, mask: str = "qa_pixel") -> Case:
    """Landsat Collection 2 Level-2."""
    upper = mask.isupper()
    return Case(
        "landsat8",
        item,
        keys,
        COARSE,
        LANDSAT,
        rule,
        mask,
        30,
        QA,
        ("uint16", 1),
        "QA_RADSAT" if upper else "qa_radsat",
    )


def pan(item: Callable[[Path], Json]) -> Case:
    return Case("landsat8_pan", item, {PAN: "pan"}, {PAN: 15}, PAN_30, "sine of sun elevation 30.0000")


def msi(item: Callable[[Path], Json], law: Law, rule: str, keys: Mapping[str, str] = NAMED, mask: str = "scl") -> Case:
    return Case("sentinel2", item, keys, FINE, law, rule, mask, 20, SCL)


def dea_msi(satellite: str) -> Case:
    rule = "constants of DEA"
    return Case("sentinel2", dea_sentinel(satellite), DEA_S2, FINE, DEA, rule, "oa_fmask", 20, FMASK)


BY_ITEM, BY_CONSTANTS = "scale and offset of the item", "constants of Landsat Collection 2 Level-2"
FLAGGED = """
name = "earth-search-l2a"
url = "http://127.0.0.1:9"
[[collections]]
role = "sentinel2"
collection = "sentinel-2-l2a"
family = "sentinel-2-l2a"
mask = "scl"
assets = { blue = "blue", green = "green", red = "red", nir08 = "nir08", swir16 = "swir16", swir22 = "swir22" }
"""
"""Earth Search's other collection, as a user would add it."""

CASES: dict[str, tuple[str, tuple[Case, ...]]] = {
    "planetary-computer": (
        "planetary-computer",
        (surface(PC_L8, BY_ITEM), msi(PC_2024, SENTINEL_NEW, "processing baseline 05.11", PC_KEYS, "SCL")),
    ),
    "planetary-computer before 04.00": (
        "planetary-computer",
        (msi(PC_2020, SENTINEL_OLD, "processing baseline 02.12", PC_KEYS, "SCL"),),
    ),
    "earth-search": ("earth-search", (surface(ES_L8, BY_ITEM), msi(ES_C1, SENTINEL_NEW, BY_ITEM))),
    "earth-search, offset applied": (
        "earth-search",
        (msi(with_properties(ES_C1, **{"earthsearch:boa_offset_applied": True}), SENTINEL_OLD, "applied is true"),),
    ),
    "profile file, offset applied": ("FILE", (msi(ES_APPLIED, SENTINEL_OLD, "boa_offset_applied is true"),)),
    "profile file, none to apply": ("FILE", (msi(ES_NOT_APPLIED, SENTINEL_OLD, "boa_offset_applied is false"),)),
    "usgs": ("usgs", (surface(USGS_L8, BY_CONSTANTS), pan(USGS_PAN))),
    "cdse": ("cdse", (msi(CDSE_S2, SENTINEL_NEW, BY_ITEM, CDSE_KEYS, "SCL_20m"),)),
    "dea": (
        "dea",
        (
            Case("landsat8", DEA_ITEM, DEA_L8, COARSE, DEA, "constants of DEA", "oa_fmask", 30, FMASK),
            # surface reflectance: no sun angle
            Case("landsat8_pan", DEA_ITEM, {PAN: "nbart_panchromatic"}, {PAN: 15}, DEA, "constants of DEA"),
        ),
    ),
    **{f"dea, sentinel-2{s}": ("dea", (dea_msi(s),)) for s in "abc"},
    "deafrica": (
        "deafrica",
        (surface(AFRICA_L8_ITEM, BY_CONSTANTS, AFRICA_L8, "QA_PIXEL"), msi(AFRICA_S2, SENTINEL_NEW, BY_ITEM)),
    ),
    "simulated": (
        "simulated",
        (
            surface(lambda _: landsat.level2_item(PASS, AT_30), BY_ITEM),
            pan(lambda _: landsat.level1_item(PASS, AT_30)),
            msi(lambda _: sentinel.earth_search_item(OVERPASS, AT), SENTINEL_NEW, BY_ITEM),
        ),
    ),
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Remote]]:
    """A folder and its server, which knows files and no items."""
    folder = tmp_path_factory.mktemp("files")
    write_json(folder / "catalog.json", {"type": "Catalog", "id": "files", "stac_version": "1.0.0", "description": ""})
    with serve(folder) as server:
        yield folder, server


def numbers(law: Law, band: int) -> Numbers:
    """Digital numbers of the patches, other ones in every band: nodata, the lowest, the highest, and between."""
    rng = np.random.default_rng(100 + band)
    values = rng.integers(law.lowest // law.step, law.highest // law.step, PATCHES**2) * law.step
    values[[0, 7, 14]] = law.nodata, law.lowest, law.highest
    values[20 + band] = law.nodata
    return values.reshape(PATCHES, PATCHES)


def flags(worth: Mapping[int, int]) -> Numbers:
    """Every number of a mask, over and over."""
    return np.resize(np.array(list(worth)), PATCHES**2).reshape(PATCHES, PATCHES)


SATURATED = np.zeros((PATCHES, PATCHES), int)
SATURATED[5, 0], SATURATED[5, 1], SATURATED[5, 2] = 1 << 3, 1 << 8, 1 << 0
"""QA_RADSAT: band 4 (red), band 9 and band 1, of which only the first is read."""


def painted(patches: Numbers, resolution: int) -> Numbers:
    return np.kron(patches, np.ones((PATCH // resolution,) * 2, patches.dtype))


def put(
    folder: Path, server: Remote, name: str, patches: Numbers, resolution: int, kind: tuple[str, int | None]
) -> str:
    """Serve patches as a file; its address."""
    dtype, nodata = kind
    values = painted(patches, resolution).astype(dtype)
    raster = Raster(GRID.epsg, GRID.left, GRID.top, resolution, values.shape)
    write(File(folder / f"data/{name}.tif", raster, dtype, nodata, False), values)
    return f"{server.url}/data/{name}.tif"


def placed(item: Json, hrefs: Mapping[str, tuple[str, int]]) -> Json:
    """The item moved onto the grid of the test, with these addresses (and pixel sizes) for what has been served.

    USGS names the bucket beside a page behind a login: there the served address is the alternate one, as in the item.
    """
    out = copy.deepcopy(item)
    _regrid(out["properties"], None)
    for key, asset in out["assets"].items():
        _regrid(asset, hrefs[key][1] if key in hrefs else None)
        if key in hrefs:
            (asset["alternate"]["s3"] if "s3" in asset.get("alternate", {}) else asset)["href"] = hrefs[key][0]
    outline = GRID.geobox(10).geographic_extent
    return {**out, "geometry": outline.json, "bbox": list(outline.boundingbox.bbox)}


def _regrid(fields: Json, resolution: int | None) -> None:
    """Rewrite what is there of the projection extension, and add nothing."""
    step = resolution or (round(abs(fields["proj:transform"][0])) if "proj:transform" in fields else 30)
    side = GRID.columns * 60 // step
    left, top = float(GRID.left), float(GRID.top)
    for name, value in (
        ("proj:epsg", GRID.epsg), ("proj:code", f"EPSG:{GRID.epsg}"), ("proj:shape", [side, side]),
        ("proj:bbox", [left, top - side * step, left + side * step, top]),
        ("proj:transform", [float(step), 0.0, left, 0.0, -float(step), top]),
    ):  # fmt: skip
        if name in fields:
            fields[name] = value
    for name in ("proj:geometry", "proj:centroid"):
        fields.pop(name, None)


def served(label: str, cases: tuple[Case, ...], shared: Path, files: tuple[Path, Remote]) -> list[Json]:
    """The items of the cases, one for what is recorded in one, behind files that hold the known numbers."""
    addresses: dict[str, dict[str, tuple[str, int]]] = {}
    found: dict[str, Json] = {}
    for case in cases:
        item = case.item(shared)
        found[item["id"]] = item
        hrefs = addresses.setdefault(item["id"], {})
        place = re.sub(r"\W+", "-", f"{label}-{case.role}")
        for index, (band, key) in enumerate(case.keys.items()):
            kind = (case.law.dtype, case.law.nodata)
            size = case.resolution[band]
            hrefs[key] = put(*files, f"{place}/{key}", numbers(case.law, index), size, kind), size
        if case.mask:
            size = case.mask_resolution
            hrefs[case.mask] = put(*files, f"{place}/{case.mask}", flags(case.worth), size, case.mask_type), size
        if case.saturation:
            kind = ("uint16", None)
            hrefs[case.saturation] = put(*files, f"{place}/{case.saturation}", SATURATED, 30, kind), 30
    return [placed(item, addresses[name]) for name, item in found.items()]


def planned(name: str, **options: Any) -> tuple[Plan, dict[str, Any]]:
    """A plan of all that a source has over the grid, without asking for both sensors."""
    source = profiles.resolve(name)
    outline = GRID.geobox(10).geographic_extent
    area = outline.geom
    found = catalog.search(source, area.bounds, FIRST, LAST)
    chosen = scenes.choose(found.items, source, scenes.Wanted(area, FIRST, LAST, GRID.epsg))
    assert chosen.dropped == ()
    frozen = items.collection(chosen.items, source)
    plan = Plan(
        name="values", aoi=Geometry(area, "EPSG:4326").json, aoi_source="test", year=2023, grid=GRID,
        catalog=source.label, scenes=chosen.scenes, radiometry=dict(chosen.radiometry), weights=(),
        options=Options(mask_dilation=0, **options), items_sha256=items.sha256(frozen),
    )  # fmt: skip
    return plan, {item.id: item for item in frozen}


@pytest.mark.shared
@pytest.mark.parametrize("label", CASES)
def test_known_digital_numbers_become_the_reflectance_computed_by_hand(
    label: str, shared: Path, files: tuple[Path, Remote], tmp_path: Path
) -> None:
    name, cases = CASES[label]
    if name == "FILE":
        name = str(tmp_path / "mine.toml")
        Path(name).write_text(FLAGGED)
    collection = {"type": "FeatureCollection", "features": served(label, cases, shared, files)}
    (tmp_path / "items.json").write_text(json.dumps(collection))
    plan, known = planned(f"{name}@{tmp_path / 'items.json'}")
    store = Store(str(tmp_path / "store"))
    cube.create_inputs(plan, store)
    for tile in plan.grid.tiles():
        ingest_tile(plan, store, tile, known)
    for case in cases:
        _check(case, case.item(shared)["id"], plan, tmp_path / "store" / INPUTS)


TWIN = (("1.02", "-0.003"), ("0.98", "0.002"), ("1", "0"), ("1.01", "0"), ("1", "0.01"), ("0.5", "-0.1"))
"""Scale and offset of Sentinel-2C by band."""


@pytest.mark.shared
@pytest.mark.parametrize(("label", "adjusted"), [("cdse", True), ("earth-search", False)])
def test_a_satellites_own_coefficients_come_after_the_radiometry_of_its_items(
    label: str, adjusted: bool, shared: Path, files: tuple[Path, Remote], tmp_path: Path
) -> None:
    """The item of CDSE is of Sentinel-2C; those of Earth Search are of 2A and Landsat 8, and stay as they are."""
    name, cases = CASES[label]
    collection = {"type": "FeatureCollection", "features": served(f"{label} adjusted", cases, shared, files)}
    (tmp_path / "items.json").write_text(json.dumps(collection))
    numbers_of = [tuple(float(pair[k]) for pair in TWIN) for k in (0, 1)]
    twin = Adjustment(platform="sentinel-2c", scale=numbers_of[0], offset=numbers_of[1])
    plan, known = planned(f"{name}@{tmp_path / 'items.json'}", adjustments=(twin,))
    store = Store(str(tmp_path / "store"))
    cube.create_inputs(plan, store)
    for tile in plan.grid.tiles():
        ingest_tile(plan, store, tile, known)
    if not adjusted:
        for case in cases:
            _check(case, case.item(shared)["id"], plan, tmp_path / "store" / INPUTS)
        return
    (case,) = cases
    assert plan.of("sentinel2")[0].platform == "sentinel-2c"
    rule = plan.radiometry[case.item(shared)["id"]]
    assert (rule.scale, rule.offset) == (1e-4, -0.1), "the rule of the item is told as the catalogue has it"
    raw = xr.open_zarr(tmp_path / "store" / INPUTS, group="sentinel2", consolidated=False, mask_and_scale=False)
    for index, (band, (scale, offset)) in enumerate(zip(BANDS, TWIN, strict=True)):
        dn = numbers(case.law, index)
        by_hand = [[float(case.law.units(int(n)) * Fraction(scale) + 10_000 * Fraction(offset)) for n in r] for r in dn]
        where = inner(10, case.resolution[band])
        got, empty = raw[band].values[0], painted(dn == case.law.nodata, 10)
        assert (got[where & empty] == -9999).all()
        seen = where & ~empty
        off = np.abs(got[seen] - painted(np.array(by_hand), 10)[seen])
        assert off.max() <= 0.5 + 1e-3, band  # rounded once
        assert seen.sum() > 1000


def _check(case: Case, name: str, plan: Plan, cubes: Path) -> None:
    rule = plan.radiometry[name + ("#pan" if case.role == "landsat8_pan" else "")]
    assert case.rule in rule.rule
    decoded = xr.open_zarr(cubes, group=case.role, consolidated=False)
    raw = xr.open_zarr(cubes, group=case.role, consolidated=False, mask_and_scale=False)
    size = {"sentinel2": 10, "landsat8": 30, "landsat8_pan": 15}[case.role]
    nothing = np.zeros((PATCHES, PATCHES), bool)
    for index, band in enumerate(case.keys):
        dn = numbers(case.law, index)
        empty = dn == case.law.nodata
        nothing |= empty
        units = np.array([[-9999 if case.law.nodata == n else case.law.units(int(n)) for n in row] for row in dn])
        by_hand = np.where(empty, np.nan, units / 10_000)
        # before rounding
        np.testing.assert_allclose(sensors.to_reflectance(dn, rule), by_hand, rtol=0, atol=1e-6, err_msg=band)
        where = inner(size, case.resolution[band])
        got = raw[band].values
        assert got.shape[0] == 1
        np.testing.assert_array_equal(got[0][where], painted(units, size)[where], err_msg=f"{case.role} {band}")
        values = decoded[band].values[0]
        np.testing.assert_allclose(values[where], painted(by_hand, size)[where], rtol=0, atol=1e-6, err_msg=band)
    if not case.mask:
        return
    clear = np.vectorize(case.worth.get)(flags(case.worth))
    if case.saturation:
        clear = np.where((SATURATED == 1 << 3) & (clear == 1), 2, clear)
    clear = np.where(nothing, 0, clear)
    assert set(clear.ravel().tolist()) == {0, 1, 2}
    where = inner(size, max(case.resolution.values()))
    np.testing.assert_array_equal(raw["clear"].values[0][where], painted(clear, size)[where])


def inner(size: int, resolution: int) -> NDArray[np.bool_]:
    """Pixels of `size` m that no interpolation from `resolution` m reaches over a patch's edge; all where none is."""
    side = PATCH // size
    one = np.zeros((side, side), bool)
    edge = 0 if size == resolution else resolution // size
    one[edge : side - edge, edge : side - edge] = True
    return np.tile(one, (PATCHES, PATCHES))
