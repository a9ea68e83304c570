"""How fast each network is, all in one run: `python -m marstfn.speed`. 10 m pixels a second, as the predictor runs."""

from __future__ import annotations

import argparse
import sys
import time

import numpy as np
import torch

from marstfn.inference import supports
from marstfn.model import Config, build, parameters
from marstfn.precision import FLOAT32, PRECISIONS
from marstfn.predict import Predictor
from marstfn.weights import SHIPPED, Weights, load

PUBLISHED = {
    "MARSTFN as printed, pan": Config(),
    "MARSTFN as printed, no pan": Config(pan=False),
    "DSTFN as published, pan": Config(network="dstfn"),
    "DSTFN as published, no pan": Config(network="dstfn", pan=False),
}
"""Forms with fresh parameters: speed does not depend on what they learned."""


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m marstfn.speed", description=__doc__)
    parser.add_argument("--weights", nargs="*", default=list(SHIPPED), help="sets by name, or weights files")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=0, help="of torch; 0 leaves its own choice")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--precision", default=FLOAT32, choices=PRECISIONS)
    parser.add_argument("--rounds", type=int, default=5, help="every network once a round")
    options = parser.parse_args(arguments)
    sets = {name: load(name) for name in options.weights}
    sets |= {name: Weights(c, build(c).state_dict(), {}, "", name) for name, c in PUBLISHED.items()}
    timed = {
        name: Predictor(
            w,
            device=options.device,
            batch=options.batch,
            threads=options.threads,
            # the sibling and the ablations know no other
            precision=options.precision if supports(w.config) else FLOAT32,
        )
        for name, w in sets.items()
    }
    seconds: dict[str, list[float]] = {name: [] for name in timed}
    for turn in range(options.rounds + 1):
        for name, predict in timed.items():
            spent = once(predict, options.batch)
            # the first round pays for memory and kernels
            if turn:
                seconds[name].append(spent)
    sys.stdout.write(
        f"{options.device}, {torch.get_num_threads()} threads, batch {options.batch}, {options.rounds} rounds\n\n"
        "| network | parameters | px/s, median (least .. most) | to the first |\n|---|---|---|---|\n"
    )
    first = float(np.median(next(iter(seconds.values()))))
    for name, taken in seconds.items():
        pixels = options.batch * timed[name].patch ** 2
        rates = sorted(pixels / s for s in taken)
        count = parameters(build(sets[name].config))
        sys.stdout.write(
            f"| {name} | {count} | {np.median(rates):.0f} ({rates[0]:.0f} .. {rates[-1]:.0f}) | "
            f"{first / float(np.median(taken)):.2f} |\n"
        )


def once(predict: Predictor, batch: int) -> float:
    """Seconds of one full batch."""
    rng = np.random.default_rng(0)
    side = predict.patch
    shapes = ((6, side), (6, side // 3), (1, side * 2 // 3), (8, side))
    s2, landsat, pan, context = (rng.uniform(0, 0.5, (batch, b, p, p)).astype(np.float32) for b, p in shapes)
    start = time.perf_counter()
    predict(s2, landsat, pan if predict.pan else None, context if predict.context else None)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
