"""The predictor's promises: any number of patches, neighbours without influence, windows without seams."""

import numpy as np
import pytest
import torch

from marstfn.model import MARSTFN, Config
from marstfn.patches import covering, starts
from marstfn.predict import Predictor, window
from marstfn.weights import Weights

PATCH = 24


def weights(pan: bool) -> Weights:
    torch.manual_seed(4)
    model = MARSTFN(Config(pan=pan, features=16, growth=8, layers=2, blocks=2, patch=PATCH))
    state = {k: v + 0.2 if "gamma" in k else v for k, v in model.state_dict().items()}
    return Weights(model.config, state, {}, "", "test")


def arrays(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    sides = ((6, PATCH), (6, PATCH // 3), (1, PATCH * 2 // 3))
    s2, landsat, pan = (rng.uniform(0, 0.5, (n, b, p, p)).astype(np.float32) for b, p in sides)
    return s2, landsat, pan


def plane(height: int, width: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    shapes = ((6, height, width), (6, height // 3, width // 3), (1, height * 2 // 3, width * 2 // 3))
    s2, landsat, pan = (rng.uniform(0, 0.5, shape).astype(np.float32) for shape in shapes)
    return s2, landsat, pan


@pytest.mark.parametrize("pan", [True, False])
@pytest.mark.parametrize("n", [0, 1, 3, 4, 9])
def test_any_number_of_patches(pan: bool, n: int) -> None:
    predict = Predictor(weights(pan), batch=4)
    s2, landsat, sharp = arrays(n)
    out = predict(s2, landsat, sharp if pan else None)
    assert out.shape == s2.shape
    assert out.dtype == np.float32
    assert np.isfinite(out).all()


def test_company_in_the_batch_does_not_matter_bit_for_bit() -> None:
    predict = Predictor(weights(True), batch=4)
    s2, landsat, pan = arrays(9)
    together = predict(s2, landsat, pan)
    alone = np.concatenate([predict(s2[k : k + 1], landsat[k : k + 1], pan[k : k + 1]) for k in range(9)])
    assert np.array_equal(together, alone)
    order = np.random.default_rng(1).permutation(9)
    assert np.array_equal(predict(s2[order], landsat[order], pan[order]), together[order])
    other = arrays(9, seed=5)
    mixed = [np.concatenate([a[:1], b[1:]]) for a, b in zip((s2, landsat, pan), other, strict=True)]
    assert np.array_equal(predict(*mixed)[0], together[0])


def test_equals_the_model_itself() -> None:
    s2, landsat, pan = arrays(2)
    model = MARSTFN(weights(True).config)
    model.load_state_dict(weights(True).state)
    with torch.no_grad():
        plain = model.eval()(*(torch.from_numpy(a) for a in (s2, landsat, pan))).numpy()
    assert abs(Predictor(weights(True), batch=4)(s2, landsat, pan) - plain).max() < 1e-5


def test_clear_refusals() -> None:
    s2, landsat, pan = arrays(1)
    with_pan = Predictor(weights(True))
    assert (with_pan.patch, with_pan.pan) == (PATCH, True)
    with pytest.raises(ValueError, match="panchromatic"):
        with_pan(s2, landsat, None)
    with pytest.raises(ValueError, match="trained on 24 x 24"):
        with_pan(s2[..., :18, :18], landsat, pan)
    s2[0, 0, 0, 0] = np.nan
    with pytest.raises(ValueError, match="Sentinel-2 patches hold NaN"):
        with_pan(s2, landsat, pan)
    with pytest.raises(ValueError, match="at least 1"):
        Predictor(weights(True), batch=0)


def test_a_network_without_pan_ignores_it() -> None:
    predict = Predictor(weights(False))
    s2, landsat, pan = arrays(2)
    assert np.array_equal(predict(s2, landsat, pan), predict(s2, landsat, None))


def test_an_identity_leaves_no_seam() -> None:
    s2, landsat, pan = plane(66, 90)
    rows, cols = starts(66, PATCH, 12), starts(90, PATCH, 18)
    out = window(lambda s, c, p, k: s, s2, landsat, pan, rows, cols, PATCH, 6)
    assert abs(out - s2).max() < 1e-7


def test_neighbouring_windows_agree_bit_for_bit() -> None:
    """Two tiles that take their patches from the plane's own raster give the very same pixels where they meet."""
    predict = Predictor(weights(True), batch=4)
    s2, landsat, pan = plane(48, 96)
    s2[:, 10:20, 40:55] = np.nan
    landsat[:, 3:6, 12:20] = np.nan
    all_rows, all_cols = starts(48, PATCH, 12), starts(96, PATCH, 12)
    whole = window(predict, s2, landsat, pan, all_rows, all_cols, PATCH, 12)
    for lo, hi in ((0, 48), (48, 96)):
        cols = covering(lo, hi, all_cols, PATCH)
        first, end = cols[0], cols[-1] + PATCH
        part = window(
            predict,
            s2[:, :, first:end],
            landsat[:, :, first // 3 : end // 3],
            pan[:, :, first * 2 // 3 : end * 2 // 3],
            all_rows,
            tuple(c - first for c in cols),
            PATCH,
            12,
        )
        assert np.array_equal(part[:, :, lo - first : hi - first], whole[:, :, lo:hi])


def test_pixels_under_no_patch_are_nothing() -> None:
    s2, landsat, _ = plane(48, 48)
    out = window(lambda s, c, p, k: s, s2, landsat, None, (0,), (24,), PATCH, 6)
    assert np.isnan(out[:, 24:]).all()
    assert np.isnan(out[:, :, :24]).all()
    assert np.isfinite(out[:, :24, 24:]).all()
    assert np.isnan(window(lambda s, c, p, k: s, s2, landsat, None, (), (), PATCH, 6)).all()
