"""An evaluation: methods on the same pixels of one or several sources, and the report of it."""

from __future__ import annotations

import importlib.metadata
import itertools
import operator
import shlex
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from marstfn import contestants, situations
from marstfn import weights as weight_files
from marstfn.comparison import Case, Outcome, Whole, compare
from marstfn.contestants import SETS
from marstfn.methods import NETWORK
from pipeline import aoi as areas
from pipeline import beside, cases, job, page, planner, scoretables, settings
from pipeline import request as requests
from pipeline.errors import PlanError, WeightsError
from pipeline.events import Listener, Note, StageDone, StageMoved, StageStarted, silent
from pipeline.folder import Rules
from pipeline.job import Job
from pipeline.page import About, Findings
from pipeline.request import Request
from pipeline.yearly import Draw

Protocol = Literal["auto", "paper", "other-day", "cross-sensor", "reduced"]
"""Of a folder: paper, other-day or reduced; of an area and a year, or its store: cross-sensor or reduced."""

FOLDER = "evaluation"
"""Where a report is written when nothing else is asked for."""


class Examination(BaseModel):
    """An evaluation as asked for; what is None is decided by the source."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sources: Annotated[tuple[str, ...], Field(min_length=1)]
    """As `pipeline.cases` names them, or one area of interest."""
    methods: Annotated[tuple[str, ...], Field(min_length=1)] = contestants.DEFAULT
    """As `marstfn.contestants` names them: methods, sets of weights, weights files."""
    against: str | None = None
    """The method every other one is held against besides the best; None: the first."""
    out: str | None = None
    """Folder of the report; None: evaluation, in the store of an area, else in `base`."""
    protocol: Protocol = "auto"
    windows: Annotated[int, Field(ge=1, le=400)] = 4
    """Windows drawn from an area and a year."""
    side: Annotated[int, Field(ge=36, le=3960, multiple_of=18)] | None = None
    """Longest side of a case in its fine pixels."""
    share: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Of a folder: the last share of its dates."""
    printed: Literal["hailar", "dezhou"] | None = None
    """The data set whose tables in the paper stand beside; None: the one that the name of a folder speaks of."""
    draws: Annotated[int, Field(ge=100, le=20_000)] = 2000
    """Of the bootstrap."""
    seed: Annotated[int, Field(ge=0)] = 0
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    threads: Annotated[int, Field(ge=0, le=1024)] = 0
    base: Path = Field(default_factory=Path.cwd)

    @property
    def area(self) -> str | None:
        """The area of interest, where the source is one."""
        return self.sources[0] if len(self.sources) == 1 and is_area(self.sources[0], self.base) else None

    @property
    def draw(self) -> Draw:
        """What is drawn from an area and a year."""
        protocol = self.protocol if self.protocol in ("cross-sensor", "reduced") else "cross-sensor"
        return Draw(protocol, self.windows, self.side or Draw().side, seed=self.seed)

    @property
    def rules(self) -> Rules:
        """How a folder becomes cases."""
        protocol = self.protocol if self.protocol in ("paper", "other-day", "reduced") else self._own
        return Rules(protocol, self.side or Rules().side, self.share)

    @property
    def _own(self) -> Literal["paper", "other-day"]:
        """A folder's protocol if none is asked for: the paper's for its own data, whose truth is an input; for any
        other one that hides the truth."""
        return "paper" if self.printed or any(beside.named(s) for s in self.sources) else "other-day"

    @property
    def torch_device(self) -> str:
        """The torch device of networks."""
        if self.device != "auto":
            return self.device
        import torch

        return "cuda" if torch.cuda.is_available() else "cpu"


@dataclass(frozen=True, slots=True)
class Examined:
    """What an evaluation has made."""

    page: str
    folder: str
    words: tuple[str, ...]
    """By group, the outcome in a sentence or two."""
    cases: int
    methods: int
    seconds: float


def is_area(source: str, base: Path) -> bool:
    """Whether a source is an area of interest: GeoJSON by name, address or text, or the name of a bundled one."""
    if source.lstrip().startswith("{") or source.startswith(("http://", "https://")):
        return True
    if Path(source).suffix in (".json", ".geojson"):
        return True
    return source in areas.bundled() and not (base / source).is_dir()


