"""The commands that made the shipped weights: samples, fit, ship. Run as `python -m marstfn.train`."""

from __future__ import annotations

import argparse
import json
import logging
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from marstfn import evaluate, series, weights
from marstfn.dataset import Sample, from_series, from_simulation, generate, read
from marstfn.model import Network, build
from marstfn.train import Progress, TrainConfig, errors, predictions, train

log = logging.getLogger("marstfn.train")

PER_FILE = 100
"""Samples in a file of real places."""

VALIDATION = 5000
"""First seed of validation: other lands, and of the real places other ground."""

HALF_TOLERANCE = 1e-4
"""Largest difference in reflectance that float16 storage may make."""


def main(arguments: list[str] | None = None) -> None:
    """Parse and run one command; progress goes to the log."""
    parser = argparse.ArgumentParser(prog="python -m marstfn.train", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)

    samples = commands.add_parser("samples", help="make training samples, one file a seed; what is there is kept")
    samples.add_argument("out", type=Path)
    samples.add_argument("--first", type=int, default=0, help=f"first seed; validation begins at {VALIDATION}")
    samples.add_argument("--simulated", type=int, default=0, help="number of simulated lands")
    samples.add_argument("--real", type=Path, help="folder with the real Sentinel-2 series")
    samples.add_argument("--real-files", type=int, default=0, help=f"number of files of {PER_FILE} real samples")
    samples.add_argument("--processes", type=int, default=2)

    fit = commands.add_parser("fit", help="train; the same command goes on with an unfinished run")
    fit.add_argument("samples", type=Path)
    fit.add_argument("validation", type=Path)
    fit.add_argument("out", type=Path)
    fit.add_argument("--pan", action=argparse.BooleanOptionalAction, default=True)
    fit.add_argument("--preset", choices=("cpu", "paper", "dstfn"), default="cpu")
    for name, kind in (("steps", int), ("batch", int), ("rate", float), ("seed", int), ("threads", int)):
        fit.add_argument(f"--{name}", type=kind)
    fit.add_argument("--validate-every", type=int)
    fit.add_argument("--patience", type=int, help="stop after so many validations without progress")
    fit.add_argument("--seconds", type=float, help="stop, resumable, after so long")
    fit.add_argument("--start", help="weights to begin from: a file or a shipped set")
    fit.add_argument("--device", help="torch device")

    ship = commands.add_parser("ship", help="write the best weights of a run with their full header")
    ship.add_argument("run", type=Path)
    ship.add_argument("out", type=Path)
    ship.add_argument("--validation", type=Path, required=True, help="samples on which float16 storage is checked")
    ship.add_argument("--scenes", type=int, default=0, help="simulations on which the intervals are calibrated")
    ship.add_argument("--metrics", default="", help="figures to keep in the header")
    ship.add_argument("--protocol", default="", help="how the run went, in a sentence")

    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    {"samples": _samples, "fit": _fit, "ship": _ship}[options.command](options)


def real_samples(root: Path, seed: int) -> list[Sample]:
    """PER_FILE samples of the real series under `root`, less those that Landsat hardly saw; fixed by `seed`.

    Seeds from VALIDATION on draw from the places kept for validation, those below from the others.
    """
    rng = np.random.default_rng((7, seed))
    training, validation = series.split(series.read(root))
    places = validation if seed >= VALIDATION else training
    made = (from_series(places, rng) for _ in range(PER_FILE))
    return [sample for sample in made if sample.scored.mean() > 0.3]


def ship(
    run: Path, out: Path, validation: Path, *, metrics: str = "", protocol: str = "", scenes: int = 0
) -> weights.Weights:
    """Write `run`/best.safetensors to `out` with data, licences, protocol, commit and metrics in its header.

    Where the network has uncertainty, its intervals are calibrated on `scenes` simulations of `evaluate.CALIBRATION`
    (0: as they are, by the validation samples). Stored as float16 where that changes no validation sample by more
    than HALF_TOLERANCE, as float32 otherwise.
    """
    best = weights.load(run / "best.safetensors")
    model = build(best.config)
    model.load_state_dict(best.state)
    held = read(validation)
    rounded = build(best.config)
    rounded.load_state_dict({k: v.half().float() for k, v in best.state.items()})
    change = _difference(model, rounded, held)
    half = change <= HALF_TOLERANCE
    own, free = errors(model, held, 4)
    header = {
        **{k: v for k, v in best.header.items() if k in ("training", "step", "validation")},
        "data": "; ".join(("simulated Landsat 8 and Sentinel-2 (marstfn.simulate)", *series.CREDITS.values())),
        "protocol": protocol,
        "commit": weights.commit(),
        "metrics": metrics or json.dumps({"ratio_to_additive": float(np.exp(np.mean(np.log(own / free))))}),
        "licence": "MIT",
    }
    log.info("float16 changes reflectance by at most %.1e: stored as %s", change, "float16" if half else "float32")
    if "interval" in best.header:
        header["interval"] = best.header["interval"]
    done = weights.save(out, model, header, half=half)
    if not best.config.uncertainty or not scenes:
        return done
    seeds = evaluate.CALIBRATION
    views = evaluate.held_back(range(seeds.start, seeds.start + scenes))
    factors = evaluate.calibrated(views, evaluate.results(views, {"": evaluate.network(str(out))})[""])
    log.info("90 %% intervals by %d scenes: %s", len(views), factors)
    return weights.save(out, model, {**header, "interval": json.dumps(factors)}, half=half)


def _samples(options: argparse.Namespace) -> None:
    simulated = range(options.first, options.first + options.simulated)
    for path in generate(options.out, from_simulation, simulated, name="sim", processes=options.processes):
        log.info("%s", path)
    if options.real_files:
        if options.real is None:
            raise SystemExit("--real-files needs --real FOLDER, the folder with the series")
        make = partial(real_samples, options.real)
        numbers = range(options.first, options.first + options.real_files)
        for path in generate(options.out, make, numbers, name="real", processes=options.processes):
            log.info("%s", path)


def _fit(options: argparse.Namespace) -> None:
    if options.preset == "paper":
        count = len(read(options.samples)["truth"])
        config = TrainConfig.paper(options.samples, options.validation, options.out, pan=options.pan, count=count)
    else:
        preset = TrainConfig.dstfn if options.preset == "dstfn" else TrainConfig.cpu
        config = preset(options.samples, options.validation, options.out, pan=options.pan)
    names = ("steps", "batch", "rate", "seed", "threads", "validate_every", "patience", "seconds", "start", "device")
    config = replace(config, **{n: getattr(options, n) for n in names if getattr(options, n) is not None})
    best = train(config, _log_progress)
    log.info("best weights: %s (%s)", config.out / "best.safetensors", best.header.get("validation"))


def _ship(options: argparse.Namespace) -> None:
    done = ship(
        options.run,
        options.out,
        options.validation,
        metrics=options.metrics,
        protocol=options.protocol,
        scenes=options.scenes,
    )
    log.info("%s %s", options.out, done.sha256)


def _log_progress(progress: Progress) -> None:
    minutes = progress.left / 60
    log.info(
        "step %d of %d, loss %.5f, validation %.4f of the additive baseline, %.0f min left",
        progress.step,
        progress.steps,
        progress.loss,
        progress.ratio,
        minutes,
    )


def _difference(first: Network, second: Network, held: dict[str, np.ndarray]) -> float:
    largest = 0.0
    few = {name: array[:: max(1, len(array) // 16)] for name, array in held.items()}
    for (_, one), (_, other) in zip(predictions(first, few), predictions(second, few), strict=True):
        largest = max(largest, float((one - other).abs().max()))
    return largest
