"""Digital numbers, masks and band-pass of the two sensors, against figures of the product guides."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from marstfn.bands import BANDS
from pipeline import sensors
from pipeline.plan import Options, Radiometry
from pipeline.sensors import CLEAR, MASKED, NOTHING, MaskOptions

LANDSAT = Radiometry(scale=2.75e-5, offset=-0.2, nodata=0, rule="")
SENTINEL = Radiometry(scale=1e-4, offset=-0.1, nodata=0, rule="")


def bits(*names: int) -> np.uint16:
    return np.uint16(sum(1 << n for n in names))


def test_landsat_valid_range_maps_to_zero_and_one() -> None:
    # USGS states 7273 and 43636 as the ends of the valid range
    rho = sensors.to_reflectance(np.array([[0, 7273, 43636, 65535]], np.uint16), LANDSAT)
    assert rho.dtype == np.float32
    assert np.isnan(rho[0, 0])
    assert rho[0, 1:] == pytest.approx([7.5e-6, 0.99999, 1.6022125], abs=1e-6)


def test_sentinel_offset_allows_negative_reflectance_and_fill_stays_nothing() -> None:
    rho = sensors.to_reflectance(np.array([0, 1, 1000, 11000], np.uint16), SENTINEL)
    assert np.isnan(rho[0])
    assert rho[1:] == pytest.approx([-0.0999, 0.0, 1.0], abs=1e-7)


def test_resampled_numbers_may_be_float_with_nan() -> None:
    rho = sensors.to_reflectance(np.array([np.nan, 0.0, 1000.5], np.float32), SENTINEL)
    assert np.isnan(rho[:2]).all()
    assert rho[2] == pytest.approx(5e-5, abs=1e-8)


@settings(deadline=None)
@given(hnp.arrays(np.uint16, 32), st.sampled_from([LANDSAT, SENTINEL]))
def test_reflectance_is_exact_to_float32_and_invertible(dn: np.ndarray[Any, Any], radiometry: Radiometry) -> None:
    rho = sensors.to_reflectance(dn, radiometry)
    assert (np.isnan(rho) == (dn == radiometry.nodata)).all()
    back = np.rint((rho.astype(np.float64) - radiometry.offset) / radiometry.scale)
    assert (back[dn != 0] == dn[dn != 0]).all()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (bits(6), CLEAR),
        (bits(6, 7), CLEAR),  # water
        (bits(5, 6), CLEAR),  # snow is ground unless the user says otherwise
        (bits(1), CLEAR),  # dilated cloud
        (bits(3), MASKED),
        (bits(4), MASKED),
        (bits(2), MASKED),
        (bits(0), NOTHING),  # QA_PIXEL fill is 1
        (bits(0, 3), NOTHING),
        (np.uint16(0), NOTHING),
        (np.uint16(21824), CLEAR),  # clear with low confidences: the commonest value over land
        (np.uint16(22280), MASKED),  # high confidence cloud
        (np.uint16(23888), MASKED),  # cloud shadow
    ],
)
def test_qa_pixel_bits(value: np.uint16, expected: int) -> None:
    assert sensors.landsat_clear(np.array([[value]], np.uint16)).tolist() == [[expected]]


def test_qa_pixel_options_change_what_is_clear() -> None:
    qa = np.array([[bits(5, 6), bits(1)]], np.uint16)
    strict = MaskOptions(snow=False, dilated_cloud=True, dilation=0)
    assert sensors.landsat_clear(qa, options=strict).tolist() == [[MASKED, MASKED]]


def test_saturation_of_a_used_band_masks_and_of_others_does_not() -> None:
    qa = np.full((1, 4), bits(6), np.uint16)
    radsat = np.array([[1 << 0, 1 << 1, 1 << 6, 1 << 8]], np.uint16)  # bands 1, 2, 7, 9
    assert sensors.landsat_clear(qa, radsat).tolist() == [[CLEAR, MASKED, MASKED, CLEAR]]


def test_scene_classification() -> None:
    scl = np.arange(12, dtype=np.uint8)[None]
    flat = MaskOptions(dilation=0)
    assert sensors.sentinel2_clear(scl, options=flat)[0].tolist() == [
        NOTHING, MASKED, CLEAR, MASKED, CLEAR, CLEAR, CLEAR, CLEAR, MASKED, MASKED, MASKED, CLEAR
    ]  # fmt: skip
    assert sensors.sentinel2_clear(scl, options=MaskOptions(dilation=0, snow=False))[0, 11] == MASKED


def test_masks_grow_by_metres_not_pixels() -> None:
    scl = np.full((41, 41), 4, np.uint8)
    scl[20, 20] = 9
    scl[0, 40] = 0
    for resolution, metres in ((10.0, 30.0), (20.0, 60.0), (30.0, 45.0), (10.0, 0.0)):
        clear = sensors.sentinel2_clear(scl, resolution=resolution, options=MaskOptions(dilation=metres))
        y, x = np.indices(scl.shape)
        disc = np.hypot(y - 20, x - 20) * resolution <= metres + 1e-6
        assert ((clear == MASKED) == disc).all()
        assert clear[0, 40] == NOTHING


def test_growing_never_turns_nothing_into_an_observation() -> None:
    qa = np.full((9, 9), bits(6), np.uint16)
    qa[:, :4] = 1
    qa[4, 5] = bits(3)
    clear = sensors.landsat_clear(qa, resolution=30, options=MaskOptions(dilation=90))
    assert (clear[:, :4] == NOTHING).all()
    assert clear[4, 7] == MASKED
    assert clear[4, 8] == MASKED
    assert clear[0, 8] == CLEAR


@settings(deadline=None)
@given(
    hnp.arrays(np.bool_, st.tuples(st.integers(1, 12), st.integers(1, 12))),
    st.floats(0, 70),
    st.sampled_from([10.0, 15.0, 30.0]),
)
def test_grown_agrees_with_distances_one_by_one(mask: np.ndarray[Any, Any], metres: float, resolution: float) -> None:
    found = sensors.grown(mask, metres, resolution)
    seeds = np.argwhere(mask)
    for y, x in np.ndindex(mask.shape):
        near = any(math.hypot(y - sy, x - sx) * resolution <= metres + 1e-5 * resolution for sy, sx in seeds)
        exact = any(abs(math.hypot(y - sy, x - sx) * resolution - metres) < 1e-4 * resolution for sy, sx in seeds)
        assert exact or bool(found[y, x]) == near


def test_bandpass_inverts_the_published_pairs() -> None:
    # HLS: OLI = a * MSI + b; red of Sentinel-2A a = 0.9765, b = 0.0009, blue of both 0.9778, -0.0040
    msi = np.full((6, 2, 3), 0.25, np.float32)
    oli = msi.copy()
    oli[0] = 0.9778 * 0.25 - 0.0040
    oli[2] = 0.9765 * 0.25 + 0.0009
    back = sensors.to_msi(oli, sensors.BANDPASS["sentinel-2a"])
    assert back.dtype == np.float32
    assert back[[0, 2]] == pytest.approx(msi[[0, 2]], abs=1e-6)
    mean = sensors.BANDPASS["sentinel-2"]
    assert len(mean.slope) == len(mean.intercept) == len(BANDS)
    # green: mean of (1.0053, -0.0009) and (1.0075, -0.0008)
    assert 1 / mean.slope[1] == pytest.approx(1.0064)
    assert -mean.intercept[1] / mean.slope[1] == pytest.approx(-0.00085)


def test_bandpass_keeps_nothing_and_checks_bands() -> None:
    oli = np.full((6, 1, 2), np.nan, np.float32)
    oli[:, 0, 1] = 0.1
    out = sensors.to_msi(oli)
    assert np.isnan(out[:, 0, 0]).all()
    assert np.isfinite(out[:, 0, 1]).all()
    with pytest.raises(ValueError, match="6 bands"):
        sensors.to_msi(oli[:5])


def test_fmask_of_digital_earth_australia() -> None:
    fmask = np.arange(6, dtype=np.uint8)[None]  # nothing, valid, cloud, shadow, snow, water
    flat = MaskOptions(dilation=0)
    assert sensors.fmask_clear(fmask, options=flat)[0].tolist() == [NOTHING, CLEAR, MASKED, MASKED, CLEAR, CLEAR]
    assert sensors.fmask_clear(fmask, options=MaskOptions(dilation=0, snow=False))[0, 4] == MASKED
    wide = np.ones((9, 9), np.uint8)
    wide[4, 4] = 2
    grown = sensors.fmask_clear(wide, resolution=30, options=MaskOptions(dilation=60))
    assert (grown == MASKED).sum() == 13


def test_cirrus_is_kept_where_one_wants_it() -> None:
    kept = MaskOptions(dilation=0, cirrus=False)
    qa = np.array([[bits(2, 6), bits(3)]], np.uint16)
    assert sensors.landsat_clear(qa, options=kept).tolist() == [[CLEAR, MASKED]]
    assert sensors.sentinel2_clear(np.array([[10, 9, 3]], np.uint8), options=kept).tolist() == [[CLEAR, MASKED, MASKED]]


def test_where_a_network_tells_clouds_the_products_own_do_not_count_but_its_fill_and_saturation_do() -> None:
    learned = MaskOptions(dilation=0, cloud=False, snow=False, dilated_cloud=True)
    qa = np.array([[bits(3), bits(4), bits(2), bits(1), bits(5), bits(0)]], np.uint16)
    assert sensors.landsat_clear(qa, options=learned)[0].tolist() == [CLEAR] * 4 + [MASKED, NOTHING]
    radsat = np.array([[2, 0, 0, 0, 0, 0]], np.uint16)
    assert sensors.landsat_clear(qa, radsat, options=learned)[0, 0] == MASKED
    scl = np.array([[8, 9, 3, 10, 1, 11, 0]], np.uint8)
    assert sensors.sentinel2_clear(scl, options=learned)[0].tolist() == [CLEAR] * 4 + [MASKED, MASKED, NOTHING]
    fmask = np.array([[2, 3, 4, 0]], np.uint8)
    assert sensors.fmask_clear(fmask, options=learned)[0].tolist() == [CLEAR, CLEAR, MASKED, NOTHING]


def test_mask_options_are_those_of_the_plan() -> None:
    assert MaskOptions.of(Options()) == MaskOptions()
    chosen = Options(snow="mask", cirrus=False, dilated_cloud=True, cloud_mask="omnicloudmask", mask_dilation=90)
    want = MaskOptions(dilation=90, snow=False, cirrus=False, dilated_cloud=True, cloud=False)
    assert MaskOptions.of(chosen) == want
