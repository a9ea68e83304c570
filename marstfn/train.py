"""Training: samples and a configuration in; weights, checkpoints and a learning curve out.

Everything a step does follows from the seed and the step's number, so a resumed run goes on as if it had never stopped.
`python -m marstfn.train --help` shows the commands; the model card in `marstfn/shipped` has those of the shipped sets.
"""

from __future__ import annotations

import csv
import json
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from marstfn import weights
from marstfn.dataset import FIELDS, SCALE, digest, read
from marstfn.loss import adaptive, degradation, laplace
from marstfn.model import Config, Network, anchor, build

log = logging.getLogger(__name__)

COLUMNS = ("step", "seconds", "rate", "loss", "rmse", "rmse_additive", "ratio")
"""Of curve.csv: steps done, seconds of training, learning rate, mean loss since the last row, RMSE of the validation
samples and of the additive baseline on them, geometric mean over samples of the ratio of the two."""


@dataclass(frozen=True)
class TrainConfig:
    """A training run.

    `samples`, `validation`: folders of `marstfn.dataset` files; `out`: where checkpoints, curve and weights go. `rate`
    decays by a cosine over `steps` after `warmup` steps; `average`: decay of the parameters' moving average, which
    is what is validated and kept (0: none). `precision`: of the forward pass in training (mixed precision below
    float32; float16 with loss scaling, for GPUs without bfloat16); validation is in float32. `patience`: validations
    without progress before it stops (0: never). `seconds`: stop, resumable, after so long (0: no limit). `start`:
    weights to begin from.
    """

    samples: Path
    validation: Path
    out: Path
    network: Config = field(default_factory=Config)
    steps: int = 2000
    batch: int = 4
    rate: float = 1e-3
    warmup: int = 50
    average: float = 0.995
    normalised: bool = True
    detached: bool = True
    clip: float = 1.0
    validate_every: int = 100
    patience: int = 0
    seconds: float = 0.0
    seed: int = 0
    threads: int = 1
    device: str = "cpu"
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    start: str | None = None

    @classmethod
    def cpu(cls, samples: Path, validation: Path, out: Path, *, pan: bool) -> TrainConfig:
        """What one core manages in an hour: a narrower network, small batches, the residual on the additive baseline,
        references on both sides."""
        network = Config(
            pan=pan,
            features=48,
            growth=24,
            layers=4,
            blocks=3,
            anchor="additive",
            guide=True,
            context=True,
            uncertainty=True,
            centre=0.15,
            spread=0.15,
        )
        return cls(samples, validation, out, network, steps=6000, warmup=100, average=0.998, precision="bfloat16")

    @classmethod
    def dstfn(cls, samples: Path, validation: Path, out: Path, *, pan: bool) -> TrainConfig:
        """DSTFN as published but for its width, on the budget of `cpu`: the nearest reference, the plain output."""
        network = Config(network="dstfn", pan=pan, features=48, growth=24, layers=4, centre=0.15, spread=0.15)
        ours = cls.cpu(samples, validation, out, pan=pan)
        return replace(ours, network=network)

    @classmethod
    def paper(cls, samples: Path, validation: Path, out: Path, *, pan: bool, count: int) -> TrainConfig:
        """The paper's settings for `count` samples: Adam, constant 1e-3, batch 64, 100 epochs, the plain output."""
        per_epoch = max(1, count // 64)
        return cls(
            samples,
            validation,
            out,
            Config(pan=pan),
            steps=100 * per_epoch,
            batch=64,
            warmup=0,
            average=0.0,
            clip=0.0,
            validate_every=per_epoch,
        )


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a run stands: `loss` since the last report, `ratio` of validation RMSE to the additive baseline's (NaN
    before the first validation), `left` estimated seconds to the end."""

    step: int
    steps: int
    loss: float
    ratio: float
    left: float


def train(config: TrainConfig, report: Callable[[Progress], None] | None = None) -> weights.Weights:
    """Train, or go on with, the run in `config.out`; returns the best weights by validation, `out/best.safetensors`.

    Raises ValueError where the folder holds another run, the samples are empty, or the loss is not finite.
    """
    torch.set_num_threads(config.threads)
    run = _Run(config)
    samples, count = run.samples, len(run.samples["truth"])
    begun, before = time.monotonic(), run.seconds
    stale, total, since = run.stale, 0.0, 0
    while run.step < config.steps:
        rows = _rows(config.seed, run.step, config.batch, count)
        turns = np.random.default_rng((config.seed, 1, run.step)).integers(8, size=len(rows))
        batch = _batch(samples, rows, turns, config.device, config.network.context)
        loss = run.learn(batch, _rate(config, run.step))
        total, since = total + loss, since + 1
        run.step += 1
        run.seconds = before + time.monotonic() - begun
        last = run.step == config.steps or bool(config.seconds and time.monotonic() - begun > config.seconds)
        if run.step % config.validate_every == 0 or last:
            stale = 0 if run.validate(total / since) else stale + 1
            run.stale = stale
            run.save()
            total, since = 0.0, 0
        if report and (run.step % 10 == 0 or last):
            pace = (time.monotonic() - begun) / max(1, run.step - run.first)
            left = pace * (config.steps - run.step)
            report(Progress(run.step, config.steps, loss, run.ratio, left))
        if last or (config.patience and stale >= config.patience):
            break
    return _calibrated(config.out / "best.safetensors", run)


class _Run:
    """The changing part of a training run."""

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        self.samples = read(config.samples)
        self.held = read(config.validation)
        config.out.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(config.seed)
        self.model = build(config.network)
        if config.start:
            adopt(self.model, weights.load(config.start))
        self.model.to(config.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.mean = build(config.network).to(config.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.mean.load_state_dict(self.model.state_dict())
        self.optimiser = torch.optim.Adam(self.model.parameters(), config.rate)
        self.scaler = torch.amp.GradScaler(config.device, enabled=config.precision == "float16")
        # what the uncertainty learns must not shorten the steps of the rest
        self.trunk = [p for n, p in self.model.named_parameters() if not n.startswith(("doubt", "factors"))]
        self.step = self.first = self.stale = 0
        self.seconds = 0.0
        self.best = self.ratio = float("nan")
        self._identity = _identity(config)
        self._resume()

    def learn(self, batch: dict[str, Tensor], rate: float) -> float:
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.model.train()
        kind = torch.bfloat16 if self.config.precision == "bfloat16" else torch.float16
        with torch.autocast(torch.device(self.config.device).type, kind, enabled=self.config.precision != "float32"):
            prediction = run(self.model, batch)
        prediction, mask = prediction.float(), batch["scored"][:, None]
        bands = self.config.network.bands
        if self.config.network.network == "dstfn":
            loss = degradation(prediction[:, :bands], batch["truth"], batch["landsat"], mask)
        else:
            normalised, detached = self.config.normalised, self.config.detached
            loss = adaptive(prediction[:, :bands], batch["truth"], normalised=normalised, detached=detached, mask=mask)
        if not torch.isfinite(loss):
            raise ValueError(f"the loss is {loss.item()} at step {self.step}; lower the rate and start afresh")
        total = loss
        if self.model.factors is not None:
            error = (prediction[:, :bands] - batch["truth"]).detach()
            total = loss + laplace(error, prediction[:, bands:] * self.model.factors.exp()[:, None, None], mask)
        self.optimiser.zero_grad(set_to_none=True)
        self.scaler.scale(total).backward()  # type: ignore[no-untyped-call]
        self.scaler.unscale_(self.optimiser)
        if self.config.clip:
            torch.nn.utils.clip_grad_norm_(self.trunk, self.config.clip)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        # young averages forget faster, or the start would weigh for long
        decay = min(self.config.average, (1 + self.step) / (10 + self.step)) if self.config.average else 0.0
        with torch.no_grad():
            for kept, new in zip(self.mean.parameters(), self.model.parameters(), strict=True):
                kept.lerp_(new, 1 - decay)
        return loss.item()

    def validate(self, loss: float) -> bool:
        """Append a row to the curve; keep the weights if none were better. True where they were kept."""
        own, free = errors(self.mean, self.held, self.config.batch, self.config.device)
        self.ratio = float(np.exp(np.mean(np.log(own / free))))
        row = (self.step, self.seconds, _rate(self.config, self.step - 1), loss, _pool(own), _pool(free), self.ratio)
        path = self.config.out / "curve.csv"
        fresh = not path.exists()
        with path.open("a", newline="") as file:
            writer = csv.writer(file)
            if fresh:
                writer.writerow(COLUMNS)
            writer.writerow([row[0], *(f"{value:.6g}" for value in row[1:])])
        log.info(
            "step %d: loss %.5f, validation RMSE %.5f, ratio to additive %.4f", self.step, loss, row[4], self.ratio
        )
        better = not self.best <= self.ratio
        if better:
            self.best = self.ratio
            header = {
                "training": json.dumps(self._identity, sort_keys=True),
                "step": str(self.step),
                "validation": json.dumps({"rmse": row[4], "rmse_additive": row[5], "ratio": self.ratio}),
            }
            weights.save(self.config.out / "best.safetensors", self.mean, header)
        return better

    def save(self) -> None:
        path = self.config.out / "last.pt"
        part = path.with_suffix(".part")
        state = {
            "identity": json.dumps(self._identity, sort_keys=True),
            "model": self.model.state_dict(),
            "mean": self.mean.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "scaler": self.scaler.state_dict(),
            "numbers": [float(self.step), float(self.stale), self.seconds, self.best, self.ratio],
        }
        torch.save(state, part)
        part.replace(path)

    def _resume(self) -> None:
        path = self.config.out / "last.pt"
        if not path.exists():
            (self.config.out / "curve.csv").unlink(missing_ok=True)
            return
        state = torch.load(path, map_location=self.config.device, weights_only=True)
        if json.loads(state["identity"]) != json.loads(json.dumps(self._identity)):
            raise ValueError(
                f"{self.config.out} holds another training run ({state['identity']}); its checkpoint cannot go on with "
                "these settings: choose another folder"
            )
        self.model.load_state_dict(state["model"])
        self.mean.load_state_dict(state["mean"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.scaler.load_state_dict(state["scaler"])
        step, stale, self.seconds, self.best, self.ratio = state["numbers"]
        self.step, self.stale = int(step), int(stale)
        self.first = self.step
        _cut_curve(self.config.out / "curve.csv", self.step)
        log.info("going on from step %d of %d", self.step, self.config.steps)


def adopt(model: Network, given: weights.Weights) -> int:
    """Copy the parameters of `given` that fit into `model`; returns how many tensors fitted.

    A convolution that has more inputs than in `given` (pan, context) takes the columns that are there: the others keep
    their own start, shrunk, so that the network begins as the one it came from.
    """
    own = model.state_dict()
    fitted = 0
    for name, tensor in given.state.items():
        if name not in own:
            continue
        if own[name].shape == tensor.shape:
            own[name] = tensor.clone()
            fitted += 1
        elif name in ("join.weight", "fine.weight") and own[name].shape[1] > tensor.shape[1]:
            widened = own[name].clone() * 0.1
            widened[:, : tensor.shape[1]] = tensor
            own[name] = widened
            fitted += 1
    model.load_state_dict(own)
    return fitted


def errors(
    model: Network, samples: dict[str, NDArray[Any]], batch: int, device: str = "cpu"
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(n,) RMSE of the network and of the additive baseline on the same reference by sample, over scored pixels; those
    with none drop out."""
    own: list[float] = []
    free: list[float] = []
    for part, prediction in predictions(model, samples, batch, device):
        bands = prediction[:, : model.config.bands]
        for result, scores in ((bands, own), (anchor(part["s2"], part["landsat"]), free)):
            square = (result - part["truth"]).square().mean(1) * part["scored"]
            share = square.sum((1, 2)) / part["scored"].sum((1, 2))
            scores.extend(share.sqrt().tolist())
    pairs = np.array([own, free])
    pairs = pairs[:, np.isfinite(pairs).all(0)]
    return pairs[0], pairs[1]


