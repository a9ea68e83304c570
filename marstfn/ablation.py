"""What each part of the network is worth: the same data, budget and seeds for every variant (the paper's Table 4).

`python -m marstfn.ablation SAMPLES VALIDATION OUT` trains what OUT does not hold yet and writes the table.
"""

from __future__ import annotations

import argparse
import csv
import logging
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import numpy as np

from marstfn.dataset import read
from marstfn.model import Config, build, parameters
from marstfn.train import TrainConfig, errors, train
from marstfn.weights import load

log = logging.getLogger(__name__)

FULL = Config(
    pan=False,
    features=32,
    growth=16,
    layers=4,
    blocks=3,
    anchor="additive",
    guide=True,
    context=True,
    centre=0.15,
    spread=0.15,
)
"""Narrow, so that three seeds of every variant fit into an hour of one core."""

VARIANTS: Mapping[str, Config] = MappingProxyType(
    {
        "MARSTFN": FULL,
        "ARNet (no multiscale)": replace(FULL, multiscale=False),
        "MRNet (no SE)": replace(FULL, attention=False),
        "MANet (no CSARDB)": replace(FULL, residual=False),
        "no DANet": replace(FULL, danet=False),
        "no CBAM": replace(FULL, cbam=False),
        "nearest reference only": replace(FULL, context=False),
        "no guide": replace(FULL, guide=False),
        "plain output, as printed": replace(FULL, anchor="none", guide=False, context=False),
    }
)

CURVE = 4
"""Validations in a run: what the last of them still gains tells whether it had converged."""


def main(arguments: list[str] | None = None) -> None:
    """Train and tabulate."""
    parser = argparse.ArgumentParser(prog="python -m marstfn.ablation", description=__doc__)
    parser.add_argument("samples", type=Path)
    parser.add_argument("validation", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--variants", nargs="*", default=list(VARIANTS), choices=list(VARIANTS))
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    for seed in range(options.seeds):
        for name in options.variants:
            config = TrainConfig(
                options.samples,
                options.validation,
                _folder(options.out, name, seed),
                VARIANTS[name],
                steps=options.steps,
                batch=options.batch,
                rate=options.rate,
                warmup=options.steps // 20,
                average=0.99,
                validate_every=options.steps // CURVE,
                seed=seed,
                precision="bfloat16",
            )
            train(config)
            log.info("%s, seed %d: done", name, seed)
    sys.stdout.write(table(options.out, options.validation, options.seeds, options.variants) + "\n")


def table(out: Path, validation: Path, seeds: int, variants: list[str]) -> str:
    """Markdown: RMSE over all validation samples, mean and spread over the seeds, and the gain of the last quarter."""
    held = read(validation)
    lines = [
        "| variant | parameters | RMSE x 1e4, mean (least .. most of the seeds) | to the additive baseline "
        "on the same reference | gain of the last quarter of the steps |",
        "|---|---|---|---|---|",
    ]
    for name in variants:
        config = VARIANTS[name]
        pooled, ratios, gains = [], [], []
        for seed in range(seeds):
            folder = _folder(out, name, seed)
            weights = load(folder / "best.safetensors")
            model = build(weights.config)
            model.load_state_dict(weights.state)
            own, free = errors(model, held, 8)
            pooled.append(float(np.sqrt(np.mean(own**2))) * 1e4)
            ratios.append(float(np.exp(np.mean(np.log(own / free)))))
            with (folder / "curve.csv").open(newline="") as file:
                curve = [float(row["rmse"]) for row in csv.DictReader(file)]
            gains.append(1 - curve[-1] / curve[-2])
        lines.append(
            f"| {name} | {parameters(build(config))} | {np.mean(pooled):.1f} ({min(pooled):.1f} .. {max(pooled):.1f}) "
            f"| {np.mean(ratios):.3f} | {np.mean(gains) * 100:.1f} % |"
        )
    return "\n".join(lines)


def _folder(out: Path, name: str, seed: int) -> Path:
    return out / f"{name.split(' (')[0].replace(' ', '-').replace(',', '').lower()}-{seed}"


if __name__ == "__main__":
    main()