def make(**given: object) -> Examination:
    """The evaluation that one set of parameters (None: not given) asks for.

    Raises PlanError with one line for each that is wrong, also for an area among other sources and for a source given
    twice, WeightsError for a method that is none or a file that holds no weights.
    """
    values = {name: value for name, value in given.items() if value is not None}
    named = [str(s).strip() for s in values.get("sources", ())]  # type: ignore[attr-defined]
    if not named or not all(named):
        raise PlanError(
            f"nothing to evaluate was named; give {cases.SIMULATED}, an area of interest, a folder of GeoTIFFs by "
            f"date, a file .npz, a store whose inputs are read, or {', '.join(f'{name}:DATA' for name in cases.SETS)}"
        )
    if "methods" in values and not all(str(m).strip() for m in values["methods"]):  # type: ignore[attr-defined]
        raise PlanError(
            "a method without a name was asked for; give names with commas between them, such as network,additive, "
            f"or leave it out for all: {', '.join(contestants.DEFAULT)}"
        )
    base = Path(str(values.get("base", Path.cwd())))
    if "sources" in values:
        values["sources"] = tuple(_absolute(str(s), base) for s in values["sources"])  # type: ignore[attr-defined]
    if "methods" in values:
        values["methods"] = tuple(_file(str(m), base) for m in values["methods"])  # type: ignore[attr-defined]
    try:
        made = Examination.model_validate(values)
    except ValidationError as error:
        raise PlanError(f"parameters are not usable; nothing was started: {settings.explained(error)}") from error
    mixed = [s for s in made.sources if is_area(s, made.base)]
    if mixed and made.area is None:
        raise PlanError(
            f"{mixed[0]} is an area of interest and is evaluated alone; give the other sources by themselves"
        )
    twice = [s for s, count in Counter(made.sources).items() if count > 1]
    if twice:
        raise PlanError(f"{twice[0]} is given twice; give every source once")
    try:
        contestants.check(made.methods)
        for name in made.methods:
            if not contestants.named(name):
                weight_files.load(name)
    except ValueError as error:
        raise WeightsError(f"{error}; nothing was started") from error
    if made.protocol != "auto":
        known = {source: _protocols(source, made.base) for source in made.sources}
        strange = [s for s, own in known.items() if own and made.protocol not in own]
        strange = strange or ([] if any(known.values()) else list(known))
        if strange:
            own = " or ".join(known[strange[0]]) or "none"
            raise PlanError(
                f"protocol {made.protocol} is not one of {_short(strange[0])} (it knows {own}); leave it out"
            )
    labels = [contestants.label(name) for name in made.methods]
    if made.against is not None and made.against not in labels:
        raise PlanError(f"{made.against} is to be held against, and takes no part; methods: {', '.join(labels)}")
    return made


def _protocols(source: str, base: Path) -> tuple[str, ...]:
    """What may be asked of a source beside its own way."""
    kind = cases.kind_of(source)
    if is_area(source, base) or kind == "store":
        return ("cross-sensor", "reduced")
    # of what is none, reading it tells
    return ("paper", "other-day", "reduced") if kind in ("folder", None) else ()


READING = ("year", "catalog", "store", "start", "end", "scheduler", "tile_px", "landsat", "snow", "nbar", "radiometry")
"""Parameters of an area alone: they say what is read for it."""


def request(exam: Examination, **given: Any) -> Request | None:
    """What must be read for an area: the inputs of a run, which no network fuses; None for other sources.

    Raises PlanError where other sources are given what only an area has.
    """
    if exam.area is None:
        strange = [name.removesuffix("_px") for name in READING if given.get(name) is not None]
        if strange:
            says = "says" if len(strange) == 1 else "say"
            raise PlanError(
                f"{', '.join(strange)} {says} what is read for an area of interest, and "
                f"{', '.join(_short(s) for s in exam.sources)} is none; nothing was started. Leave it out"
            )
        return None
    return requests.make(aoi=exam.area, method="additive", base=exam.base, **given)


def prepare(asked: Request, listener: Listener = silent) -> Job:
    """The job whose inputs are looked at: a new one, or the store's, whatever it fuses with, if it reads the same.

    Raises StoreError, naming the parameters, where the store holds other inputs.
    """
    return job.prepare(asked, listener, compare=planner.contradictory_inputs)


def contest(
    exam: Examination, listener: Listener = silent, *, store: str | None = None
) -> Iterator[tuple[Outcome, ...]]:
    """Every method on every case of the sources, or of the `store` that an area was read into: the outcomes of one case
    after another, each case read when it is its turn.

    Raises AssetError, StoreError, CubeError or PlanError where a source gives no case; some do at the first case only.
    """
    began = time.monotonic()
    sources = exam.sources if store is None else (store,)
    found = [cases.each(s, side=exam.side or situations.SIDE, rules=exam.rules, draw=exam.draw) for s in sources]
    methods = contestants.contestants(exam.methods, device=exam.torch_device, threads=exam.threads)
    return _contest(found, methods, listener, began)


def _contest(
    found: Sequence[Iterator[Case]], methods: Mapping[str, Whole], listener: Listener, began: float
) -> Iterator[tuple[Outcome, ...]]:
    most = sum(operator.length_hint(source) for source in found)
    stream = itertools.chain.from_iterable(found)
    # a source without a case says so before the stage begins
    case = next(stream, None)
    listener(StageStarted("compare", most, unit="cases"))
    number, text = 0, ""
    while case is not None:
        made = tuple(compare([case], methods))
        number, most = number + 1, max(most, number + 1)
        slowest = max(made, key=lambda o: o.seconds)
        text = f"{case.group}, {case.name}: slowest {slowest.method}, {slowest.seconds:.1f} s"
        yield made
        # images of this case must not wait in memory for those of the next
        del case, made, slowest
        listener(StageMoved("compare", number, most, text))
        case = next(stream, None)
    if number < most:
        listener(StageMoved("compare", number, number, text))
    listener(StageDone("compare", time.monotonic() - began, number, 0))


