"""The c-factor against slow plain kernels, published integrals, and the geometry of recorded items."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from marstfn.bands import BANDS
from pipeline import nbar, profiles
from pipeline.errors import CatalogError
from pipeline.profiles import Product

ES, PC = (profiles.PROFILES[name] for name in ("earth-search", "planetary-computer"))
S2, LANDSAT = ES.product("sentinel2"), ES.product("landsat8")
DEA = Product("landsat8", "ga_ls8c_ard_3", {band: f"nbart_{band}" for band in BANDS}, family="dea-ard")
MIDDLE = (-105.5, 40.0)


def slow_ross(s: float, v: float, phi: float) -> float:
    cosine = math.cos(s) * math.cos(v) + math.sin(s) * math.sin(v) * math.cos(phi)
    xi = math.acos(max(-1.0, min(1.0, cosine)))
    return ((math.pi / 2 - xi) * math.cos(xi) + math.sin(xi)) / (math.cos(s) + math.cos(v)) - math.pi / 4


def slow_li(s: float, v: float, phi: float) -> float:
    """As written in the user guide of MODIS's BRDF product, transformation of angles and all."""
    hb, br = 2.0, 1.0
    s, v = math.atan(br * math.tan(s)), math.atan(br * math.tan(v))
    cosine = math.cos(s) * math.cos(v) + math.sin(s) * math.sin(v) * math.cos(phi)
    d2 = math.tan(s) ** 2 + math.tan(v) ** 2 - 2 * math.tan(s) * math.tan(v) * math.cos(phi)
    sec = 1 / math.cos(s) + 1 / math.cos(v)
    cost = hb * math.sqrt(max(0.0, d2) + (math.tan(s) * math.tan(v) * math.sin(phi)) ** 2) / sec
    t = math.acos(max(-1.0, min(1.0, cost)))
    o = (t - math.sin(t) * math.cos(t)) * sec / math.pi
    return o - sec + 0.5 * (1 + cosine) / math.cos(s) / math.cos(v)


def test_kernels_agree_with_a_plain_reading_of_their_formulas() -> None:
    rng = np.random.default_rng(3)
    sun, view, phi = rng.uniform(0, 1.2, 300), rng.uniform(0, 1.0, 300), rng.uniform(0, np.pi, 300)
    for fast, slow in ((nbar.ross_thick, slow_ross), (nbar.li_sparse, slow_li)):
        found = fast(sun, view, phi)
        want = [slow(*angles) for angles in zip(sun, view, phi, strict=True)]
        np.testing.assert_allclose(found, want, atol=1e-12)
        assert fast(0.0, 0.0, 0.0) == pytest.approx(0, abs=1e-12)
        # reciprocal, and the same on either side of the sun's plane
        np.testing.assert_allclose(found, fast(view, sun, phi), atol=1e-12)
        np.testing.assert_allclose(found, fast(sun, view, -phi), atol=1e-12)


@pytest.mark.parametrize(("kernel", "published"), [(nbar.ross_thick, 0.189184), (nbar.li_sparse, -1.377622)])
def test_white_sky_integrals_are_the_published_ones(kernel: Any, published: float) -> None:
    """Of the user guide of MODIS's BRDF and albedo product (Lucht et al. 2000, table 1)."""
    nodes, weights = np.polynomial.legendre.leggauss(64)
    zenith, by_zenith = (nodes + 1) * np.pi / 4, weights * np.pi / 4
    azimuth, by_azimuth = (nodes + 1) * np.pi / 2, weights * np.pi / 2
    s, v, phi = np.meshgrid(zenith, zenith, azimuth, indexing="ij")
    weight = np.einsum("i,j,k->ijk", by_zenith, by_zenith, by_azimuth)
    lit = np.sin(s) * np.cos(s) * np.sin(v) * np.cos(v)
    white = 2 * (2 / np.pi) * (kernel(s, v, phi) * lit * weight).sum()
    assert white == pytest.approx(published, abs=2e-3)