def calibrate(
    model: Network, samples: dict[str, NDArray[Any]], batch: int = 4, device: str = "cpu", share: float = 0.9
) -> tuple[float, ...]:
    """By band, the factor f for which |error| <= f * u holds in `share` of the scored pixels of the samples.

    Raises ValueError for a network without uncertainty.
    """
    if not model.config.uncertainty:
        raise ValueError("this network has no uncertainty to calibrate")
    ratios: list[NDArray[np.float32]] = []
    for part, prediction in predictions(model, samples, batch, device):
        bands = model.config.bands
        ratio = (prediction[:, :bands] - part["truth"]).abs() / prediction[:, bands:]
        ratios.append(ratio.movedim(1, 0)[:, part["scored"]].cpu().numpy())
    factors = np.quantile(np.concatenate(ratios, 1), share, axis=1)
    return tuple(round(float(f), 5) for f in factors)


def run(model: Network, batch: dict[str, Tensor]) -> Tensor:
    """The network on a batch of samples as `_batch` makes it."""
    config = model.config
    out: Tensor = model(
        batch["s2"],
        batch["landsat"],
        batch["pan"] if config.pan else None,
        batch["context"] if config.context else None,
    )
    return out


def predictions(
    model: Network, samples: dict[str, NDArray[Any]], batch: int = 4, device: str = "cpu"
) -> Iterator[tuple[dict[str, Tensor], Tensor]]:
    """Batches of samples, untouched, with what the network makes of them."""
    model.eval()
    count = len(samples["truth"])
    for first in range(0, count, batch):
        rows = np.arange(first, min(first + batch, count))
        part = _batch(samples, rows, np.zeros(len(rows), int), device, model.config.context)
        # closed before anything is handed out: the mode belongs to the thread, and so to whoever asks
        with torch.no_grad():
            made = run(model, part)
        yield part, made