def gathered(exam: Examination, outcomes: Iterable[tuple[Outcome, ...]]) -> Findings:
    """What is left of the outcomes, case after case, once their images are gone. Raises PlanError where two cases have
    the same group and name."""
    labels = tuple(contestants.label(name) for name in exam.methods)
    findings = Findings(chosen=_chosen(exam), draws=exam.draws)
    for made in outcomes:
        if findings.holds(made[0].case):
            raise PlanError(
                f"two sources have a case {made[0].case.name} of the group {made[0].case.group}, which tables cannot "
                "tell apart; rename one of the folders or files, or evaluate them by themselves"
            )
        findings.add(made, labels)
        del made
    return findings


def report(
    exam: Examination,
    findings: Findings,
    listener: Listener = silent,
    *,
    store: str | None = None,
    began: float | None = None,
    title: str = "",
    request: Request | None = None,
) -> Examined:
    """Write the tables, the figures and the page. `began`: time.monotonic() at the start; `request`: as which an area
    was read.

    Raises StoreError where the folder cannot be written.
    """
    folder = _folder(exam, store)
    scores = findings.scoring.scores()
    about = About(
        title=title or "Comparison of fusion methods: " + ", ".join(_short(s) for s in exam.sources),
        command=command(exam, request),
        methods=descriptions(exam.methods),
        versions={name: importlib.metadata.version(name) for name in ("marstfn", "torch", "numpy", "scipy", "numba")},
        hashes=_hashes(exam.methods),
        printed=beside.of_groups(scores.groups, exam.sources, exam.printed),
        chosen=_chosen(exam),
        made=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
    )
    path = page.lay_out(folder, scores, findings, about)
    words = tuple(f"{group}: {scoretables.in_words(scores, group)}" for group in scores.groups)
    seconds = time.monotonic() - began if began is not None else 0.0
    listener(Note("report", str(path)))
    listener(Note("evaluation", "\n".join(words), (folder / "scores.md").read_text(encoding="utf-8")))
    return Examined(str(path), str(folder), words, findings.cases, len(exam.methods), seconds)


def _chosen(exam: Examination) -> str:
    return exam.against or contestants.label(exam.methods[0])


def command(exam: Examination, request: Request | None = None) -> str:
    """The line that does the same again, with the year and the catalogue of an area."""
    parts = ["marstfn", "evaluate", *exam.sources]
    if request is not None:
        parts += ["--year", str(request.year), "--catalog", request.catalog]
        parts += [w for name in ("start", "end") if (day := getattr(request, name)) for w in (f"--{name}", str(day))]
        for name in ("landsat", "snow", "nbar"):
            if getattr(request, name) != Request.model_fields[name].default:
                parts += [f"--{name}", getattr(request, name)]
        parts += [word for text in request.radiometry for word in ("--radiometry", text)]
    plain = Examination(sources=exam.sources, base=exam.base)
    if exam.methods != plain.methods:
        parts += ["--methods", ",".join(exam.methods)]
    for name in ("against", "protocol", "windows", "side", "share", "printed", "draws", "seed"):
        value = getattr(exam, name)
        if value != getattr(plain, name):
            parts += [f"--{name}", str(value)]
    return shlex.join(parts)


def descriptions(names: Sequence[str]) -> Mapping[str, str]:
    """One sentence on each method."""
    return {contestants.label(name): contestants.SENTENCES.get(name, f"the network of {name}") for name in names}


def _hashes(names: Sequence[str]) -> Mapping[str, str]:
    files = [f for name in names for f in (contestants.NETWORKS if name == NETWORK else (name,))]
    known = [f for f in files if f in SETS or Path(f).is_file()]
    return {contestants.label(f): weight_files.load(f).sha256 for f in known}


def _folder(exam: Examination, store: str | None) -> Path:
    if exam.out is not None:
        return exam.base / Path(exam.out).expanduser()
    if store is not None and "://" not in store:
        return Path(store) / FOLDER
    return exam.base / FOLDER


def _absolute(source: str, base: Path) -> str:
    """A path as it stands in the folder the command was given in; names and areas as they are."""
    if source == cases.SIMULATED or is_area(source, base) or "://" in source:
        return source
    name, colon, data = source.partition(":")
    if colon and name in cases.SETS:
        return f"{name}:{base / Path(data).expanduser()}"
    return str(base / Path(source).expanduser())


def _file(method: str, base: Path) -> str:
    """A method by its name, or the weights file as it lies in the folder the command was given in."""
    path = base / Path(method).expanduser()
    return method if contestants.named(method) or not path.is_file() else str(path)


def _short(source: str) -> str:
    name, colon, _ = source.partition(":")
    return name if colon and name in cases.SETS else Path(source).name or source