def test_the_factor_by_hand() -> None:
    """Near infrared, sun at 40 degrees, seen from 10 degrees with the sun behind and in front."""
    iso, geo, vol = 0.3093, 0.0330, 0.1535  # f_iso, f_geo, f_vol: this order
    s, v = math.radians(40), math.radians(10)
    above = iso + geo * slow_li(s, 0, 0) + vol * slow_ross(s, 0, 0)
    for degrees in (0.0, 90.0, 180.0):
        seen = iso + geo * slow_li(s, v, math.radians(degrees)) + vol * slow_ross(s, v, math.radians(degrees))
        assert nbar.factor(BANDS.index("nir08"), 40.0, 10.0, degrees) == pytest.approx(above / seen, abs=1e-12)
    behind, ahead = (float(nbar.factor(3, 40.0, 10.0, phi)) for phi in (0.0, 180.0))
    # seen with the sun behind one the ground is brighter, and by some percent
    assert 0.90 < behind < 0.99
    assert 1.01 < ahead < 1.10


def test_from_above_nothing_changes_and_a_low_sun_is_taken_as_the_limit() -> None:
    for band in range(6):
        assert nbar.factor(band, 33.0, 0.0, 77.0) == pytest.approx(1, abs=1e-12)
        assert nbar.factor(band, 75.0, 8.0, 20.0) == nbar.factor(band, nbar.LIMIT, 8.0, 20.0)


def test_arrays_of_angles_are_taken_pixel_by_pixel() -> None:
    view = np.linspace(0, 12, 25).reshape(5, 5)
    found = nbar.factor(3, 40.0, view, 30.0)
    want = [[float(nbar.factor(3, 40.0, float(v), 30.0)) for v in row] for row in view]
    np.testing.assert_allclose(found, want, atol=1e-14)


def test_the_edge_of_a_swath_is_seen_at_the_known_angle() -> None:
    """Landsat looks 7.5 degrees aside and spans 185 km, Sentinel-2 10.3 degrees and 290 km."""
    for name, half, scan in (("landsat", 92.5, 7.5), ("sentinel-2", 145.0, 10.3)):
        orbit = nbar.ORBITS[name]
        zenith = nbar.seen_from(orbit, half)
        ratio = (nbar.EARTH + orbit.altitude) / nbar.EARTH
        assert math.degrees(math.asin(math.sin(math.radians(zenith)) / ratio)) == pytest.approx(scan, abs=0.15)
        assert nbar.ground(orbit, zenith) == pytest.approx(half)


def item(
    view: float | None, azimuth: float | None, middle: tuple[float, float] = MIDDLE, **more: Any
) -> dict[str, Any]:
    x, y = middle
    ring = [[x - 1, y - 1], [x + 1, y - 1], [x + 1, y + 1], [x - 1, y + 1], [x - 1, y - 1]]
    properties: dict[str, Any] = {"platform": "sentinel-2a", "view:sun_elevation": 50.0, "view:sun_azimuth": 150.0}
    if view is not None:
        properties |= {"view:incidence_angle": view, "view:azimuth": azimuth}
    return {"id": "X", "properties": properties | more, "geometry": {"type": "Polygon", "coordinates": [ring]}}


def test_neighbouring_tiles_of_one_pass_agree_where_they_meet() -> None:
    """Their own mean angles differ by several degrees: taken as they are, they would leave a seam."""
    orbit = nbar.ORBITS["sentinel-2"]
    side = nbar.course(orbit, 40.0) + 90
    assert side == pytest.approx(284, abs=1)
    east = math.sin(math.radians(side)) * 6371 * math.radians(1) * math.cos(math.radians(40))
    place = (-105.0, 40.0)
    found = []
    for x in (-105.5, -104.5):
        # the track passes 120 km to the right of the flight from `place`
        off = 120 - (x - place[0]) * east
        view = nbar.seen_from(orbit, off)
        found.append(nbar.nadir(item(view, side, (x, 40.0)), S2, place))
        assert found[-1] is not None
    one, two = found
    assert one.view_zenith == pytest.approx(two.view_zenith, abs=0.1)
    assert one.view_zenith == pytest.approx(nbar.seen_from(orbit, 120), abs=0.1)
    np.testing.assert_allclose(one.factors, two.factors, atol=5e-4)


def test_of_landsat_the_middle_is_seen_from_above_and_either_edge_from_its_side() -> None:
    scene = item(None, None, platform="LANDSAT_9") | {"id": "L"}
    above = nbar.nadir(scene, LANDSAT, MIDDLE)
    assert above.view_zenith == 0
    assert above.factors == (1.0,) * 6
    west, east = (nbar.nadir(scene, LANDSAT, (MIDDLE[0] + d, 40.0)) for d in (-0.9, 0.9))
    assert west.view_zenith == pytest.approx(east.view_zenith, abs=0.1)
    assert 5 < west.view_zenith < 8.3
    # the sun stands in the south-east: the west is seen with the sun behind, and is brighter
    assert west.factors[3] < 1 < east.factors[3]
    assert nbar.nadir(item(None, None, platform="landsat-8", **{"view:off_nadir": 14.0}), LANDSAT, MIDDLE) is None


