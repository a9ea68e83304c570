"""What a user asks of a training beyond the area and the year: protocol, network, budget, place of the result."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from marstfn import weights as files
from marstfn.model import Config
from marstfn.train import TrainConfig
from pipeline import request as requests
from pipeline import settings
from pipeline.errors import PlanError, WeightsError
from pipeline.request import Request

Preset = Literal["cpu", "paper", "quick"]
ProtocolChoice = Literal["auto", "reduced", "cross-sensor"]
Kind = Literal["float32", "bfloat16", "float16"]
Precision = Literal["auto"] | Kind

PATCH = {"cpu": 60, "paper": 60, "quick": 24}
"""Side of the network's window in pixels."""
PATIENCE = {"cpu": 10, "paper": 0, "quick": 0}
"""Validations without progress before a training ends early; 0: never."""
QUICK = Config(
    features=16, growth=8, layers=2, blocks=1, patch=24, anchor="additive", guide=True, centre=0.15, spread=0.15
)
"""A network that shows within a minute that all is in place; nothing more is to be expected of it."""


class Lesson(BaseModel):
    """The options of a training; what is None follows from the preset or the weights it starts from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    protocol: ProtocolChoice = "auto"
    preset: Preset = "cpu"
    weights: Annotated[str, Field(min_length=1)] | None = None
    """Weights to begin from: their network's form is then the one trained."""
    out: Annotated[str, Field(min_length=1)] | None = None
    pan: bool | None = None
    patch: Annotated[int, Field(ge=12, le=240, multiple_of=6)] | None = None
    steps: Annotated[int, Field(ge=1)] | None = None
    batch: Annotated[int, Field(ge=1, le=1024)] | None = None
    rate: Annotated[float, Field(gt=0, le=0.1)] | None = None
    seconds: Annotated[float, Field(gt=0)] | None = None
    patience: Annotated[int, Field(ge=0)] | None = None
    precision: Precision = "auto"
    near_days: Annotated[int, Field(ge=0, le=30)] = 0
    """Most days between Landsat and a Sentinel-2 truth."""
    reach: Annotated[int, Field(ge=1, le=366)] = 120
    """Most days between Landsat and a reference."""
    min_clear: Annotated[float, Field(ge=50, le=100)] = 90.0
    """Percent of a patch that must be clear, in each of its images."""
    max_samples: Annotated[int, Field(ge=1)] = 6000
    seed: Annotated[int, Field(ge=0)] = 0


@dataclass(frozen=True, slots=True)
class Course:
    """A training as asked for: what to read, what to learn from it, and the weights it begins from, if any."""

    request: Request
    lesson: Lesson
    started: files.Weights | None

    @property
    def patch(self) -> int:
        """Side of the network's window in pixels."""
        given = self.started.config.patch if self.started else PATCH[self.lesson.preset]
        return self.lesson.patch or given

    @property
    def device(self) -> str:
        """The torch device to train on."""
        if self.request.device != "auto":
            return self.request.device
        import torch

        return "cuda" if torch.cuda.is_available() else "cpu"

    def configuration(
        self, samples: Path, validation: Path, out: Path, *, pan: bool, count: int, threads: int
    ) -> TrainConfig:
        """The training run on folders of samples; `count` samples make an epoch."""
        lesson, preset = self.lesson, self.lesson.preset
        if preset == "paper":
            config = TrainConfig.paper(samples, validation, out, pan=pan, count=count)
        else:
            config = TrainConfig.cpu(samples, validation, out, pan=pan)
        if preset == "quick":
            config = replace(
                config, network=replace(QUICK, pan=pan), steps=60, warmup=10, average=0.9, precision="float32"
            )
        network = self.started.config if self.started else replace(config.network, patch=self.patch)
        names = ("steps", "batch", "rate", "seconds")
        chosen: dict[str, Any] = {name: getattr(lesson, name) for name in names if getattr(lesson, name)}
        config = replace(config, **chosen, network=network, seed=lesson.seed)
        return replace(
            config,
            patience=PATIENCE[preset] if lesson.patience is None else lesson.patience,
            # a short run still shows a curve
            validate_every=max(1, min(config.validate_every, config.steps // 4)),
            warmup=min(config.warmup, config.steps // 4),
            threads=threads,
            device=self.device,
            precision=_precision(lesson.precision, self.device, config.precision),
            start=self.started.source if self.started else None,
        )


def make(**given: Any) -> Course:
    """The training that one set of parameters (None: not given) asks for.

    Raises PlanError with one line for each that is wrong, WeightsError where `weights` cannot be begun from.
    """
    known = Lesson.model_fields
    values = {name: value for name, value in given.items() if name in known and value is not None}
    try:
        lesson = Lesson(**values)
    except ValidationError as error:
        raise PlanError(f"parameters are not usable; nothing was started: {settings.explained(error)}") from error
    rest = {name: value for name, value in given.items() if name not in known}
    # no network fuses anything here: what is planned is what must be read
    request = requests.make(method="additive", **rest)
    return Course(request, lesson, begin(lesson, request.base))


def begin(lesson: Lesson, base: Path) -> files.Weights | None:
    """The weights to start from, None for fresh ones. Raises WeightsError where they cannot be read or are of another
    form than what is asked for."""
    if lesson.weights is None:
        return None
    path = Path(lesson.weights).expanduser()
    place = lesson.weights if lesson.weights in files.SHIPPED else str(path if path.is_absolute() else base / path)
    try:
        loaded = files.load(place)
    except (ValueError, OSError) as error:
        raise WeightsError(f"{error}; nothing was started") from error
    has = loaded.config
    asked = {"pan": (lesson.pan, has.pan), "patch": (lesson.patch, has.patch)}
    wrong = [f"{name} is {own}, asked is {want}" for name, (want, own) in asked.items() if want not in (None, own)]
    if lesson.preset == "paper" and has != Config(pan=has.pan, patch=has.patch):
        wrong.append("their network is not the paper's, which the preset asks for")
    if wrong:
        raise WeightsError(
            f"the weights to start from, {lesson.weights}, are of another form: {'; '.join(wrong)}; nothing was "
            "started. Leave those options out to go on with their form, or leave --weights out to train another"
        )
    return loaded


def _precision(asked: Precision, device: str, preset: Kind) -> Kind:
    if asked != "auto":
        return asked
    if device != "cuda":
        return preset
    import torch

    return "bfloat16" if torch.cuda.is_bf16_supported() else "float16"