def _calibrated(path: Path, run: _Run) -> weights.Weights:
    """The best weights; where they have uncertainty, with its factors by the validation samples in their header."""
    best = weights.load(path)
    if not best.config.uncertainty:
        return best
    model = build(best.config)
    model.load_state_dict(best.state)
    factors = calibrate(model.to(run.config.device), run.held, run.config.batch, run.config.device)
    return weights.save(path, model, {**best.header, "interval": json.dumps(factors)})


def _rows(seed: int, step: int, batch: int, count: int) -> NDArray[np.intp]:
    """The samples of a step: every epoch its own order, each sample once an epoch (a last, short batch is left out)."""
    batch = min(batch, count)
    per_epoch = count // batch
    epoch, place = divmod(step, per_epoch)
    order = np.random.default_rng((seed, 0, epoch)).permutation(count)
    return order[place * batch : (place + 1) * batch]


def _batch(
    samples: dict[str, NDArray[Any]], rows: NDArray[np.intp], turns: NDArray[np.int64], device: str, between: bool
) -> dict[str, Tensor]:
    """Tensors of the samples `rows`, each turned and mirrored by its number 0-7 (0: as it is); `s2` is the reference
    interpolated `between` both sides, or the nearest."""
    out: dict[str, Tensor] = {}
    names = {"s2": "between" if between else "nearest", **{n: n for n in FIELDS if n not in ("between", "nearest")}}
    for name, field_ in names.items():
        images = [_turned(samples[field_][r], int(t)) for r, t in zip(rows, turns, strict=True)]
        stacked = np.stack(images)
        if name == "scored":
            out[name] = torch.from_numpy(stacked).to(device)
        else:
            tensor = torch.from_numpy(stacked.astype(np.float32) * np.float32(SCALE))
            out[name] = tensor.to(device, memory_format=torch.channels_last)
    return out


