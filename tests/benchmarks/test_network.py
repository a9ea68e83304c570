"""What the benchmarks of the network claim besides speed: equality, accuracy, and arithmetic of the roofline."""

import pytest
import torch

from benchmarks import gpu, network
from marstfn.model import Config


def test_the_network_on_a_core() -> None:
    threads = torch.get_num_threads()
    one, half = network.tables(quick=True)
    assert torch.get_num_threads() == threads
    exact = [f for f in one.figures if f.what.startswith("PSNR")]
    assert [f.met for f in exact] == [True, True]
    judged = {f.what: f.met for f in half.figures if f.target}
    assert len(judged) == 4
    assert all(judged.values())


@pytest.mark.skipif(torch.cuda.is_available(), reason="a rehearsal without a GPU")
def test_the_network_on_a_gpu_rehearsed() -> None:
    (skipped,) = gpu.tables(quick=False)
    assert skipped.figures == ()
    assert "no CUDA device" in skipped.notes[0]
    right, limits, speeds = gpu.tables(quick=True)
    assert all(f.met for f in right.figures if f.target)
    assert [f.values[0] > 0 for f in limits.figures] == [True] * 4
    exact = {f.what: f.met for f in speeds.figures if "RMSE" in f.what or "PSNR" in f.what}
    assert list(exact.values()) == [True, True]


@pytest.mark.parametrize(
    "config", [Config(), Config(growth=64), Config(pan=False), network.cases(False)[-1].network.config]
)
def test_the_roofline_counts_the_useful_work(config: Config) -> None:
    """FLOP of its layers are those of the network itself, counted by torch."""
    with torch.inference_mode():
        published = network.naive(network.build(config))
        counted = network.useful(published, network.inputs(config, 1)) / config.patch**2
    assert sum(flop for flop, _ in gpu.layers(config, config.patch)) == pytest.approx(counted, rel=0.01)


def test_a_roof_is_the_lower_of_both() -> None:
    config = Config()
    flop = sum(f for f, _ in gpu.layers(config, 60))
    moved = sum(m for _, m in gpu.layers(config, 60))
    assert gpu.roofline(config, 60, 1e12, 1e30) == pytest.approx(1e12 / flop)
    assert gpu.roofline(config, 60, 1e30, 1e9) == pytest.approx(1e9 / (2 * moved))
    assert gpu.roofline(config, 60, 1e12, 1e9) < min(1e12 / flop, 1e9 / (2 * moved))
