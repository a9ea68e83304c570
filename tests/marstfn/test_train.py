"""Training learns, resumes as if it had never stopped, and refuses to mix runs."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from marstfn import dataset, weights
from marstfn.model import MARSTFN, Config, build
from marstfn.reference import Reference
from marstfn.train import COLUMNS, TrainConfig, adopt, calibrate, predictions, train
from marstfn.training import main

SMALL = Config(
    pan=False, features=16, growth=8, layers=2, blocks=1, patch=24, anchor="additive", centre=0.15, spread=0.15
)


def make(seed: int) -> list[dataset.Sample]:
    """Truth lies a constant above what Landsat says: a bias that a few steps can learn."""
    rng = np.random.default_rng(seed)
    out = []
    for _ in range(8):
        s2 = rng.uniform(0.05, 0.3, (6, 24, 24)).astype(np.float32)
        coarse = s2.reshape(6, 8, 3, 8, 3).mean((2, 4)).astype(np.float32)
        around = Reference.single(s2, 5)
        out.append(dataset.finish(around, coarse, coarse[:1].repeat(2, 1).repeat(2, 2), s2 + np.float32(0.03)))
    return out


@pytest.fixture
def config(tmp_path: Path) -> TrainConfig:
    list(dataset.generate(tmp_path / "samples", make, range(2), name="x", processes=1))
    list(dataset.generate(tmp_path / "validation", make, range(9, 10), name="x", processes=1))
    return TrainConfig(
        tmp_path / "samples",
        tmp_path / "validation",
        tmp_path / "run",
        SMALL,
        steps=30,
        warmup=5,
        average=0.8,
        validate_every=10,
    )


def curve(config: TrainConfig) -> list[dict[str, str]]:
    with (config.out / "curve.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_it_learns_a_bias_and_keeps_the_best(config: TrainConfig) -> None:
    seen = []
    best = train(config, seen.append)
    rows = curve(config)
    assert tuple(rows[0]) == COLUMNS
    assert [int(r["step"]) for r in rows] == [10, 20, 30]
    assert float(rows[-1]["ratio"]) < 0.6
    assert float(rows[-1]["rmse_additive"]) == pytest.approx(0.03, rel=0.02)
    assert [p.step for p in seen] == [10, 20, 30]
    assert seen[-1].left == 0
    assert best.config == SMALL
    assert '"steps": 30' in best.header["training"]
    assert not list(config.out.glob("*.part"))


def test_a_resumed_run_equals_an_undisturbed_one(config: TrainConfig) -> None:
    whole = train(config)
    broken = replace(config, out=config.out.with_name("broken"))
    with pytest.raises(KeyboardInterrupt):
        train(broken, _stop_at(20))
    resumed = train(broken)
    assert all(torch.equal(whole.state[k], resumed.state[k]) for k in whole.state)
    ours, theirs = ([(r["step"], r["loss"], r["rmse"]) for r in curve(c)] for c in (config, broken))
    assert ours == theirs


def _stop_at(step: int) -> object:
    def report(progress: object) -> None:
        if progress.step == step:
            raise KeyboardInterrupt

    return report


def test_another_runs_folder_is_refused(config: TrainConfig) -> None:
    train(replace(config, steps=10))
    with pytest.raises(ValueError, match="another training run"):
        train(replace(config, steps=10, seed=5))


def test_patience_and_time_end_a_run(config: TrainConfig) -> None:
    hopeless = replace(config, rate=0.0, steps=200, validate_every=5, patience=2, average=0.0)
    train(hopeless)
    assert int(curve(hopeless)[-1]["step"]) == 15  # the first validation is progress, two are not
    brief = replace(config, out=config.out.with_name("brief"), steps=10_000, seconds=1e-6)
    train(brief)
    assert int(curve(brief)[-1]["step"]) == 1


def test_a_network_with_pan_can_begin_as_one_without(tmp_path: Path) -> None:
    torch.manual_seed(1)
    plain = MARSTFN(SMALL)
    plain.out.weight.data.normal_(0, 0.02)
    given = weights.save(tmp_path / "plain.safetensors", plain)
    sharp = MARSTFN(replace(SMALL, pan=True))
    fitted = adopt(sharp, given)
    assert fitted == len(plain.state_dict())
    assert torch.equal(sharp.join.weight[:, :32], plain.join.weight)
    assert torch.equal(sharp.coarse.fuse.weight, plain.coarse.fuse.weight)


def test_the_papers_settings() -> None:
    paper = TrainConfig.paper(Path("s"), Path("v"), Path("o"), pan=True, count=6400)
    assert (paper.rate, paper.batch, paper.steps) == (1e-3, 64, 100 * 100)
    assert paper.network == Config()
    assert paper.network.anchor == "none"


def test_the_commands_lead_from_samples_to_a_shipped_file(config: TrainConfig, tmp_path: Path) -> None:
    train(config)
    main(["ship", str(config.out), str(tmp_path / "out.safetensors"), "--validation", str(config.validation)])
    shipped = weights.load(tmp_path / "out.safetensors")
    assert shipped.config == SMALL
    assert "Copernicus" in shipped.header["data"]
    assert {"commit", "protocol", "metrics", "licence", "training", "step"} <= shipped.header.keys()
    best = weights.load(config.out / "best.safetensors")
    assert all(torch.allclose(shipped.state[k], best.state[k], atol=1e-3, rtol=1e-3) for k in best.state)
    with pytest.raises(SystemExit):
        main(["fit", "--help"])


def doubtful(seed: int) -> list[dataset.Sample]:
    """Noise of 0.01 in the left half and of 0.04 in the right, which is the brighter one."""
    rng = np.random.default_rng(seed)
    out = []
    for _ in range(8):
        s2 = rng.uniform(0.05, 0.1, (6, 24, 24)).astype(np.float32)
        s2[..., 12:] += 0.2
        coarse = s2.reshape(6, 8, 3, 8, 3).mean((2, 4)).astype(np.float32)
        noise = rng.laplace(0, np.where(np.arange(24) < 12, 0.01, 0.04), s2.shape).astype(np.float32)
        pan = coarse[:1].repeat(2, 1).repeat(2, 2)
        out.append(dataset.finish(Reference.single(s2, 5), coarse, pan, s2 + noise))
    return out


def test_uncertainty_learns_where_errors_are_large_and_is_calibrated(tmp_path: Path) -> None:
    list(dataset.generate(tmp_path / "s", doubtful, range(2), name="x", processes=1))
    list(dataset.generate(tmp_path / "v", doubtful, range(9, 11), name="x", processes=1))
    network = replace(SMALL, uncertainty=True, context=True, guide=True)
    config = TrainConfig(
        tmp_path / "s", tmp_path / "v", tmp_path / "run", network, steps=300, rate=1e-2, warmup=5, average=0.8,
        validate_every=300,
    )  # fmt: skip
    best = train(config)
    assert best.interval is not None
    model = build(best.config)
    model.load_state_dict(best.state)
    held = dataset.read(tmp_path / "v")
    inside = []
    for batch, made in predictions(model, held):
        u = made[:, 6:]
        assert u[..., 13:].mean() > 2 * u[..., :11].mean()
        half = torch.tensor(best.interval)[:, None, None] * u
        inside.append(((made[:, :6] - batch["truth"]).abs() <= half).float().mean().item())
    assert np.mean(inside) == pytest.approx(0.9, abs=0.005)
    with pytest.raises(ValueError, match="no uncertainty"):
        calibrate(build(SMALL), held)


def test_lower_precision_in_training_leads_to_the_same_place(config: TrainConfig) -> None:
    mixed = train(replace(config, precision="bfloat16"))
    assert float(curve(config)[-1]["ratio"]) < 0.6
    assert all(t.dtype == torch.float32 for t in mixed.state.values())
