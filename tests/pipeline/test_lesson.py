"""From options to a training run: presets, weights to start from, and what may change when a run goes on."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from marstfn import weights
from marstfn.model import Config, build
from pipeline import lesson
from pipeline.errors import PlanError, WeightsError
from pipeline.lesson import QUICK


def course(tmp_path, **given):
    return lesson.make(**{"aoi": "hailar", "year": 2023, "base": tmp_path} | given)


def run(made, *, pan=True, count=640):
    return made.configuration(Path("t"), Path("v"), Path("o"), pan=pan, count=count, threads=1)


def test_the_paper_is_a_preset(tmp_path):
    config = run(course(tmp_path, preset="paper", device="cpu"))
    assert (config.rate, config.batch, config.steps, config.warmup) == (1e-3, 64, 1000, 0)
    assert config.network == Config(pan=True)
    assert (config.patience, config.precision) == (0, "float32")
    few = run(course(tmp_path, preset="paper", device="cpu"), count=20)
    assert few.steps == 100


def test_a_processor_has_a_preset_with_a_stated_budget(tmp_path):
    config = run(course(tmp_path, device="cpu"), pan=False)
    assert (config.network.patch, config.network.pan, config.network.anchor) == (60, False, "additive")
    assert config.steps >= 1000
    assert config.batch <= 8
    assert config.patience > 0


def test_what_is_given_wins(tmp_path):
    made = course(tmp_path, steps=8, batch=3, rate=2e-4, seconds=5, patience=2, patch=36, seed=7, device="cpu")
    config = run(made)
    assert (config.steps, config.batch, config.rate, config.seconds) == (8, 3, 2e-4, 5)
    assert (config.patience, config.network.patch, config.seed) == (2, 36, 7)
    assert config.validate_every == 2, "a short run shows a curve, too"
    assert config.warmup <= 2


def test_mixed_precision_on_a_gpu(tmp_path, monkeypatch):
    for supported, expected in ((True, "bfloat16"), (False, "float16")):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda supported=supported: supported)
        assert run(course(tmp_path, preset="paper", device="cuda")).precision == expected
    assert run(course(tmp_path, preset="paper", device="cuda", precision="float32")).precision == "float32"


@pytest.fixture
def own(tmp_path):
    path = tmp_path / "own.safetensors"
    weights.save(path, build(QUICK))
    return path


def test_a_start_keeps_its_form(tmp_path, own):
    made = course(tmp_path, weights="own.safetensors", device="cpu")
    assert made.patch == QUICK.patch
    config = run(made)
    assert config.network == QUICK
    assert config.start == str(own)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"pan": False}, "pan is True, asked is False"),
        ({"patch": 60}, "patch is 24, asked is 60"),
        ({"preset": "paper"}, "not the paper's"),
    ],
)
def test_a_start_of_another_form_is_refused(tmp_path, own, given, words):
    with pytest.raises(WeightsError, match=words):
        course(tmp_path, weights=str(own), **given)


def test_wrong_options_are_told_together(tmp_path):
    with pytest.raises(PlanError, match=r"patch = 13.*near_days = -1.*nothing was started|nothing was started"):
        course(tmp_path, patch=13, near_days=-1)
    with pytest.raises(PlanError, match="year"):
        course(tmp_path, year=1900)


def test_days_are_those_of_the_request(tmp_path):
    from datetime import date

    made = course(tmp_path, start=date(2023, 4, 1), end=date(2023, 9, 30))
    assert (made.request.first, made.request.last) == (date(2023, 4, 1), date(2023, 9, 30))
    assert made.request.method == "additive"
