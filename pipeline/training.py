"""What there is to learn from: the inputs of a store, surveyed, dealt out to three sets, and mined."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from distributed import Client

from pipeline import job, ledger, mining, planner, split, workers
from pipeline.errors import PlanError, StoreError, TrainingError
from pipeline.events import Listener, Note, silent
from pipeline.harmonise import harmonise_fingerprint
from pipeline.ingest import ingest_fingerprint
from pipeline.job import Job
from pipeline.lesson import Course
from pipeline.mining import FOLDER, Lattice, Wanted
from pipeline.plan import Plan, fingerprint
from pipeline.split import SETS, Protocol, Rule
from pipeline.tasks import map_tiles

ENOUGH = (300, 60, 60)
"""Samples of training, validation and test from which on `auto` takes the cross-sensor protocol: fewer say too little
about 10 m where the reduced protocol has many."""
LEAST = (24, 4, 4)
"""Samples below which nothing is trained."""
FEW = 200
"""Training samples below which the result is a trial."""
FORMAT = "1"
"""Of what is mined; another one is mined anew."""


@dataclass(frozen=True, slots=True)
class Mine:
    """Samples on disk: `folder` holds one folder for each set."""

    wanted: Wanted
    folder: Path
    counts: tuple[int, int, int]
    unlike: int
    """Patches left out because Landsat and the truth showed different things."""

    @property
    def line(self) -> str:
        """In one line of text."""
        shares = ", ".join(f"{count} {name}" for count, name in zip(self.counts, SETS, strict=True))
        dropped = f" ({self.unlike} left out: Landsat and truth unlike)" if self.unlike else ""
        lattice = self.wanted.lattice
        return f"{lattice.protocol} protocol, patches of {lattice.patch} px: {shares} samples{dropped}"

    def of(self, name: str) -> Path:
        """Folder of a set."""
        return self.folder / name


def prepare(course: Course, listener: Listener = silent) -> Job:
    """The job whose inputs are learnt from: a new one, or the store's, if it reads the same.

    Raises StoreError, naming the parameters, where the store holds another plan or is no folder; PlanError where the
    network is to take a panchromatic band that the scenes have not.
    """
    area = planner.read_area(course.request)
    made = job.prepare(course.request, listener, area=area, compare=planner.contradictory_inputs)
    if made.store.local is None:
        raise StoreError(
            f"{made.store.url} is no folder, and training reads its samples as files; nothing was read. "
            "Choose a folder that all workers share (--store)"
        )
    pan_of(made.plan, course)
    return made


def pan_of(plan: Plan, course: Course) -> bool:
    """Whether the network takes the panchromatic band. Raises PlanError where it should and the scenes have none."""
    asked = course.lesson.pan
    wants = asked if asked is not None else course.started.config.pan if course.started else plan.has_pan
    if wants and not plan.has_pan:
        raise PlanError(
            f"a network with the panchromatic band was asked for, and no Landsat scene of {plan.catalog} has one; "
            "nothing was trained. Use --no-pan, start from weights without pan (marstfn-nopan), or another catalogue"
        )
    return wants


def mine(made: Job, course: Course, client: Client, listener: Listener = silent) -> Mine:
    """Survey the patches, deal them out and write the samples, as far as that is not done yet.

    Raises TrainingError, with counts and remedies, where there are too few; MarstfnError naming tiles that failed.
    """
    plan, store = made.plan, made.store
    wanted = _decided(made, course, client, listener)
    tiles = wanted.tiles(plan)
    todo = [t for t in tiles if not ledger.done(store, "mine", t.name, mining.mine_fingerprint(wanted, t))]
    where = (store.url, workers.stamped(store), wanted.basis)
    job.stage("mine", tiles, todo, listener, lambda: map_tiles(
        client, "mine", workers.mine_one, todo, where, resource=job.reading(client), listener=listener,
    ))  # fmt: skip
    records = [r for t in tiles if (r := ledger.read(store, "mine", t.name)) is not None]
    train, validation, test = (sum(r.stats["samples"][k] for r in records) for k in range(len(SETS)))
    unlike = sum(r.stats["unlike"] for r in records)
    done = Mine(wanted, Path(store.join(FOLDER)), (train, validation, test), unlike)
    if not _suffices(done.counts, LEAST):
        seen = f"{unlike} patches were left out, Landsat and truth being unlike"
        raise _too_few(plan, [(wanted.lattice.protocol, done.counts, seen)])
    listener(Note("samples", done.line, done))
    if train < FEW:
        listener(Note("warning", f"{train} training samples are few: take what comes of them for a trial"))
    return done


def _decided(made: Job, course: Course, client: Client, listener: Listener) -> Wanted:
    """What is mined: as an earlier call decided from the same inputs and options, or decided now."""
    store, lesson = made.store, course.lesson
    identity = _identity(made, course)
    kept = mining.wanted(store)
    if kept is not None and kept.identity == identity:
        return kept
    choices: tuple[Protocol, ...] = ("cross-sensor", "reduced") if lesson.protocol == "auto" else (lesson.protocol,)
    found: list[tuple[Wanted, str]] = []
    for protocol in choices:
        lattice = Lattice(course.patch, protocol)
        rule = Rule(protocol, lesson.near_days, lesson.reach, lesson.min_clear / 100, lesson.max_samples, lesson.seed)
        found.append(_surveyed(made, lattice, rule, identity, client, listener))
        if _suffices(found[-1][0].cut.counts, ENOUGH):
            break
    usable = [wanted for wanted, _ in found if _suffices(wanted.cut.counts, LEAST)]
    if not usable:
        raise _too_few(made.plan, [(w.lattice.protocol, w.cut.counts, seen) for w, seen in found])
    # the first that has enough, else the one that comes last: it serves any area
    chosen = next((w for w in usable if _suffices(w.cut.counts, ENOUGH)), usable[-1])
    if len(found) > 1:
        tried = "; ".join(f"{w.rule.protocol} {' + '.join(map(str, w.cut.counts))}" for w, _ in found)
        listener(Note("protocol", f"{chosen.rule.protocol} protocol taken (samples: {tried})"))
    for name in SETS:
        shutil.rmtree(Path(store.join(f"{FOLDER}/{name}")), ignore_errors=True)
    ledger.clear(store, "mine")
    mining.decide(store, chosen)
    return chosen


def _surveyed(
    made: Job, lattice: Lattice, rule: Rule, identity: str, client: Client, listener: Listener
) -> tuple[Wanted, str]:
    """The best cut under a protocol, and what the survey saw, in words."""
    plan, store = made.plan, made.store
    rows, cols = lattice.shape(plan)
    if not rows or not cols:
        empty = split.Cut((), (), (), (), ((), (), ()))
        return Wanted(identity, lattice, rule, empty), f"the area is smaller than a patch of {lattice.side * 10} m"
    tiles = list(plan.tiles)
    where = (store.url, workers.stamped(store), lattice)
    found = job.stage("survey", tiles, tiles, listener, lambda: map_tiles(
        client, "survey", workers.survey_one, tiles, where, resource=job.reading(client), listener=listener,
    ))  # fmt: skip
    seen = mining.sight(plan, lattice, found)
    clear = int((seen.landsat >= rule.clear).sum())
    text = (
        f"{rows} x {cols} patches of {lattice.side * 10} m, {len(seen.landsat_days)} Landsat and "
        f"{len(seen.sentinel2_days)} Sentinel-2 days; Landsat is clear in {clear} patches and days"
    )
    return Wanted(identity, lattice, rule, split.cut(seen, rule)), text


def _identity(made: Job, course: Course) -> str:
    """Hash of everything that the choice of samples follows from."""
    plan, lesson = made.plan, course.lesson
    ingested = [ingest_fingerprint(plan, t) for t in plan.tiles]
    names = ("protocol", "near_days", "reach", "min_clear", "max_samples", "seed")
    return fingerprint(
        {
            "format": FORMAT,
            "ingested": ingested,
            "harmonised": harmonise_fingerprint(plan, ingested),
            "patch": course.patch,
            **{name: getattr(lesson, name) for name in names},
        }
    )


def _suffices(counts: tuple[int, int, int], least: tuple[int, int, int]) -> bool:
    return all(has >= needs for has, needs in zip(counts, least, strict=True))


def _too_few(plan: Plan, tried: list[tuple[Protocol, tuple[int, int, int], str]]) -> TrainingError:
    found = []
    for protocol, counts, seen in tried:
        has = ", ".join(f"{count} {name}" for count, name in zip(counts, SETS, strict=True))
        found.append(f"{protocol} protocol: {has} samples ({seen})")
    needs = ", ".join(str(count) for count in LEAST)
    other = {"cross-sensor": ", or --protocol reduced", "reduced": ", or --protocol cross-sensor"}
    remedy = other[tried[0][0]] if len(tried) == 1 else ""
    return TrainingError(
        f"too few clear pairs in {plan.name} {plan.year}: at least {needs} samples are needed. {'. '.join(found)}. "
        "Nothing was trained; what was read is kept. Take a larger area, more of the year, a smaller --patch, a lower "
        f"--min-clear, more --near-days{remedy}"
    )
