"""Metrics against scikit-image, numpy and cases worked out by hand."""

import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from marstfn import metrics as m


def images(seed: int = 0, bands: int = 6) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = rng.uniform(0.02, 0.5, (bands, 40, 46))
    return truth + rng.normal(0, 0.02, truth.shape), truth


@pytest.mark.parametrize("data_range", [1.0, 0.4])
def test_ssim_is_scikit_images(data_range: float) -> None:
    x, y = images()
    for b in range(6):
        _, full = structural_similarity(
            x[b],
            y[b],
            data_range=data_range,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            full=True,
        )
        inner = (slice(5, -5), slice(5, -5))  # at the edge one mirrors, the other leaves out
        assert np.allclose(m.ssim_map(x[b], y[b], data_range=data_range)[0][inner], full[inner], atol=1e-10)


def test_ssim_of_equal_images_is_one_and_nothing_outside_the_mask_counts() -> None:
    x, y = images()
    mask = np.zeros((40, 46), bool)
    mask[8:30, 10:40] = True
    assert m.ssim(y, y) == pytest.approx(1)
    spoiled, bright = x.copy(), y.copy()
    spoiled[:, ~mask] = np.nan
    bright[:, ~mask] = 9.0
    assert m.ssim(spoiled, bright, mask) == pytest.approx(m.ssim(x, y, mask), abs=1e-12)
    assert np.isnan(m.ssim_map(x, y, mask)[:, ~mask]).all()


def test_rmse_and_psnr_by_numpy_and_scikit_image() -> None:
    x, y = images()
    mask = np.random.default_rng(1).random((40, 46)) < 0.5
    assert m.rmse(x, y) == pytest.approx(np.sqrt(((x - y) ** 2).mean()))
    assert m.rmse(x, y, mask) == pytest.approx(np.sqrt(((x - y)[:, mask] ** 2).mean()))
    assert m.psnr(x, y) == pytest.approx(peak_signal_noise_ratio(y, x, data_range=1))
    assert m.psnr(x, y, peak="truth") == pytest.approx(peak_signal_noise_ratio(y, x, data_range=y.max()))
    assert m.psnr(y, y) == float("inf")


def test_spectral_angle_by_hand() -> None:
    truth = np.zeros((2, 1, 2))
    truth[0] = 1
    prediction = truth.copy()
    prediction[:, 0, 0] = (1, 1)  # 45 degrees
    prediction[:, 0, 1] = (3, 0)  # brightness is no angle
    assert m.sam(prediction, truth) == pytest.approx(22.5)


def test_ergas_and_r2_by_their_formulas() -> None:
    x, y = images()
    rows = [(np.sqrt(((x[b] - y[b]) ** 2).mean()) / y[b].mean()) ** 2 for b in range(6)]
    assert m.ergas(x, y) == pytest.approx(100 / 3 * np.sqrt(np.mean(rows)))
    scores = [1 - ((x[b] - y[b]) ** 2).sum() / ((y[b] - y[b].mean()) ** 2).sum() for b in range(6)]
    assert m.r2(x, y) == pytest.approx(np.mean(scores))
    with pytest.raises(ValueError, match="constant"):
        m.r2(x, np.full_like(y, 0.1))


@pytest.mark.parametrize("metric", [m.rmse, m.psnr, m.ssim, m.sam, m.ergas, m.r2])
def test_holes_and_empty_masks_are_not_scored_in_silence(metric: object) -> None:
    x, y = images()
    x[2, 3, 4] = np.nan
    with pytest.raises(ValueError, match="prediction holds NaN"):
        metric(x, y)
    mask = np.isfinite(x).all(0)
    assert np.isfinite(metric(x, y, mask))
    with pytest.raises(ValueError, match="no pixel"):
        metric(x, y, np.zeros_like(mask))
    with pytest.raises(ValueError, match="one shape"):
        metric(x[:5], y)


def test_empty_pixels_take_the_fallback() -> None:
    x, y = images()
    holed = x.copy()
    holed[:, 5:9, 5:9] = np.nan
    filled = m.fill_empty(holed, y)
    assert np.array_equal(filled[:, 5:9, 5:9], y[:, 5:9, 5:9])
    assert np.array_equal(filled[:, 9:], x[:, 9:])


def test_block_sums_add_up() -> None:
    x, y = images()
    labels = m.blocks((40, 46), 15)
    assert labels.max() + 1 == 3 * 4
    assert (np.bincount(labels.ravel()) <= 225).all()
    mask = np.random.default_rng(2).random((40, 46)) < 0.7
    sums, counts = m.block_sums((x - y) ** 2, labels, mask)
    assert counts.sum() == mask.sum()
    assert np.sqrt(sums.sum() / counts.sum()) == pytest.approx(m.rmse(x, y, mask))


def test_bootstrap_finds_a_difference_that_is_there_and_none_that_is_not() -> None:
    rng = np.random.default_rng(5)
    counts = np.full(60, 225.0)
    noise = rng.normal(1, 0.2, 60) * counts
    worse = m.block_bootstrap(noise + 0.3 * counts, noise, counts)
    assert worse.excludes_zero
    assert worse.estimate == pytest.approx(0.3)
    assert worse.low == pytest.approx(0.3)  # paired: what both share cancels
    same = m.block_bootstrap(noise, rng.permutation(noise), counts)
    assert not same.excludes_zero
    assert same.low < same.estimate < same.high
    rooted = m.block_bootstrap(4 * counts, counts, counts, root=True)
    assert (rooted.estimate, rooted.low, rooted.high) == (1, 1, 1)


def test_bootstrap_covers_at_its_level() -> None:
    """Of 95 % intervals over blocks with true difference 0.1, about 95 in 100 hold it."""
    rng = np.random.default_rng(6)
    counts = np.ones(80)
    inside = 0
    for trial in range(200):
        second = rng.normal(1, 0.3, 80)
        first = second + rng.normal(0.1, 0.2, 80)
        got = m.block_bootstrap(first, second, counts, draws=300, seed=trial)
        inside += got.low <= 0.1 <= got.high
    assert 0.89 <= inside / 200 <= 0.99


def test_scenes_that_differ_widen_the_interval() -> None:
    rng = np.random.default_rng(7)
    scene = np.repeat(np.arange(10), 20)
    effect = rng.normal(0, 1, 10)[scene]
    second = np.zeros(200)
    first = effect + rng.normal(0, 0.1, 200)
    by_block = m.block_bootstrap(first, second, np.ones(200))
    by_scene = m.block_bootstrap(first, second, np.ones(200), groups=scene)
    assert by_scene.high - by_scene.low > 2 * (by_block.high - by_block.low)


def test_bootstrap_refuses_what_it_cannot_resample() -> None:
    with pytest.raises(ValueError, match="one-dimensional"):
        m.block_bootstrap(np.ones(3), np.ones(4), np.ones(3))
    with pytest.raises(ValueError, match="scored pixel"):
        m.block_bootstrap(np.ones(3), np.ones(3), np.zeros(3))
