"""In which precision a network predicts: half where a trial on this very device shows that it pays and does no harm."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from marstfn.bands import BANDS, RATIO
from marstfn.baselines.degrade import Array
from marstfn.batches import Batches, Model, exhausted
from marstfn.inference import Inference, supports
from marstfn.model import Config, build
from marstfn.weights import Weights

FLOAT32 = "float32"
DTYPES = {FLOAT32: torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
PRECISIONS = (*DTYPES, "auto")
"""What may be asked for; "auto" is resolved by `calibrate`."""

RMSE, NDVI, LIT = 5e-4, 0.005, 0.05
"""Half precision passes with less RMSE than this (reflectance) and less NDVI error at the 99th percentile, over pixels
with red + nir08 above LIT."""
GAIN = 1.1
"""How many times as fast as float32 half precision must be to be worth it."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One precision on one device: seconds of a batch, and how far its reflectance and NDVI lie from float32's."""

    precision: str
    seconds: float
    rmse: float
    ndvi: float

    @property
    def accurate(self) -> bool:
        """Whether it may serve; NaN may not."""
        return self.rmse < RMSE and self.ndvi < NDVI


def calibrate(weights: Weights, device: str | torch.device = "cpu", *, batch: int = 4, rounds: int = 3) -> str:
    """The fastest accurate precision of these weights on this device, float32 unless another is GAIN times as fast.

    Measured, so a repetition may choose otherwise: to be asked once a run and written down. `batch`: as it will run.
    Takes seconds.
    """
    plain, *others = trials(weights, device, batch=batch, rounds=rounds)
    worth = [t for t in others if t.accurate and t.seconds * GAIN < plain.seconds]
    return min(worth, key=lambda t: t.seconds).precision if worth else FLOAT32


def trials(
    weights: Weights, device: str | torch.device = "cpu", *, batch: int = 4, rounds: int = 3
) -> tuple[Trial, ...]:
    """Every precision in turn on the same made-up patches, float32 first; float32 alone for networks without an
    inference form, and without those that the device refuses."""
    where = torch.device(device)
    names = list(DTYPES) if supports(weights.config) else [FLOAT32]
    given = [None if a is None else torch.from_numpy(a).to(where) for a in samples(weights.config, batch)]
    made: dict[str, Tensor] = {}
    models: dict[str, Batches] = {}
    with torch.inference_mode():
        for name in names:
            try:
                # with graphs, where there are any: kernel by kernel a GPU would time its own launches
                models[name] = Batches(forward(weights, where, name), where, batch)
                made[name] = models[name].beside(given)[:, : len(BANDS)].float().cpu()
            except RuntimeError as error:
                # a device without this type, or without room for it: one precision fewer
                if name == FLOAT32 and not exhausted(error):
                    raise
                models.pop(name, None)
        taken: dict[str, list[float]] = {name: [] for name in models}
        for _ in range(rounds):
            for name, model in models.items():
                taken[name].append(_seconds(partial(model.beside, given), where))
    truth = made[FLOAT32].numpy()
    return tuple(
        Trial(name, statistics.median(taken[name]), *differences(made[name].numpy(), truth)) for name in models
    )


def differences(made: Array, truth: Array) -> tuple[float, float]:
    """RMSE in reflectance and the 99th percentile of the NDVI error where `truth` is lit; (n,6,h,w) both."""
    red, near = BANDS.index("red"), BANDS.index("nir08")
    lit = truth[:, red] + truth[:, near] > LIT
    a, b = ((x[:, near] - x[:, red])[lit] / (x[:, near] + x[:, red])[lit] for x in (made, truth))
    rmse = float(np.sqrt(np.square(made - truth, dtype=np.float64).mean()))
    return rmse, float(np.percentile(np.abs(a - b), 99)) if lit.any() else 0.0


def forward(weights: Weights, device: torch.device, precision: str) -> Model:
    """The network of the weights on the device: in its inference form, or as it learned where it has none.

    On CUDA, TF32 is switched off for the process. Raises ValueError for an unknown precision, and for half precision of
    a network without an inference form.
    """
    if precision not in DTYPES:
        raise ValueError(f"precision {precision!r} is unknown; there are {', '.join(PRECISIONS)}")
    if device.type == "cuda":
        # the cube's float32 is float32, head and anchor of half precision too
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False
    network = build(weights.config)
    network.load_state_dict(weights.state)
    network.eval()
    if supports(weights.config):
        return Inference(network, device=device, dtype=DTYPES[precision])
    if precision != FLOAT32:
        raise ValueError(f"these weights are of a network that predicts in float32 only, not in {precision}")
    network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def trained(*given: Tensor | None) -> Tensor:
        out: Tensor = network(*(None if t is None else t.contiguous(memory_format=torch.channels_last) for t in given))
        return out

    return trained


def samples(config: Config, n: int, seed: int = 0) -> tuple[Array, Array, Array | None, Array | None]:
    """`n` patches of parcels between bare soil, green canopy and water, some of which changed: arguments of a network
    of this form, reflectance float32, always the same for the same seed."""
    rng = np.random.default_rng(seed)
    p = config.patch
    soil = np.array([0.08, 0.10, 0.14, 0.24, 0.30, 0.25])
    green = np.array([0.03, 0.06, 0.04, 0.40, 0.20, 0.10])
    water = np.array([0.05, 0.05, 0.03, 0.02, 0.01, 0.01])
    rows, cols = np.mgrid[:p, :p]
    before, after = np.empty((2, n, 6, p, p), np.float32)
    for k in range(n):
        seeds = rng.uniform(0, p, (24, 2))
        parcel = ((rows[..., None] - seeds[:, 0]) ** 2 + (cols[..., None] - seeds[:, 1]) ** 2).argmin(-1)
        bright, cover = rng.uniform(0.6, 1.4, 24), rng.uniform(0, 1, 24)
        later = np.where(rng.random(24) < 0.3, rng.uniform(0, 1, 24), cover)
        for out, share in ((before, cover), (after, later)):
            spectra = bright[:, None] * (share[:, None] * green + (1 - share[:, None]) * soil)
            spectra[rng.random(24) < 0.05] = water
            out[k] = np.moveaxis(spectra[parcel], -1, 0) + rng.normal(0, 0.004, (6, p, p))
    landsat = _mean(after, RATIO)
    pan = _mean(np.repeat(np.repeat(after[:, :3].mean(1, keepdims=True), 2, 2), 2, 3), RATIO) if config.pan else None
    step = (after - before) * rng.uniform(-1, 1, (n, 1, 1, 1))
    ages = np.broadcast_to(rng.uniform(0, 1, (n, 2, 1, 1)), (n, 2, p, p))
    context = np.concatenate([step, ages], 1).astype(np.float32) if config.context else None
    return before, landsat, pan, context


def _mean(x: Array, factor: int) -> Array:
    n, c, h, w = x.shape
    out: Array = x.reshape(n, c, h // factor, factor, w // factor, factor).mean((3, 5), dtype=np.float32)
    return out


def _seconds(run: Callable[[], object], device: torch.device) -> float:
    _wait(device)
    start = time.perf_counter()
    run()
    _wait(device)
    return time.perf_counter() - start


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
