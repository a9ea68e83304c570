"""The network on a GPU: right against the CPU, its own best batch against eager float32, its share of the roofline.

Written where no GPU was at hand; with `--quick` it runs its steps on the CPU, to show that they run.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from benchmarks.measure import Figure, Table, at_least, at_most
from benchmarks.network import SHIPPED, Case, drawn, inputs, naive, psnr, shipped, useful
from marstfn.batches import Batches, Model
from marstfn.convolution import FORMS, SUMMED
from marstfn.inference import Inference
from marstfn.model import Config
from marstfn.precision import DTYPES, NDVI, RMSE, differences, samples
from marstfn.predict import Predictor
from marstfn.reference import CHANNELS
from marstfn.weights import load

PATIENCE = 480.0
"""Seconds after which what is left is left out: one call on a lent machine ends after ten minutes."""
BATCHES = (4, 8, 16, 32, 64, 128)
HALF = 2
"""Bytes of a half-precision number."""
TARGETS = {(32, 60): 25.0, (32, 120): 20.0, (64, 60): 40.0, (64, 120): 40.0}
"""By growth and patch side: per cent of the dense half-precision rate, useful FLOP only."""


@dataclass(frozen=True)
class Ceilings:
    """What the device does at its best: dense products in FLOP/s, copies in bytes read and written a second."""

    half: float
    single: float
    tf32: float
    copy: float


def tables(quick: bool) -> list[Table]:
    """Correctness, ceilings and speeds; one table that says so where there is no GPU."""
    if not torch.cuda.is_available() and not quick:
        return [Table("The network on a GPU", (), ("Skipped: torch sees no CUDA device here.",))]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    end = time.monotonic() + PATIENCE
    with torch.inference_mode():
        found = ceilings(device, quick)
        made = [_correct(device, quick), _limits(device, found)]
        for case in _cases(quick):
            if time.monotonic() > end:
                made.append(Table(f"{case.name}", (), ("Left out: the time of one call was used up.",)))
            else:
                made.append(_speeds(case, device, found, quick))
    return made


def layers(config: Config, patch: int) -> list[tuple[float, float]]:
    """By layer and 10 m pixel: useful FLOP, and numbers read and written.

    A layer reads its inputs and writes its outputs once: dense blocks in one buffer, activations and gates fused where
    they follow a convolution, no map of position attention in memory.
    """
    f, g, bands = config.features, config.growth, config.bands
    seen = bands * (3 if config.guide else 1) + (CHANNELS if config.context else 0)
    branches = 3 if config.pan else 2
    out = [(18.0 * seen * f, float(seen + f)), (2 * branches * f * f, (branches + 1) * f)]
    for _ in range(config.blocks):
        # channel gates need the whole patch first, spatial ones all channels: three readings, one writing
        out.append((4 * config.cbam_kernel**2, 4 * f))
        out += [(18 * (f + k * g) * g, f + k * g + g) for k in range(config.layers)]
        out.append((2 * (f + config.layers * g) * f, f + config.layers * g + f))
    out += [(2 * f * f, config.blocks * f + 2 * f), (18 * f * bands, f + 2 * bands)]
    if config.uncertainty:
        known = f + 2 * bands + (CHANNELS if config.context else 0)
        out.append((18 * known * 16 + 32, known + 1))
    for share, side, entering in ((1 / 9, patch // 3, bands), (4 / 9, patch * 2 // 3, 1))[: branches - 1]:
        d, n = f // 8, side * side
        # five branches on the inputs; position and channel attention thrice; fusing and enlarging
        out.append((share * 2 * 29 * entering * f, share * (entering + 5 * f)))
        out += 3 * [
            (share * 2 * f * (f + 2 * d), share * (2 * f + 2 * d)),
            (share * 2 * n * (d + f), share * (2 * f + 2 * d)),
            (share * 4 * f * f, share * 3 * f),
        ]
        out += [(share * 10 * f * f, share * 6 * f), (0.0, share * f + f)]
    return out


def roofline(config: Config, patch: int, rate: float, copy: float) -> float:
    """Pixels a second that the network cannot exceed at `rate` FLOP/s and `copy` bytes/s in half precision: layer after
    layer, each the longer of its arithmetic and of its traffic."""
    return 1 / sum(max(flop / rate, HALF * moved / copy) for flop, moved in layers(config, patch))


def ceilings(device: torch.device, quick: bool) -> Ceilings:
    """Measured with large products of random numbers and a copy far larger than any cache."""
    side, size = (256, 1 << 20) if quick else (8192, 1 << 30)

    def product(dtype: torch.dtype) -> float:
        a, b = (torch.randn(side, side, device=device, dtype=torch.float32).to(dtype) for _ in range(2))
        return 2 * side**3 / statistics.median(_seconds(lambda: a @ b, device, 3 if quick else 10))

    with tf32(False):
        single = product(torch.float32)
    with tf32(True):
        fast = product(torch.float32)
    source = torch.randn(size // 4, device=device)
    target = torch.empty_like(source)
    copied = statistics.median(_seconds(lambda: target.copy_(source), device, 3 if quick else 10))
    return Ceilings(product(torch.float16), single, fast, 2 * size / copied)


@contextmanager
def tf32(on: bool) -> Iterator[None]:
    """TensorFloat-32 for products and convolutions alike."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = on
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def _cases(quick: bool) -> list[Case]:
    if quick:
        return [Case("growth 8, 24 px", drawn(8, 24, features=16), 2, 4)]
    return [Case(SHIPPED, shipped(), 8, 4), *(Case(f"growth {g}, {p} px", drawn(g, p), 8, 4) for g, p in TARGETS)]


