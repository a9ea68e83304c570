"""Half precision by trial: only where it is faster and near enough; never by what a device says of itself."""

import numpy as np
import pytest
import torch

from marstfn import precision
from marstfn.model import MARSTFN, Config
from marstfn.precision import Trial, calibrate, differences, samples, trials
from marstfn.predict import Predictor
from marstfn.weights import Weights

CONFIG = Config(features=16, growth=8, layers=2, blocks=1, patch=24)


def weights(config: Config = CONFIG) -> Weights:
    torch.manual_seed(0)
    return Weights(config, MARSTFN(config).state_dict(), {}, "", "test")


@pytest.mark.parametrize(
    ("half", "brain", "chosen"),
    [
        ((0.5, 1e-4, 1e-3), (0.4, 1e-4, 1e-3), "bfloat16"),
        ((0.5, 1e-4, 1e-3), (0.4, 6e-4, 1e-3), "float16"),
        ((0.5, 1e-4, 6e-3), (0.4, 6e-4, 1e-3), "float32"),
        ((0.95, 1e-4, 1e-3), (2.0, 1e-4, 1e-3), "float32"),
        ((0.5, float("nan"), 1e-3), (1.0, 1e-4, 1e-3), "float32"),
    ],
)
def test_the_fastest_accurate_one_is_chosen_if_it_is_worth_it(
    half: tuple[float, float, float], brain: tuple[float, float, float], chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = (Trial("float32", 1.0, 0, 0), Trial("float16", *half), Trial("bfloat16", *brain))
    monkeypatch.setattr(precision, "trials", lambda *_, **__: made)
    assert calibrate(weights()) == chosen
    assert Predictor(weights(), precision="auto").precision == chosen


def test_trials_measure_every_precision_against_float32() -> None:
    plain, *others = trials(weights(), batch=1, rounds=1)
    assert (plain.precision, plain.rmse, plain.ndvi) == ("float32", 0, 0)
    assert [t.precision for t in others] == ["float16", "bfloat16"]
    assert all(t.seconds > 0 for t in (plain, *others))
    # three bits fewer
    assert 0 < others[0].rmse < others[1].rmse


def test_networks_without_an_inference_form_stay_float32() -> None:
    plain = weights(Config.arnet())
    assert calibrate(plain, batch=1, rounds=1) == "float32"
    with pytest.raises(ValueError, match="float32 only"):
        Predictor(plain, precision="float16")


def test_a_precision_the_device_refuses_is_no_candidate(monkeypatch: pytest.MonkeyPatch) -> None:
    real = precision.forward

    def refusing(given: Weights, device: torch.device, name: str):  # type: ignore[no-untyped-def]
        if name == "float16":
            raise RuntimeError("not implemented for 'Half'")
        return real(given, device, name)

    monkeypatch.setattr(precision, "forward", refusing)
    assert [t.precision for t in trials(weights(), batch=1, rounds=1)] == ["float32", "bfloat16"]


def test_the_predictor_says_what_it_computes_with() -> None:
    predict = Predictor(weights())
    assert (predict.precision, predict.variant, dict(predict.passes)) == ("float32", "folded 1, summed", {})
    assert Predictor(weights(Config.arnet())).variant == "as trained"
    with pytest.raises(ValueError, match="float32, float16, bfloat16, auto"):
        Predictor(weights(), precision="float8")


def test_ndvi_counts_where_there_is_light() -> None:
    truth = np.full((1, 6, 10, 10), 0.2, np.float32)
    made = truth.copy()
    made[0, 3, :, :2] += 0.01
    rmse, ndvi = differences(made, truth)
    assert rmse == pytest.approx(0.01 * np.sqrt(0.2 / 6), rel=1e-4)
    assert ndvi == pytest.approx(0.01 / 0.41, rel=1e-4)
    truth[0, 2:4, :, :2] = 0.01
    made = truth.copy()
    made[0, 3, :, :2] += 0.01
    assert differences(made, truth)[1] == 0


def test_samples_are_inputs_of_the_network() -> None:
    config = Config(context=True, patch=24)
    first, again = samples(config, 2, 5), samples(config, 2, 5)
    assert [a.shape for a in first] == [(2, 6, 24, 24), (2, 6, 8, 8), (2, 1, 16, 16), (2, 8, 24, 24)]
    assert all(np.array_equal(a, b) and a.dtype == np.float32 for a, b in zip(first, again, strict=True))
    s2, landsat, pan, _ = first
    assert 0 < s2.mean() < 0.4
    # 10 m, 15 m and 30 m see the same ground
    fine = pan.reshape(2, 1, 8, 2, 8, 2).mean((3, 5))[:, 0]
    assert np.allclose(fine, landsat[:, :3].mean(1), atol=1e-6)