RECORDED = {
    "earth-search-v1/sentinel-2-c1-l2a/S2A_T13TDE_20240402T174230_L2A": (S2, 11.5),
    "de-africa/s2_l2a_c1/S2B_T37MGP_20240710T073012_L2A": (S2, 0.6),
    "cdse/sentinel-2-l2a/S2C_MSIL2A_20260527T014651_N0512_R017_T55WFR_20260527T042005": (S2, 5.0),
    "earth-search-v1/landsat-c2-l2/LC08_L2SP_033032_20231008_02_T1": (LANDSAT, 0.0),
    "usgs-landsatlook/landsat-c2l2-sr/LC08_L2SP_028030_20200114_20200824_02_T1_SR": (LANDSAT, 0.0),
    # these do not tell
    "planetary-computer/sentinel-2-l2a/S2B_MSIL2A_20241203T174629_R098_T13TDE_20241203T211406": (S2, None),
    "earth-search-v1/sentinel-2-l2a/S2A_13TDE_20231008_0_L2A": (S2, None),
}


@pytest.mark.shared
@pytest.mark.parametrize("name", RECORDED)
def test_angles_of_recorded_items(name: str, shared: Path) -> None:
    product, view = RECORDED[name]
    recorded = json.loads((shared / "stac" / f"{name}.json").read_text())
    west, south, east, north = recorded["bbox"]
    found = nbar.nadir(recorded, product, ((west + east) / 2, (south + north) / 2))
    if view is None:
        assert found is None
        return
    assert found.view_zenith == pytest.approx(view, abs=1.2)
    assert all(0.9 < f < 1.1 for f in found.factors)


@pytest.mark.shared
def test_digital_earth_australia_is_never_corrected_again(shared: Path) -> None:
    name = "dea/ga_ls8c_ard/ga_ls8c_ard_3-1-0_088080_2020-05-25_final"
    recorded = json.loads((shared / "stac" / f"{name}.json").read_text())
    for asked in ("auto", "on"):
        found, said = nbar.chosen(asked, [(recorded, DEA)], (154.4, -28.8))
        assert found == {}
        assert "NBAR already" in said


def test_how_far_one_factor_for_an_item_can_be_off() -> None:
    """The bound that is told, found by search: it holds, and is no more than is needed."""
    worst = 0.0
    for name, half in (("landsat", 92.5), ("sentinel-2", 145.0)):
        orbit = nbar.ORBITS[name]
        off = np.arange(-half, half + 1, 2.0)  # km from the ground track, either side
        view = np.array([nbar.seen_from(orbit, abs(x)) for x in off])
        for sun in (20.0, 35.0, 50.0, 60.0):
            for bearing in range(0, 181, 15):
                azimuth = np.where(off >= 0, bearing, 180.0 - bearing)
                for band in range(6):
                    found = np.asarray(nbar.factor(band, np.full(off.shape, sun), view, azimuth))
                    worst = max(worst, float(np.abs(np.diff(np.log(found)) / np.diff(off)).max()))
    assert 0.9 * nbar.PER_KM < worst <= nbar.PER_KM


def test_auto_corrects_all_or_nothing_and_on_refuses_by_name() -> None:
    tells, silent = item(5.0, 104.0) | {"id": "A"}, item(None, None) | {"id": "B"}
    found, said = nbar.chosen("auto", [(tells, S2)], MIDDLE)
    assert set(found) == {"A"}
    assert "1 item is brought" in said
    found, said = nbar.chosen("auto", [(tells, S2), (silent, S2)], MIDDLE)
    assert found == {}
    assert "such as B" in said
    with pytest.raises(CatalogError, match=r"such as B.*--nbar auto or off"):
        nbar.chosen("on", [(tells, S2), (silent, S2)], MIDDLE)
    assert nbar.chosen("off", [(tells, S2)], MIDDLE) == ({}, "")


def test_across_the_antimeridian_the_way_is_short() -> None:
    near = nbar.nadir(item(5.0, 104.0, (179.9, 40.0)), S2, (-179.9, 40.0))
    same = nbar.nadir(item(5.0, 104.0, (10.0, 40.0)), S2, (10.2, 40.0))
    assert near.factors == pytest.approx(same.factors, abs=1e-5)
