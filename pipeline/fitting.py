"""From mined samples to weights that say what they are: the run itself, its scores, and the file it ends in."""

from __future__ import annotations

import importlib.metadata
import json
import shlex
import time
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import torch

from marstfn import weights as files
from marstfn.model import build
from marstfn.train import Progress, TrainConfig, train
from pipeline import appraisal, cube, learning
from pipeline.appraisal import Appraisal
from pipeline.errors import StoreError, TrainingError
from pipeline.events import Listener, Note, StageDone, StageMoved, StageStarted, silent
from pipeline.job import Job
from pipeline.lesson import Course
from pipeline.plan import Plan, fingerprint
from pipeline.split import SETS
from pipeline.store import FUSED
from pipeline.training import Mine, pan_of
from pipeline.views import credit

TRAIN, VALIDATION, TEST = SETS
PAUSE = 20.0
"""Seconds between two pictures of the curve while it grows."""
FREE = ("seconds", "threads", "device", "patience", "start", "samples", "validation", "out")
"""Of a configuration what may differ between two calls that are one run."""
PROTOCOLS = {
    "reduced": "everything three times coarser by the mean of 3 x 3 pixels; the real Landsat at 30 m, in the "
    "radiometric frame of Sentinel-2, is the truth",
    "cross-sensor": "Sentinel-2 of the same or a near day is the truth at 10 m",
}
LICENCE = (
    "Copernicus Sentinel data: free, full and open under the Copernicus legal notice; Landsat: public domain, the "
    "U.S. Geological Survey asks to be credited"
)


@dataclass(frozen=True, slots=True)
class Taught:
    """What a training has made."""

    weights: str
    mine: Mine
    steps: int
    of: int
    """Steps of the budget."""
    ended: bool
    """False where the time given ran out first: the same command goes on."""
    seconds: float
    appraisal: Appraisal
    files: tuple[str, ...]
    use: str
    """The command that fuses with the weights."""


def configured(made: Job, course: Course, found: Mine) -> TrainConfig:
    """The training run that belongs to this course and these samples, in a folder of its own."""
    config = course.configuration(
        found.of(TRAIN),
        found.of(VALIDATION),
        found.folder,
        pan=pan_of(made.plan, course),
        count=found.counts[0],
        threads=course.request.threads or made.plan.options.threads,
    )
    shape = {name: value for name, value in asdict(config).items() if name not in FREE}
    start = course.started.sha256 if course.started else ""
    key = fingerprint({"config": shape, "start": start, "samples": found.wanted.basis})
    return replace(config, out=found.folder / f"run-{key[:10]}")


def fit(made: Job, course: Course, found: Mine, listener: Listener = silent) -> files.Weights:
    """Train, or go on with it, within the budget; the best weights by validation. Raises TrainingError."""
    config = configured(made, course, found)
    began = drawn = time.monotonic()
    before = _steps(config)
    listener(Note("run", str(config.out)))
    listener(StageStarted("train", config.steps, before, "steps"))

    def report(progress: Progress) -> None:
        nonlocal drawn
        listener(StageMoved("train", progress.step, progress.steps, _said(progress)))
        if time.monotonic() - drawn > PAUSE:
            drawn = time.monotonic()
            _curve(config, found, listener)

    try:
        best = train(config, report)
    except (ValueError, OSError, torch.OutOfMemoryError) as error:
        raise TrainingError(
            f"training stopped: {error}. Samples and the last checkpoint are kept in {config.out}; "
            "with a smaller --batch or --rate it is another run"
        ) from error
    listener(StageDone("train", time.monotonic() - began, _steps(config), 0))
    return best


def report(
    made: Job,
    course: Course,
    found: Mine,
    best: files.Weights,
    listener: Listener = silent,
    *,
    began: float | None = None,
) -> Taught:
    """Score the weights on the test samples, and write them with all that a user must know in their header.

    `began`: time.monotonic() at the start of the call. Raises StoreError where the file cannot be written.
    """
    config = configured(made, course, found)
    steps = _steps(config)
    scored = appraisal.appraise(best, found.of(TEST), device=config.device)
    out = _destination(made, course)
    _write(out, best, _header(made.plan, found, config, steps, scored))
    scores = config.out / "scores.json"
    scores.write_text(json.dumps(scored.as_dict(), indent=1))
    pictures = [str(p) for p in (_curve(config, found, listener),) if p is not None]
    listener(Note("scores", scored.lines[-1], [asdict(score) for score in scored.scores]))
    use = _command(made, course, out)
    listener(Note("weights", str(out), use))
    ended = steps >= config.steps or _stale(config)
    seconds = time.monotonic() - began if began is not None else 0.0
    kept = (str(scores), str(config.out / learning.TABLE), *pictures)
    return Taught(str(out), found, steps, config.steps, ended, seconds, scored, kept, use)


