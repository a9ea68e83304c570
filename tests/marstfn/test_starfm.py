"""STARFM: a plain second reading of the paper, its properties, its authors' simulated scenes and a real pair."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from marstfn.baselines import degrade
from marstfn.baselines.holes import enlarged
from marstfn.baselines.starfm import starfm

seeds = st.integers(0, 2**32 - 1)

PROGRAM: dict[str, Any] = {"window": 51, "weights": "product", "temporal": False, "spread": "image"}
"""As the authors' program treats one pair: 1500 m of 30 m pixels, products, T left out of the weights."""


def pair(seed: int, side: int = 30, bands: int = 2) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """F1 with fields and texture, C2 after a change that differs from place to place, C1 of another sensor."""
    rng = np.random.default_rng(seed)
    fields = np.kron(rng.uniform(0.05, 0.4, (bands, side // 6 + 1, side // 6 + 1)), np.ones((6, 6)))[:, :side, :side]
    s2 = (fields + rng.normal(0, 0.01, (bands, side, side))).astype(np.float32)
    then = degrade(s2) * 1.02 + rng.normal(0, 0.004, (bands, side // 3, side // 3)).astype(np.float32)
    change = gaussian_filter(rng.normal(0, 0.3, (bands, side // 3, side // 3)), (0, 2, 2))
    return s2, (then + change).astype(np.float32), then.astype(np.float32)


def plain(
    s2: np.ndarray,
    landsat: np.ndarray,
    coarse_then: np.ndarray,
    *,
    window: int = 31,
    classes: float = 4,
    weights: str = "log",
    temporal: bool = True,
    strict: bool = False,
    spread: str = "window",
    sigma: float = 0.005,
) -> np.ndarray:
    """One band, pixel by pixel, as the paper says it; enlarged images are taken from the package."""
    fine, half, scale = s2[0].astype(float), window // 2, 1e4
    then = enlarged(coarse_then)
    change = (enlarged(landsat) - then)[0].astype(float)
    then = then[0].astype(float)
    height, width = fine.shape
    known = np.isfinite(fine + then + change)
    spectral, passed = abs(fine - then).tolist(), abs(change).tolist()
    f, c, ok = fine.tolist(), change.tolist(), known.tolist()
    out = np.full(fine.shape, np.nan, np.float32)
    overall = float(np.std(fine[known]))
    for y in range(height):
        for x in range(width):
            if not ok[y][x]:
                continue
            rows = range(max(0, y - half), min(height, y + half + 1))
            cols = range(max(0, x - half), min(width, x + half + 1))
            around = np.s_[rows.start : rows.stop, cols.start : cols.stop]
            deviation = overall if spread == "image" else float(np.std(fine[around][known[around]]))
            total = weighted = 0.0
            for v in rows:
                for u in cols:
                    if not ok[v][u] or abs(f[v][u] - f[y][x]) > 2 * deviation / classes:
                        continue
                    s, t = spectral[v][u], passed[v][u]
                    closer = s < spectral[y][x] + math.sqrt(2) * sigma, t < passed[y][x] + math.sqrt(2) * sigma
                    if not (all(closer) if strict else any(closer)):
                        continue
                    cost = 1 + math.hypot(v - y, u - x) / max(half, 1)
                    for difference in (s, t) if temporal else (s,):
                        cost *= math.log(difference * scale + 2) if weights == "log" else difference + 1 / scale
                    total += 1 / cost
                    weighted += (f[v][u] + c[v][u]) / cost
            out[y, x] = weighted / total if total else f[y][x] + c[y][x]
    return out[None]


def test_agrees_with_a_plain_reading_of_the_paper() -> None:
    s2, landsat, then = pair(1, 60, 1)
    s2[:, 20:26, 31:33] = np.nan
    landsat[:, 3, 4:6] = np.nan
    then[:, 15, 15] = np.nan
    expected = plain(s2, landsat, then, window=31)
    made = starfm(s2, landsat, coarse_then=then)
    assert np.isnan(expected).sum() == 12 + 18 + 9
    np.testing.assert_allclose(made, expected, atol=2e-7, rtol=0)


@pytest.mark.parametrize(
    "options",
    [
        {"strict": True},
        {"weights": "product"},
        {"temporal": False, "spread": "image"},
        {"weights": "product", "temporal": False, "classes": 10},
        {"weights": "product", "strict": True, "spread": "image", "window": 13},
        {"window": 1},
        {"strict": True, "sigma": 0.0},
    ],
    ids=str,
)
def test_every_option_agrees_with_the_plain_reading(options: dict[str, Any]) -> None:
    s2, landsat, then = pair(2, 30, 1)
    s2[:, 4, 5:9] = np.nan
    given = {"window": 9, **options}
    ours = {k: v for k, v in given.items() if k != "sigma"}
    sigma = given.get("sigma", 0.005)
    made = starfm(s2, landsat, coarse_then=then, fine_uncertainty=sigma, coarse_uncertainty=sigma, **ours)
    np.testing.assert_allclose(made, plain(s2, landsat, then, **given), atol=2e-7, rtol=0)


def test_options_matter() -> None:
    s2, landsat, then = pair(3)
    base = starfm(s2, landsat, coarse_then=then)
    for options in (
        {"strict": True},
        {"weights": "product"},
        {"temporal": False},
        {"spread": "image"},
        {"classes": 12},
        {"window": 9},
        {"distance": 3.0},
        {"scale": 100.0},
        {"fine_uncertainty": 0.05},
        {"coarse_uncertainty": 0.05},
    ):
        assert abs(starfm(s2, landsat, coarse_then=then, **options) - base).max() > 1e-4, options  # type: ignore[arg-type]


def tolerance(s2: np.ndarray, window: int = 31) -> float:
    """2 std / m where the spread is largest."""
    half = window // 2
    side = s2.shape[1]
    spread = max(
        float(np.std(band[max(0, y - half) : y + half + 1, max(0, x - half) : x + half + 1]))
        for band in s2.astype(float)
        for y in range(side)
        for x in range(side)
    )
    return 2 * spread / 4 + 1e-6


@given(seeds)
@settings(max_examples=10, deadline=None)
def test_without_change_a_pixel_stays_within_the_likeness_of_its_neighbours(seed: int) -> None:
    s2, _, then = pair(seed)
    assert abs(starfm(s2, then, coarse_then=then) - s2).max() <= tolerance(s2)


@given(seeds, st.floats(-0.1, 0.1))
@settings(max_examples=10, deadline=None)
def test_a_uniform_change_of_coarse_images_without_detail_is_followed_exactly(seed: int, change: float) -> None:
    s2, _, _ = pair(seed)
    then = np.full((2, 10, 10), 0.2, np.float32)
    still = starfm(s2, then, coarse_then=then)
    moved = starfm(s2, then + np.float32(change), coarse_then=then)
    # float32 pixels of 0.2, weighed by logarithms of their differences in units of 1e-4
    np.testing.assert_allclose(moved - still, change, atol=5e-6)
    assert abs(moved - change - s2).max() <= tolerance(s2)


@given(seeds)
@settings(max_examples=10, deadline=None)
def test_a_fine_image_without_detail_takes_a_mean_of_the_changes_around(seed: int) -> None:
    _, landsat, then = pair(seed)
    s2 = np.full((2, 30, 30), 0.25, np.float32)
    made = starfm(s2, landsat, coarse_then=then, window=7) - s2
    change = enlarged(landsat) - enlarged(then)
    for y, x in ((0, 0), (11, 17), (29, 4)):
        near = change[:, max(0, y - 3) : y + 4, max(0, x - 3) : x + 4]
        assert (made[:, y, x] >= near.min((1, 2)) - 1e-6).all()
        assert (made[:, y, x] <= near.max((1, 2)) + 1e-6).all()


@given(seeds)
@settings(max_examples=10, deadline=None)
def test_bands_are_treated_alike_and_inputs_left_alone(seed: int) -> None:
    images = pair(seed, 30, 3)
    before = [image.copy() for image in images]
    for image in images:
        image.setflags(write=False)
    s2, landsat, then = images
    made = starfm(s2, landsat, coarse_then=then)
    assert made.dtype == np.float32
    assert made.shape == s2.shape
    assert np.array_equal(starfm(s2[[2, 0, 1]], landsat[[2, 0, 1]], coarse_then=then[[2, 0, 1]]), made[[2, 0, 1]])
    assert np.array_equal(starfm(s2[1:2], landsat[1:2], coarse_then=then[1:2]), made[1:2])
    assert all(np.array_equal(a, b) for a, b in zip(images, before, strict=True))


def test_a_shift_of_all_images_shifts_the_result() -> None:
    s2, landsat, then = (image + np.float32(0.25) for image in pair(5))
    made = starfm(s2, landsat, coarse_then=then)
    shifted = starfm(s2 + np.float32(0.125), landsat + np.float32(0.125), coarse_then=then + np.float32(0.125))
    np.testing.assert_allclose(shifted, made + 0.125, atol=5e-6)  # enlargement rounds otherwise at another level


def test_where_no_pixel_passes_the_centre_stands_for_itself() -> None:
    s2, landsat, then = pair(6)
    value = s2 + (enlarged(landsat) - enlarged(then))
    certain: dict[str, Any] = {"strict": True, "fine_uncertainty": 0, "coarse_uncertainty": 0}
    made = starfm(s2, landsat, coarse_then=then, **certain)
    for band in range(2):
        # without uncertainty no pixel tells more than the one nearest to its coarse image, and it does not either
        best = np.unravel_index(np.argmin(abs(s2[band] - enlarged(then)[band])), (30, 30))
        assert made[band][best] == pytest.approx(value[band][best], abs=1e-7)
    assert abs(made - value).max() > 0.01


def test_products_predict_less_of_a_change_than_logarithms() -> None:
    rng = np.random.default_rng(7)
    s2 = (0.2 + rng.normal(0, 0.005, (1, 60, 60))).astype(np.float32)
    then = degrade(s2)
    now = then.copy()
    now[:, :, 10:] += 0.1
    gained = {
        kind: float((starfm(s2, now, coarse_then=then, weights=kind) - s2)[:, :, 33:42].mean())  # type: ignore[arg-type]
        for kind in ("log", "product")
    }
    assert gained["product"] < 0.5 * gained["log"]
    assert gained["log"] < 0.1


def test_threads_change_no_bit() -> None:
    s2, landsat, then = pair(8, 60, 3)
    s2[:, 30:33, 12] = np.nan
    one, two, seven = (starfm(s2, landsat, coarse_then=then, threads=n) for n in (1, 2, 7))
    assert one.tobytes() == two.tobytes() == seven.tobytes()


def test_a_window_of_the_image_with_24_px_around_gives_the_same_pixels() -> None:
    s2, landsat, then = pair(9, 120, 1)
    whole = starfm(s2, landsat, coarse_then=then)
    part = starfm(s2[:, 12:96, 24:108], landsat[:, 4:32, 8:36], coarse_then=then[:, 4:32, 8:36])
    np.testing.assert_allclose(part[:, 24:-24, 24:-24], whole[:, 36:72, 48:84], atol=5e-6)


def test_holes_are_no_candidates_and_cost_no_other_pixel() -> None:
    s2, landsat, then = pair(10)
    holed = s2.copy(), landsat.copy(), then.copy()
    holed[0][0, 3, 3] = np.nan  # one band is enough
    holed[1][:, 5, 6] = np.nan
    holed[2][1, 8, 2] = np.nan
    made = starfm(holed[0], holed[1], coarse_then=holed[2])
    empty = np.zeros((30, 30), bool)
    empty[3, 3] = empty[15:18, 18:21] = empty[24:27, 6:9] = True
    assert np.array_equal(np.isnan(made), np.broadcast_to(empty, made.shape))
    full = starfm(s2, landsat, coarse_then=then)
    assert abs(made - full)[:, ~empty].max() < 0.1
    # beyond the reach of the hole's window and of its bicubic neighbours nothing differs
    small = starfm(holed[0], holed[1], coarse_then=holed[2], window=3) - starfm(s2, landsat, coarse_then=then, window=3)
    assert abs(small[:, :3, 20:]).max() == 0


def test_nothing_known_constant_or_one_cell_only() -> None:
    nothing, coarse = np.full((2, 12, 12), np.nan, np.float32), np.full((2, 4, 4), 0.1, np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isnan(starfm(nothing, coarse, coarse_then=coarse)).all()
        assert np.isnan(starfm(nothing, coarse * np.nan, coarse_then=coarse)).all()
        flat = np.full((2, 12, 12), 0.3, np.float32)
        assert np.isnan(starfm(flat, coarse * np.nan, coarse_then=coarse)).all()
        assert np.isnan(starfm(flat, coarse, coarse_then=coarse * np.nan)).all()
        np.testing.assert_allclose(starfm(flat, coarse + np.float32(0.05), coarse_then=coarse), 0.35, atol=1e-6)
        one = np.full((2, 12, 12), np.nan, np.float32)
        one[:, 7, 7] = 0.3
        alone = starfm(one, coarse + np.float32(0.05), coarse_then=coarse)
        np.testing.assert_allclose(alone[:, 7, 7], 0.35, atol=1e-6)
        assert np.isnan(alone).sum() == alone.size - 2


def test_pan_is_not_used() -> None:
    s2, landsat, then = pair(11)
    pan = np.full((1, 20, 20), 0.4, np.float32)
    assert np.array_equal(starfm(s2, landsat, pan, coarse_then=then), starfm(s2, landsat, coarse_then=then))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"window": 30}, "odd"),
        ({"window": -1}, "odd"),
        ({"classes": 0}, "above 0"),
        ({"scale": 0.0}, "above 0"),
        ({"distance": 0.0}, "distance"),
        ({"fine_uncertainty": -0.1}, "fine uncertainty"),
        ({"coarse_uncertainty": (0.1, 0.1, 0.1)}, "coarse uncertainty"),
        ({"coarse_then": np.zeros((2, 9, 10), np.float32)}, "30 x 30"),
        ({"coarse_then": np.zeros((1, 10, 10), np.float32)}, "bands"),
        ({"coarse_then": np.full((2, 10, 10), 2000, np.float32)}, "digital numbers"),
        ({"weights": "logarithm"}, "weights"),
        ({"spread": "local"}, "spread"),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused(change: dict[str, Any], says: str) -> None:
    s2, landsat, then = pair(12)
    with pytest.raises(ValueError, match=says):
        starfm(s2, landsat, **{"coarse_then": then, **change})


def test_uncertainties_may_differ_by_band() -> None:
    s2, landsat, then = pair(13)
    made = starfm(s2, landsat, coarse_then=then, fine_uncertainty=(0.002, 0.05), coarse_uncertainty=(0.002, 0.05))
    for band, sigma in enumerate((0.002, 0.05)):
        alone = starfm(s2, landsat, coarse_then=then, fine_uncertainty=sigma, coarse_uncertainty=sigma)
        assert np.array_equal(made[band], alone[band])
    assert not np.array_equal(made[0], alone[0])


Scene = Callable[[int], dict[str, np.ndarray]]


@pytest.fixture
def gao(shared: Path) -> Scene:
    """The paper's simulated tests: two fine and two coarse images, MODIS pixels of 17 fine ones, brought to 3 x 3."""

    def read(number: int) -> dict[str, np.ndarray]:
        later = "t2" if number == 1 else "t4"
        found = {}
        for sensor in ("Landsat", "MODIS"):
            for day, key in (("t1", "then"), (later, "now")):
                path = shared / f"data/ref-starfm-simulated/Test_{number}/sim_{sensor}_{day}.tif"
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
                    with rasterio.open(path) as image:
                        found[f"{sensor} {key}"] = image.read().astype(np.float32) / 1e4
        return found

    return read


def predicted(scene: dict[str, np.ndarray], **options: Any) -> np.ndarray:
    """The error of each pixel, (H,W). The set holds no results, so the truth is the simulated fine image itself."""
    now, then = degrade(scene["MODIS now"]), degrade(scene["MODIS then"])
    made = starfm(scene["Landsat then"], now, coarse_then=then, **{**PROGRAM, **options})
    return np.asarray((made - scene["Landsat now"])[0])


@pytest.mark.shared
def test_an_object_that_keeps_its_shape_is_predicted_as_the_paper_shows(gao: Scene) -> None:
    # Every class has pure MODIS pixels within 1500 m, so that all but its 20 mixed fine pixels can be had to the
    # uncertainty; exactly equal they cannot be, since MODIS edges do not lie on multiples of 3 px.
    scene = gao(1)
    mixed = scene["Landsat then"][0] == np.float32(0.075)
    error = predicted(scene)
    assert mixed.sum() == 20
    assert abs(error)[~mixed].max() < 0.005
    assert np.sqrt((error**2).mean()) < 0.001  # 0.242 for the copy, 0.064 for the coarse change as it is
    assert abs(error).max() < 0.03


@pytest.mark.shared
def test_strict_filters_spoil_the_paper_s_own_scene(gao: Scene) -> None:
    scene = gao(1)
    loose, strict = (float(np.sqrt((predicted(scene, strict=s) ** 2).mean())) for s in (False, True))
    assert strict > 20 * loose


@pytest.mark.shared
def test_an_object_that_grows_is_beyond_starfm_but_what_stays_of_it_is_right(gao: Scene) -> None:
    # The fine image of t1 does not hold the new outline: the paper, too, finds it blurred.
    scene = gao(2)
    old, new = scene["Landsat then"][0], scene["Landsat now"][0]
    error = predicted(scene)
    stays = (old < 0.2) & (new < 0.2)
    assert stays.sum() > 800
    assert abs(error[stays]).max() < 0.002
    copied = np.sqrt(((old - new) ** 2).mean())
    assert np.sqrt((error**2).mean()) < 0.5 * copied
    assert abs(error[old != new]).mean() > 0.05


@pytest.mark.shared
def test_lines_narrower_than_a_coarse_pixel_are_lost_but_spoil_nothing_else(gao: Scene) -> None:
    # A line has no pure MODIS pixel anywhere, so it takes the change of its surroundings; the paper names this limit.
    scene = gao(3)
    line = scene["Landsat then"][0] == np.float32(0.5)
    mixed = scene["Landsat then"][0] == np.float32(0.075)
    error = predicted(scene)
    assert line.sum() == 150
    assert error[line].mean() > 0.05
    assert (abs(error[~line & ~mixed]) < 0.005).mean() > 0.99
    assert np.sqrt((error[~line & ~mixed] ** 2).mean()) < 0.001


Day = tuple[np.ndarray, np.ndarray, np.ndarray]


@pytest.fixture
def kranj(shared: Path) -> Callable[[str], Day]:
    """A day of 2020: Landsat (6,42,45), what of it was seen, and MODIS as means of 3 x 3 of its smoothed pixels."""
    folder = shared / "data/kranj-landsat-modis"

    def read(name: str) -> Day:
        with rasterio.open(folder / f"landsat/filled/2020{name}.tif_filled_kranj.tif") as image:
            landsat = image.read()[:, :42, :45] / 1e4
        with rasterio.open(folder / f"landsat/unfilled/2020{name}_kranj.tif") as image:
            seen = ~np.ma.getmaskarray(image.read(masked=True))[:, :42, :45]
        with rasterio.open(folder / f"modis/filled/2020{name[:3]}_18-04_kranj.tif") as image:
            modis = degrade(image.read()[:, :42, :45])
        return landsat.astype(np.float32), seen.all(0), modis

    return read


@pytest.mark.shared
@pytest.mark.parametrize("later", ["077_190-28", "093_190-28"])
def test_a_real_pair_carries_early_march_forward(kranj: Callable[[str], Day], later: str) -> None:
    # 1.3 km, and MODIS correlates with Landsat at 0.4-0.6 only: it knows the season's mean change and little more.
    (old, seen_then, then), (new, seen_now, now) = kranj("068_191-28"), kranj(later)
    seen = seen_then & seen_now
    assert seen.mean() > 0.85

    def rmse(image: np.ndarray) -> float:
        return float(np.sqrt(((image - new)[:, seen] ** 2).mean()))

    made = starfm(old, now, coarse_then=then)
    assert rmse(made) < 0.8 * rmse(old)  # gains a fifth and more over no change at all
    assert rmse(made) < 0.5 * rmse(enlarged(now))  # and has Landsat's detail, which MODIS has not
    assert rmse(made) < 1.02 * rmse(old + enlarged(now - then))  # like pixels do no worse than the change itself
    # the mean change is that of MODIS, band by band
    np.testing.assert_allclose((made - old).mean((1, 2)), (now - then).mean((1, 2)), rtol=0.15, atol=0.001)


@pytest.mark.shared
def test_a_real_pair_backward_is_worth_less_than_forward(kranj: Callable[[str], Day]) -> None:
    # From 17 to 1 April Landsat hardly changed and MODIS says it did: no method that trusts MODIS beats the copy there.
    (old, seen_then, then), (new, seen_now, now) = kranj("077_190-28"), kranj("093_190-28")
    seen = seen_then & seen_now
    made, copied = (
        float(np.sqrt(((image - new)[:, seen] ** 2).mean())) for image in (starfm(old, now, coarse_then=then), old)
    )
    assert copied < made < 1.2 * copied
