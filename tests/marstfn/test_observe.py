"""The simulated Landsat: where its pixels lie, what they average, which way a shift goes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marstfn.observe import MARGIN, View, bilinear20, half_pixel, landsat

SIDE = 60 + 2 * MARGIN


def ramps() -> np.ndarray:
    """Bands 0, 2, 4 hold metres eastward of the window's corner, bands 1, 3, 5 metres southward; at pixel centres."""
    y, x = np.mgrid[:SIDE, :SIDE] * 10.0 + 5.0
    return np.stack([x, y] * 3).astype(np.float32)


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_pixels_stand_on_the_lattice_to_the_centimetre() -> None:
    coarse, pan = landsat(ramps(), View(), rng())
    assert coarse.shape == (6, 20, 20)
    assert pan.shape == (1, 40, 40)
    centres = MARGIN * 10 + 30 * np.arange(20) + 15.0
    assert np.allclose(coarse[0], centres[None, :], atol=1e-2)
    assert np.allclose(coarse[1], centres[:, None], atol=1e-2)
    sharp = MARGIN * 10 + 15 * np.arange(40) + 7.5
    expected = 0.13 * sharp[None, :] + 0.44 * sharp[:, None] + 0.43 * sharp[None, :]
    assert np.allclose(pan[0], expected, atol=1e-2)


@given(st.floats(-12, 12), st.floats(-12, 12))
@settings(max_examples=15, deadline=None)
def test_a_shift_moves_the_ground_east_and_north(east: float, north: float) -> None:
    coarse, _ = landsat(ramps(), View(east=east, north=north), rng())
    still, _ = landsat(ramps(), View(), rng())
    assert np.allclose(coarse[0] - still[0], -east, atol=1e-2)
    assert np.allclose(coarse[1] - still[1], north, atol=1e-2)


def test_radiometry_is_a_gain_and_an_offset() -> None:
    flat = np.full((6, SIDE, SIDE), 0.2, np.float32)
    gain, offset = (1.1, 1, 1, 0.9, 1, 1), (0, 0.01, 0, 0, -0.02, 0)
    coarse, pan = landsat(flat, View(gain=gain, offset=offset, pan_gain=0.9, pan_offset=0.05), rng())
    assert np.allclose(coarse.mean((1, 2)), [0.22, 0.21, 0.2, 0.18, 0.18, 0.2], atol=1e-6)
    assert np.allclose(pan, 0.23, atol=1e-6)


def test_noise_and_haze_are_what_they_say() -> None:
    flat = np.full((6, SIDE, SIDE), 0.2, np.float32)
    noisy, _ = landsat(flat, View(noise=0.01), rng())
    # the cubic kernel half-way between pixels averages: (2 (81 + 1) / 256) in each direction
    assert noisy.std() == pytest.approx(0.01 * 164 / 256, rel=0.1)
    hazy, _ = landsat(flat, View(haze=0.02), rng())
    veil = hazy.mean((1, 2)) - 0.2
    assert (np.diff(veil) < 0).all()
    assert veil[0] == pytest.approx(0.02, rel=0.5)


def test_a_wider_psf_blurs() -> None:
    fine = np.random.default_rng(1).uniform(0, 0.5, (6, SIDE, SIDE)).astype(np.float32)
    spread = [landsat(fine, View(psf=s), rng())[0].std() for s in (0.0, 6.0, 13.0)]
    assert spread[0] > spread[1] > spread[2]


def test_half_pixel_is_exact_on_cubics() -> None:
    x = np.arange(12.0)
    curve = 0.3 * x**2 - x
    got = half_pixel(np.broadcast_to(curve, (1, 12, 12)).copy())
    middle = np.arange(1.5, 10.5)
    assert np.allclose(got[0, 0], 0.3 * middle**2 - middle)


def test_bilinear_from_20_m_keeps_planes_and_corners() -> None:
    y, x = np.mgrid[:8, :8] * 20.0 + 10.0
    fine = bilinear20(np.stack([x, y]))
    centres = np.arange(16) * 10.0 + 5.0
    assert np.allclose(fine[0, :, 1:-1], centres[None, 1:-1])
    assert np.allclose(fine[1, 1:-1], centres[1:-1, None])
    assert fine[0, 3, 0] == 10.0


def test_windows_off_the_lattice_are_refused() -> None:
    with pytest.raises(ValueError, match="multiples of 6"):
        landsat(np.zeros((6, SIDE + 1, SIDE), np.float32), View(), rng())


def test_draws_stay_within_their_stated_bounds() -> None:
    draws = [View.draw(np.random.default_rng(k)) for k in range(200)]
    assert all(abs(v.east) <= 12 and abs(v.north) <= 12 and 0 <= v.psf <= 13 for v in draws)
    assert 0.05 < np.mean([v.haze > 0 for v in draws]) < 0.3
    assert View.draw(np.random.default_rng(3)) == View.draw(np.random.default_rng(3))
