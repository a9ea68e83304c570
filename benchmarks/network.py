"""The network on one core of a processor: its inference form beside the form that learns, and half precision."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.measure import Figure, Table, alternated, at_least, at_most, ratios
from marstfn.batches import Model
from marstfn.convolution import FORMS
from marstfn.inference import VARIANT, Inference
from marstfn.model import MARSTFN, Config, DANet, Network, PositionAttention, build
from marstfn.precision import NDVI, RMSE, samples, trials
from marstfn.weights import load

EXACT = 120.0
"""dB of PSNR (maximum 1) against the form that learns."""
SHARE = 65.0
"""Per cent of the measured float32 matmul rate that is as good as the ratio asked for."""
SHIPPED = "marstfn-pan"


@dataclass(frozen=True)
class Case:
    """A network on patches of one side, and by how much its inference form should be faster."""

    name: str
    network: Network
    patches: int
    ratio: float


def shipped() -> Network:
    """The network that is shipped, in the form it learned in."""
    weights = load(SHIPPED)
    network = build(weights.config).eval()
    network.load_state_dict(weights.state)
    return network


def cases(quick: bool) -> list[Case]:
    """Growth 32 and 64 with parameters drawn at random, at 60 and 120 px, and the network that is shipped."""
    if quick:
        return [Case("growth 8, 24 px", drawn(8, 24, features=16), 2, 1.3)]
    return [
        *(Case(f"growth {g}, 60 px", drawn(g, 60), 2, 1.3) for g in (32, 64)),
        *(Case(f"growth {g}, 120 px", drawn(g, 120), 1, 2.0) for g in (32, 64)),
        Case(f"{SHIPPED}, 60 px", shipped(), 4, 1.3),
    ]


def drawn(growth: int, patch: int, features: int = 64) -> Network:
    """A printed network whose attention has its say (gammas 0.5): as initialised it would have none."""
    torch.manual_seed(0)
    network = MARSTFN(Config(growth=growth, patch=patch, features=features)).eval()
    for module in network.modules():
        if isinstance(module, DANet):
            torch.nn.init.constant_(module.gamma_position, 0.5)
            torch.nn.init.constant_(module.gamma_channel, 0.5)
    return network


def inputs(config: Config, n: int, device: str = "cpu") -> list[Tensor | None]:
    """Made-up patches as the arguments of a network."""
    return [None if a is None else torch.from_numpy(a).to(device) for a in samples(config, n)]


def naive(network: Network) -> Network:
    """A copy that keeps the whole map of position attention, as DANet is published."""
    copy = build(network.config).eval()
    copy.load_state_dict(network.state_dict())
    for module in copy.modules():
        if isinstance(module, PositionAttention):
            module.forward = module.naive  # type: ignore[method-assign]
    return copy.to(next(network.parameters()).device)


def useful(network: Network, given: Sequence[Tensor | None]) -> int:
    """Floating-point operations that the network's definition asks for; none of what padding adds."""
    with FlopCounterMode(display=False) as counter:
        network(*given)
    return int(counter.get_total_flops())


def psnr(made: Tensor, truth: Tensor) -> float:
    """dB, maximum 1."""
    square = float((made.double() - truth.double()).square().mean())
    return -10 * math.log10(max(square, 1e-30))


def shares(work: int, seconds: Sequence[float], rate: Sequence[float]) -> tuple[float, ...]:
    """`work` FLOP in so many seconds as per cent of `rate` GFLOP/s, round by round."""
    return tuple(100 * work / s / 1e9 / r for s, r in zip(seconds, rate, strict=True))


def tables(quick: bool) -> list[Table]:
    """What the inference form gains over the form that learns on one core, and how near it stays."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            return [*(_case(case, quick) for case in cases(quick)), _half(quick)]
    finally:
        torch.set_num_threads(threads)


def _case(case: Case, quick: bool) -> Table:
    side = 256 if quick else 1536
    square = torch.randn(side, side)
    config = case.network.config
    given = inputs(config, case.patches)
    published = naive(case.network)
    forms: dict[str, Model] = {form: Inference(case.network, form=form) for form in FORMS}
    candidates: dict[str, Callable[[], object]] = {
        "matmul": lambda: square @ square,
        "eager": lambda: published(*given),
        "learned": lambda: case.network(*given),
        **{form: partial(fused, *given) for form, fused in forms.items()},
    }
    taken = alternated(candidates, rounds=2 if quick else 5)
    work = useful(published, given)
    truth = published(*given)
    rate = [2 * side**3 / s / 1e9 for s in taken["matmul"]]
    own = next(form for form in FORMS if form in VARIANT)
    made = taken[own]
    share = shares(work, made, rate)
    gained = ratios(taken["eager"], made)
    enough = at_least("", gained, case.ratio).met or at_least("", share, SHARE).met
    other = next(form for form in FORMS if form != own)
    pixels = case.patches * config.patch**2
    return Table(
        f"The network on one core: {case.name}",
        (
            Figure("eager, whole attention map", tuple(pixels / s / 1e3 for s in taken["eager"]), "kpx/s"),
            Figure(f"inference form ({own})", tuple(pixels / s / 1e3 for s in made), "kpx/s"),
            Figure(
                "inference form / eager", gained, "", f">= {case.ratio:g}, or {SHARE:g} % of the matmul rate", enough
            ),
            Figure("inference form / the form that learns as it is", ratios(taken["learned"], made)),
            Figure(f"inference form / the same, dense blocks {other}", ratios(taken[other], made)),
            Figure("float32 matmul rate", tuple(rate), "GFLOP/s"),
            at_least("useful FLOP as a share of it", share, SHARE, "%"),
            Figure("the same, eager", shares(work, taken["eager"], rate), "%"),
            *(at_least(f"PSNR, {name} blocks", [psnr(f(*given), truth)], EXACT, "dB") for name, f in forms.items()),
        ),
        (
            f"float32, one thread, batch {case.patches}, {work / pixels / 1e6:.2f} useful MFLOP a pixel (what the "
            f"definition asks for, padding not counted), matmul {side} x {side}; ratios round by round.",
        ),
    )  # fmt: skip


def _half(quick: bool) -> Table:
    weights = load(SHIPPED)
    plain, *others = trials(weights, batch=1 if quick else 2, rounds=1 if quick else 3)
    figures: list[Figure] = []
    for t in others:
        figures += [
            Figure(f"{t.precision} / float32, speed", (plain.seconds / t.seconds,)),
            at_most(f"{t.precision}, RMSE against float32", [t.rmse], RMSE, "reflectance"),
            at_most(f"{t.precision}, NDVI error, 99th percentile", [t.ndvi], NDVI),
        ]
    return Table(
        f"Half precision on this processor: {SHIPPED}",
        tuple(figures),
        (
            "What `marstfn.precision.calibrate` goes by; head, anchor and the energy of channel attention in float32. "
            "NDVI where red + nir08 > 0.05. Made-up parcels.",
        ),
    )