def _said(progress: Progress) -> str:
    ratio = f", validation {progress.ratio:.3f} of additive" if progress.ratio == progress.ratio else ""
    minutes, seconds = divmod(round(progress.left), 60)
    return f"loss {progress.loss:.5f}{ratio}, {minutes}:{seconds:02d} left"


def _curve(config: TrainConfig, found: Mine, listener: Listener) -> Path | None:
    picture = learning.draw(config.out, "Learning curve", found.line)
    if picture is not None:
        listener(Note("curve", f"learning curve, {_steps(config)} of {config.steps} steps", str(picture)))
        listener(Note("validations", "validations so far", learning.rows(config.out)))
    return picture


def _steps(config: TrainConfig) -> int:
    """Steps done, by the last checkpoint."""
    found = learning.rows(config.out)
    return min(config.steps, int(found[-1]["step"])) if found else 0


def _stale(config: TrainConfig) -> bool:
    """Whether training ended for want of progress."""
    ratios = [row["ratio"] for row in learning.rows(config.out)]
    return bool(config.patience and ratios and len(ratios) - 1 - ratios.index(min(ratios)) >= config.patience)


def _destination(made: Job, course: Course) -> Path:
    if course.lesson.out is None:
        return Path(made.store.join("training/weights.safetensors"))
    path = Path(course.lesson.out).expanduser()
    return path if path.is_absolute() else course.request.base / path


def _write(out: Path, best: files.Weights, header: dict[str, str]) -> None:
    model = build(best.config)
    model.load_state_dict(best.state)
    names = ["training", "step", "validation", "interval"]
    own = {name: best.header[name] for name in names if name in best.header}
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        files.save(out, model, {**own, **header})
    except OSError as error:
        raise StoreError(
            f"cannot write the weights to {out}: {error}; the training is kept. Name another file (--out)"
        ) from error


def _header(plan: Plan, found: Mine, config: TrainConfig, steps: int, scored: Appraisal) -> dict[str, str]:
    """What the file says of its making, besides what `marstfn.weights.save` adds."""
    rule = found.wanted.rule
    box = plan.grid.geobox(10).geographic_extent.boundingbox
    dates = f"{len(plan.of('landsat8'))} {plan.landsats} and {len(plan.of('sentinel2'))} Sentinel-2 dates"
    place = f"{plan.name} ({box.left:.4f}, {box.bottom:.4f}, {box.right:.4f}, {box.top:.4f} degrees)"
    shares = ", ".join(f"{count} {name}" for count, name in zip(found.counts, SETS, strict=True))
    metrics = {"test": scored.as_dict(), "samples": dict(zip(SETS, found.counts, strict=True))}
    return {
        "data": f"{place}, {plan.first or plan.year} to {plan.last or plan.year}, {dates} of {plan.catalog}"
        + ("; SIMULATED, no record of the ground" if plan.simulated else ""),
        "items": json.dumps([i for scene in plan.scenes for i in (*scene.items, *scene.pan_items)]),
        "credits": credit(plan),
        "licence": "of the data: none, simulated" if plan.simulated else f"of the data: {LICENCE}",
        "protocol": f"{rule.protocol}: {PROTOCOLS[rule.protocol]}; references of other days within {rule.reach} days; "
        f"{shares} samples, apart in place (a patch between) and in blocks of dates; step {steps} of {config.steps}",
        "metrics": json.dumps(metrics),
        "version": importlib.metadata.version("marstfn"),
        "commit": files.commit(),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _command(made: Job, course: Course, out: Path) -> str:
    """What fuses the area with the weights in `out`: the inputs that were read serve, unless a cube is made of them
    already, which other weights must not mix with."""
    request, store = course.request, course.request.store
    if cube.exists(made.store, FUSED):
        store = f"{made.store.url}-{out.stem}"
    area = request.aoi if isinstance(request.aoi, str) and not request.aoi.lstrip().startswith("{") else "AREA.geojson"
    words = ["marstfn", "run", area, "--year", str(request.year), "--catalog", request.catalog]
    span = {"--start": request.start, "--end": request.end, "--store": store}
    for name, value in span.items():
        words += [name, str(value)] if value is not None else []
    return shlex.join([*words, "--weights", str(out)])