def _correct(device: torch.device, quick: bool) -> Table:
    """The shipped weights through the whole predictor: copies, streams, graphs, counts."""
    weights = load(SHIPPED)
    given = samples(weights.config, 3 if quick else 21, 1)
    truth = Predictor(weights, batch=4)(*given)
    figures: list[Figure] = []
    for name in DTYPES if not quick else ("float32",):
        predict = Predictor(weights, device=str(device), batch=4, precision=name)
        made = predict(*given)
        s2, landsat, pan, context = (None if a is None else np.ascontiguousarray(a[::-1]) for a in given)
        assert s2 is not None
        assert landsat is not None
        again = predict(s2, landsat, pan, context)[::-1]
        whole = next(iter(predict.series([given], counts=True)))
        rounded = np.rint(made / np.float32(1e-4)).astype(np.int16)
        if name == "float32":
            near = psnr(torch.from_numpy(made), torch.from_numpy(truth))
            figures.append(at_least("float32: PSNR against the CPU", [near], 120, "dB"))
        rmse, ndvi = differences(made[:, :6], truth[:, :6])
        figures += [
            at_most(f"{name}: RMSE against the CPU", [rmse], RMSE, "reflectance"),
            at_most(f"{name}: NDVI error, 99th percentile", [ndvi], NDVI),
            at_most(
                f"{name}: values that change with their neighbours in the batch", [float((again != made).sum())], 0
            ),
            at_most(f"{name}: counts unlike those rounded on the host", [float((whole != rounded).sum())], 0),
            Figure(f"{name}: passes replayed as a CUDA graph", (float(predict.captured),)),
        ]
    return Table(f"Right on {device}: {SHIPPED}", tuple(figures), (f"{len(truth)} made-up patches, batch 4.",))


def _limits(device: torch.device, found: Ceilings) -> Table:
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "the CPU, as a rehearsal"
    return Table(
        "Ceilings",
        (
            Figure("float16 products", (found.half / 1e12,), "TFLOP/s"),
            Figure("float32 products, TF32 on", (found.tf32 / 1e12,), "TFLOP/s"),
            Figure("float32 products, TF32 off", (found.single / 1e12,), "TFLOP/s"),
            Figure("copies, read and written", (found.copy / 1e9,), "GB/s"),
        ),
        (f"{name}, torch {torch.__version__}, CUDA {torch.version.cuda}, {os.cpu_count()} processors.",),
    )