def _turned(image: NDArray[Any], turn: int) -> NDArray[Any]:
    turned = np.rot90(image, turn % 4, (-2, -1))
    return turned[..., ::-1] if turn >= 4 else turned


def _rate(config: TrainConfig, step: int) -> float:
    if step < config.warmup:
        return config.rate * (step + 1) / config.warmup
    if not config.warmup:
        return config.rate
    share = (step - config.warmup) / max(1, config.steps - config.warmup)
    return config.rate * (0.02 + 0.98 * 0.5 * (1 + float(np.cos(np.pi * min(1.0, share)))))


def _pool(values: NDArray[np.float64]) -> float:
    return float(np.sqrt(np.mean(values**2)))


def _identity(config: TrainConfig) -> dict[str, Any]:
    """What must not change between a run and its resumption."""
    values = asdict(config)
    for name in ("samples", "validation", "out", "seconds", "threads", "device", "patience"):
        del values[name]
    if config.start:
        # where a file lay says nothing to another reader; its hash does
        values["start"] = weights.load(config.start).sha256
    return {**values, "samples": digest(config.samples), "validation": digest(config.validation)}


def _cut_curve(path: Path, step: int) -> None:
    if not path.exists():
        return
    with path.open(newline="") as file:
        head, *rows = list(csv.reader(file))
    part = path.with_suffix(".part")
    with part.open("w", newline="") as file:
        csv.writer(file).writerows([head, *(row for row in rows if int(row[0]) <= step)])
    part.replace(path)


__all__ = ["COLUMNS", "Progress", "TrainConfig", "adopt", "calibrate", "errors", "predictions", "train"]


if __name__ == "__main__":
    from marstfn.training import main

    main()
