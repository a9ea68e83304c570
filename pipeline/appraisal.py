"""Trained weights against the methods that need no training, on samples that neither training nor choice has seen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from marstfn import metrics
from marstfn.baselines import LOCAL, METHODS
from marstfn.dataset import SCALE, read
from marstfn.methods import NETWORK
from marstfn.predict import Predictor
from marstfn.weights import Weights

Array = NDArray[np.float32]

FEW_DAYS = 4
"""Landsat days below which the interval, too, is of little weight: it cannot know how days differ."""


@dataclass(frozen=True, slots=True)
class Score:
    """One method on the test samples: RMSE over all scored pixels, the others as means over samples."""

    method: str
    rmse: float
    psnr: float
    """With MAX = 1, of the pooled RMSE."""
    ssim: float
    sam: float
    """Degrees."""


@dataclass(frozen=True, slots=True)
class Appraisal:
    """All methods, the best first; the network's RMSE less that of the best free method, with its 95 % interval by
    bootstrap over days and samples, and what follows."""

    scores: tuple[Score, ...]
    samples: int
    days: int
    """Landsat days they come from."""
    best_free: str
    difference: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        """`ahead`, `behind` or, where the interval holds 0, `tie`."""
        return "ahead" if self.high < 0 else "behind" if self.low > 0 else "tie"

    @property
    def lines(self) -> list[str]:
        """As plain text, a line each."""
        out = [f"{'method':<16}{'RMSE':>9}{'PSNR':>8}{'SSIM':>8}{'SAM':>7}"]
        out += [f"{s.method:<16}{s.rmse:>9.5f}{s.psnr:>8.2f}{s.ssim:>8.4f}{s.sam:>7.2f}" for s in self.scores]
        words = {
            "ahead": f"the network is ahead of {self.best_free}",
            "behind": f"the network is BEHIND {self.best_free}, which needs no training,",
            "tie": f"the network and {self.best_free} are level: the data do not tell them apart",
        }
        instead = f": use --method {self.best_free}" if self.verdict == "behind" else ""
        interval = f"RMSE {self.difference:+.5f}, 95 % interval {self.low:+.5f} to {self.high:+.5f}"
        dates = f"{self.days} Landsat day{'s' if self.days > 1 else ''}"
        little = "; so few days say little of others" if self.days < FEW_DAYS else ""
        return [*out, f"{words[self.verdict]} on {self.samples} test samples of {dates} ({interval}{little}){instead}"]

    def as_dict(self) -> dict[str, Any]:
        """As JSON would have it."""
        return {**asdict(self), "verdict": self.verdict}


def appraise(weights: Weights, folder: Path, *, device: str = "cpu", batch: int = 4) -> Appraisal:
    """Score the weights and every method of local windows on the samples in `folder`, over the same scored pixels.

    Samples of one Landsat day share its weather and its errors: days are drawn first, and samples within them.
    """
    samples, days = read(folder), _days(folder)
    predictor = Predictor(weights, device=device, batch=batch)
    squares: dict[str, list[float]] = {}
    others: dict[str, list[tuple[float, float]]] = {}
    pixels: list[int] = []
    groups: list[int] = []
    for k in range(len(samples["truth"])):
        mask = samples["scored"][k]
        if not mask.any():
            continue
        one = {name: values[k].astype(np.float32) * np.float32(SCALE) for name, values in samples.items()}
        truth = one["truth"]
        pixels.append(int(mask.sum()))
        groups.append(int(days[k]))
        for name, made in _predictions(predictor, one):
            squares.setdefault(name, []).append(float(np.square(made - truth)[:, mask].mean(0).sum()))
            others.setdefault(name, []).append((metrics.ssim(made, truth, mask), metrics.sam(made, truth, mask)))
    counts = np.array(pixels, np.float64)
    scores = []
    for name, sums in squares.items():
        rmse = float(np.sqrt(sum(sums) / counts.sum()))
        ssim, sam = np.mean(others[name], axis=0)
        scores.append(Score(name, rmse, -20 * float(np.log10(rmse)), float(ssim), float(sam)))
    scores.sort(key=lambda score: score.rmse)
    best = next(score.method for score in scores if score.method != NETWORK)
    interval = metrics.block_bootstrap(
        np.array(squares[NETWORK]), np.array(squares[best]), counts, groups=np.array(groups), root=True
    )
    return Appraisal(tuple(scores), len(pixels), len(set(groups)), best, interval.estimate, interval.low, interval.high)


def _days(folder: Path) -> NDArray[np.intp]:
    """The Landsat day of each sample, in the order in which they are read: the number at the end of its file's name."""
    out: list[int] = []
    for path in sorted(folder.glob("*.npz")):
        with np.load(path) as file:
            out += [int(path.stem.rpartition("-")[2])] * len(file["scored"])
    return np.array(out, np.intp)


def _predictions(predictor: Predictor, one: Mapping[str, Array]) -> list[tuple[str, Array]]:
    reference = one["between"] if predictor.context else one["nearest"]
    inputs = (reference, one["landsat"], one["pan"], one["context"])
    network = predictor(*(array[None] for array in inputs))[0, : len(one["truth"])]
    free = [
        (name, method.function(one[method.kind], one["landsat"], one["pan"]))
        for name, method in METHODS.items()
        if method.side == LOCAL
    ]
    return [(NETWORK, network), *free]