def _speeds(case: Case, device: torch.device, found: Ceilings, quick: bool) -> Table:
    config = case.network.config
    network = case.network.to(device)
    published = naive(network)
    work = useful(published, inputs(config, 1, str(device))) / config.patch**2  # FLOP a pixel
    half: dict[str, Model] = {form: Inference(network, device=device, dtype=torch.float16, form=form) for form in FORMS}
    single: Model = Inference(network, device=device)
    best: dict[str, tuple[float, int]] = {}
    for on in (True, False):
        with tf32(on):
            best[f"eager float32, TF32 {'on' if on else 'off'}"] = _best(published, config, device, quick, graphs=False)
    with tf32(False):
        best["inference form, float32, TF32 off"] = _best(single, config, device, quick)
        for form, model in half.items():
            best[f"inference form, float16, {form}"] = _best(model, config, device, quick)
        best[f"inference form, float16, {SUMMED}, no graph"] = _best(half[SUMMED], config, device, quick, graphs=False)
    fused = max(best[f"inference form, float16, {form}"][0] for form in FORMS)
    bound = roofline(config, config.patch, found.half, found.copy)
    target = TARGETS.get((config.growth, config.patch)) if case.name != SHIPPED else None
    share = [100 * fused * work / found.half]
    truth = published(*inputs(config, 2, str(device)))
    seen = inputs(config, 2, str(device))
    rounded, plain = (m(*seen)[:, :6].float().cpu().numpy() for m in (half[SUMMED], published))
    near, _ = differences(rounded, plain)
    case.network.cpu()
    return Table(
        f"The network on {device}: {case.name}",
        (
            *(Figure(f"{name} (batch {b})", (rate / 1e6,), "Mpx/s") for name, (rate, b) in best.items()),
            at_least("float16 / eager float32, TF32 on", [fused / best["eager float32, TF32 on"][0]], 4),
            at_least("float16 / eager float32, TF32 off", [fused / best["eager float32, TF32 off"][0]], 7),
            at_least("share of the roofline", [100 * fused / bound], 60, "%"),
            Figure("useful FLOP as a share of the float16 rate", tuple(share), "%") if target is None
            else at_least("useful FLOP as a share of the float16 rate", share, target, "%"),
            at_most("float16, RMSE against eager float32", [near], RMSE, "reflectance"),
            at_least("float32, PSNR against eager", [psnr(single(*inputs(config, 2, str(device))), truth)], 120, "dB"),
        ),
        (
            f"{work / 1e6:.2f} useful MFLOP a pixel; roofline {bound / 1e6:.4g} Mpx/s; each at its own best batch of "
            f"{', '.join(map(str, BATCHES))}; arrays on the device, medians of events.",
        ),
    )  # fmt: skip


def _best(model: Model, config: Config, device: torch.device, quick: bool, *, graphs: bool = True) -> tuple[float, int]:
    """Pixels a second at the best batch, and that batch; batches that do not fit are passed over."""
    best = (0.0, 0)
    for batch in BATCHES[:1] if quick else BATCHES:
        given = inputs(config, batch, str(device))
        run = Batches(model, device, batch, graphs=graphs)
        try:
            taken = statistics.median(_seconds(partial(run.beside, given), device, 2 if quick else 10))
        except RuntimeError:
            continue
        if run.size == batch:
            best = max(best, (batch * config.patch**2 / taken, batch))
    return best


def _seconds(run: Callable[[], object], device: torch.device, times: int) -> Sequence[float]:
    """Of each run after two that do not count: by events on a GPU, by the clock elsewhere."""
    run()
    run()
    if device.type != "cuda":
        taken = []
        for _ in range(times):
            start = time.perf_counter()
            run()
            taken.append(time.perf_counter() - start)
        return taken
    events: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []
    torch.cuda.synchronize(device)
    for _ in range(times):
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        first.record()
        run()
        last.record()
        events.append((first, last))
    torch.cuda.synchronize(device)
    return [a.elapsed_time(b) / 1e3 for a, b in events]
