"""Batches of one size, smaller ones where memory ends, parts that come back in their order."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from marstfn.batches import Batches, DeviceMemoryError
from marstfn.lane import counts
from marstfn.model import MARSTFN, Config
from marstfn.precision import forward, samples
from marstfn.predict import Patches, Predictor
from marstfn.weights import Weights, load

PATCH = 24
CONFIG = Config(pan=False, patch=PATCH)
CPU = torch.device("cpu")


class Fake:
    """Twice the first input; memory for `fits` patches."""

    def __init__(self, fits: int = 10**6, error: type[RuntimeError] = torch.OutOfMemoryError) -> None:
        self.fits, self.error, self.seen = fits, error, []

    def __call__(self, s2: torch.Tensor, *_: torch.Tensor | None) -> torch.Tensor:
        self.seen.append(len(s2))
        if len(s2) > self.fits:
            raise self.error("CUDA out of memory. Tried to allocate 20.00 MiB")
        return s2 * 2


def predictor(model: Fake, batch: int) -> Predictor:
    return Predictor(Weights(CONFIG, {}, {}, "", "test"), batch=batch, model=model)


def small(batch: int) -> tuple[Config, Predictor]:
    torch.manual_seed(0)
    config = Config(features=16, growth=8, layers=2, blocks=2, patch=PATCH)
    return config, Predictor(Weights(config, MARSTFN(config).state_dict(), {}, "", "test"), batch=batch)


def part(n: int, seed: int = 0) -> Patches:
    s2, landsat, _, _ = samples(CONFIG, max(n, 1), seed)
    return s2[:n], landsat[:n], None, None


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, RuntimeError])
@pytest.mark.parametrize(("batch", "fits", "used"), [(8, 8, 8), (8, 7, 4), (8, 3, 2), (8, 1, 1), (6, 1, 1), (5, 4, 2)])
def test_where_memory_ends_batches_are_halved_for_good(
    batch: int, fits: int, used: int, error: type[RuntimeError]
) -> None:
    model = Fake(fits, error)
    predict = predictor(model, batch)
    given = part(11)
    assert np.array_equal(predict(*given), given[0] * 2)
    assert set(predict.passes) == {used}
    # every pass that succeeded is counted, whatever its patches
    assert predict.passes[used] == sum(n == used for n in model.seen)
    failed = [n for n in model.seen if n > fits]
    assert failed == sorted(failed, reverse=True)
    assert len(failed) == len(set(failed))
    before = len(model.seen)
    predict(*given)
    assert set(model.seen[before:]) == {used}


def test_where_not_one_patch_fits_it_says_so() -> None:
    predict = predictor(Fake(0), 4)
    with pytest.raises(
        DeviceMemoryError, match=r"cpu has no memory for one patch \(CUDA out of memory.*another device"
    ):
        predict(*part(4))
    assert predict.passes == {}


def test_memory_that_ends_later_is_told_apart() -> None:
    model = Fake()
    predict = predictor(model, 8)
    predict(*part(8))
    model.fits = 4
    predict(*part(8))
    assert predict.passes == {8: 1, 4: 2}


def test_other_errors_pass() -> None:
    def broken(*_: torch.Tensor | None) -> torch.Tensor:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        Batches(broken, CPU, 4)([torch.zeros(4, 6, 6, 6)])


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 7), max_size=6), st.integers(1, 5), st.booleans())
def test_parts_come_back_whole_and_in_order(sizes: list[int], batch: int, whole: bool) -> None:
    parts = [part(n, seed) for seed, n in enumerate(sizes)]
    model = Fake()
    predict = predictor(model, batch)
    made = list(predict.series(iter(parts), counts=whole))
    assert len(made) == len(parts)
    for one, out in zip(parts, made, strict=True):
        want = one[0] * 2
        assert np.array_equal(out, np.rint(want / np.float32(1e-4)).astype(np.int16) if whole else want)
    # no batch but the last is short: they are filled across parts
    assert set(model.seen) <= {batch}
    assert len(model.seen) == -(-sum(sizes) // batch)


def test_a_series_is_two_batches_ahead_and_no_more() -> None:
    asked: list[int] = []

    def parts() -> Iterator[Patches]:
        for k in range(8):
            asked.append(k)
            yield part(2, k)

    made = predictor(Fake(), 2).series(parts())
    next(made)
    assert asked == [0, 1]
    next(made)
    assert asked == [0, 1, 2]


def test_a_series_equals_calls_bit_for_bit() -> None:
    config, predict = small(4)
    parts = [tuple(samples(config, n, n)) for n in (3, 1, 6, 2)]
    for one, out in zip(parts, predict.series(parts), strict=True):
        assert np.array_equal(out, predict(*one))
        there = [None if a is None else torch.from_numpy(a) for a in one]
        assert np.array_equal(predict.on_device(*there).numpy(), out)


def test_after_memory_ended_few_values_differ_by_a_count() -> None:
    predict = Predictor(load("marstfn-nopan"), batch=4)
    given = tuple(samples(predict.weights.config, 4))
    whole = predict(*given)
    model = forward(predict.weights, CPU, "float32")

    def scarce(*arguments: torch.Tensor | None) -> torch.Tensor:
        assert arguments[0] is not None
        if len(arguments[0]) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return model(*arguments)

    less = Predictor(predict.weights, batch=4, model=scarce)
    again = less(*given)
    assert dict(less.passes) == {1: 4}
    a, b = (counts(torch.from_numpy(x)).to(torch.int32) for x in (whole, again))
    assert (a - b).abs().max() <= 1
    assert (a != b).float().mean() <= 5e-4


def test_counts_are_those_of_the_cube() -> None:
    from pipeline.encoding import pack

    rng = np.random.default_rng(0)
    values = np.concatenate([rng.uniform(-2, 5, 20_000), rng.integers(-9999, 32768, 20_000) * 1e-4 + 5e-5])
    values = np.concatenate([values, [np.nan, 0, -0.9999, 3.2767, 3.3]]).astype(np.float32)
    assert np.array_equal(counts(torch.from_numpy(values)).numpy(), pack(values))
