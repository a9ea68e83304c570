"""One tile of a year, from the input cube to whole shards of the dense 10 m series."""

from __future__ import annotations

import os
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from marstfn.bands import BANDS, RATIO
from marstfn.baselines import degrade
from marstfn.batches import DeviceMemoryError
from marstfn.inference import VARIANT
from marstfn.methods import NETWORK, Method
from marstfn.mosaic import Patches, blended, cut
from marstfn.patches import blend
from marstfn.predict import Predict
from pipeline import cube, ledger, uncertainty
from pipeline.calls import Call, Calls
from pipeline.cluster import require_gpu
from pipeline.cube import CLEAR, FILL, HIDDEN, LAYERS, MASKED, OBSERVED, UPSAMPLED, pack
from pipeline.encoding import FLAG
from pipeline.errors import ClusterError, WeightsError
from pipeline.frame import enlarged, frame_of, mirrored
from pipeline.grid import Tile
from pipeline.harmonise import Harmonisation
from pipeline.ingest import TileResult, ingest_fingerprint
from pipeline.inputs import Reading
from pipeline.methods import methods, patch_side
from pipeline.pairing import Pair
from pipeline.plan import FORMAT, Plan, Scene, canonical, joined
from pipeline.sheets import Sheet
from pipeline.store import Store

Array = NDArray[np.float32]
T = TypeVar("T")

AHEAD = 2
"""Landsat dates prepared at once, ahead of the network."""
BEHIND = 2
"""Dates that may wait, predicted, until one of the hands is free."""

LIBRARIES = ("torch", "numpy", "scipy", "marstfn")
"""Whose versions shape the fused pixels."""


def fuse_fingerprint(
    plan: Plan, tile: Tile, harmonisation: Harmonisation, pairs: Sequence[Pair], chosen: Sequence[str] | None = None
) -> str:
    """Of everything that shapes the fused pixels of a tile, the inputs of its neighbours included."""
    seen = [ingest_fingerprint(plan, other) for other in plan.grid.under(frame_of(plan, tile).window)]
    own = {"tile": [tile.name, plan.grid.tile_px], "ingested": seen}
    return joined(_shared(plan, harmonisation, pairs, chosen) | {k: canonical(v) for k, v in own.items()})


def _shared(
    plan: Plan, harmonisation: Harmonisation, pairs: Sequence[Pair], chosen: Sequence[str] | None
) -> dict[str, str]:
    """What the tiles of a plan share, as canonical JSON; the last is kept, for thousands of tiles ask."""
    global _last
    asked = (plan, harmonisation, pairs, chosen)
    if _last is not None and all(a is b for a, b in zip(_last[0], asked, strict=True)):
        return _last[1]
    options = plan.options
    values = {
        "format": FORMAT,
        "weights": [w.sha256 for w in plan.weights],
        "inference": VARIANT,
        "methods": list(_chosen(plan, chosen)),
        "patch": patch_side(plan),
        "stride": options.stride,
        "batch": options.batch,
        # of odd sizes, a patch's place in its batch shows in the last bit
        "batches": "across dates",
        "threads": options.threads,
        "device": options.device,
        "precision": options.precision,
        "time_shard": options.time_shard,
        "pairs": [p.as_dict() for p in pairs],
        "harmonisation": harmonisation.content,
        "versions": {k: v for k, v in plan.versions.items() if k in LIBRARIES},
    }
    found = {key: canonical(value) for key, value in values.items()}
    # lists may change under the same identity
    _last = (asked, found) if not isinstance(pairs, list) and not isinstance(chosen, list) else None
    return found


_last: tuple[tuple[Any, ...], dict[str, str]] | None = None


def fuse_tile(
    plan: Plan,
    store: Store,
    tile: Tile,
    harmonisation: Harmonisation,
    pairs: Sequence[Pair],
    chosen: Sequence[str] | None = None,
    predicts: Mapping[bool, Predict] | None = None,
) -> TileResult:
    """Fuse all Landsat dates of one tile, copy all Sentinel-2 dates, store them, then enter the ledger.

    Dates are read ahead of the network and stored behind it; the timings `read`, `predict` and `write` are what the
    thread with the network spent waiting for the one, in the second and waiting for the other, `check` is the time of
    the checksums, behind. In memory are at most two blocks of dates and a few dates at work.

    `chosen`: the method of each Landsat date, by default that of the plan, for auto the network.
    `predicts`: by whether it takes pan, in place of the plan's weights or baseline, with the nearest reference.
    Raises WeightsError where the weights are not those of the plan or give anything but numbers, ClusterError on a
    Dask worker without the resource GPU or a device without memory for one patch, StoreError where there is no room or
    right to write; nothing is entered then.
    """
    require_gpu()
    began = time.perf_counter()
    offered = {pan: Method("network", predict) for pan, predict in (predicts or {}).items()}
    names = _chosen(plan, chosen)
    by_name = {name: offered or methods(plan, name) for name in set(names)}
    work = _Work(plan, store, tile, harmonisation, pairs, [by_name[name] for name in names])
    before = _passes(by_name.values())
    checksums, counts = work.run()
    seconds = time.perf_counter() - began
    timings = {k: round(v, 3) for k, v in work.spent.items()}
    stats = {"quality": counts, "patches": work.patches} | _smaller(before, _passes(by_name.values()), plan)
    record = ledger.Record(
        "fuse", tile.name, fuse_fingerprint(plan, tile, harmonisation, pairs, chosen), checksums,
        stats, round(seconds, 3), timings,
    )  # fmt: skip
    ledger.write(store, record)
    return TileResult("fuse", tile.name, seconds, timings)


def _passes(offered: Iterable[Mapping[bool, Method]]) -> Counter[int]:
    """Forward passes of the networks so far, by their number of patches."""
    networks = {id(m.predict): m.predict for found in offered for m in found.values()}
    total: Counter[int] = Counter()
    for predict in networks.values():
        total.update(getattr(predict, "passes", {}))
    return total


def _smaller(before: Counter[int], after: Counter[int], plan: Plan) -> dict[str, Any]:
    """What the record says where the device's memory did not hold the plan's batches: passes by their size, for a
    smaller batch may round otherwise in the last bit."""
    made = {str(size): count for size, count in sorted((after - before).items())}
    return {"passes": made} if any(int(size) < plan.options.batch for size in made) else {}


def _chosen(plan: Plan, chosen: Sequence[str] | None) -> Sequence[str]:
    method = NETWORK if plan.options.method == "auto" else plan.options.method
    return chosen or (method,) * len(plan.of("landsat8"))


@dataclass(slots=True, eq=False)
class _Date:
    """One Landsat date on its way through the network."""

    scene: Scene
    method: Method
    hidden: NDArray[np.bool_]
    """Of the tile, (H, W), like the next two."""
    wanted: NDArray[np.bool_]
    age: NDArray[np.int16]
    landsat: Array
    """(6, H/3, W/3)."""
    patches: Patches | None
    """None where no pixel is wanted."""
    shape: tuple[int, int]
    """Of the window the patches lie in."""
    made: list[Array] = field(default_factory=list)
    """What the network made of the patches, in their order."""

    @property
    def kind(self) -> tuple[int, bool]:
        """Dates of one kind may share a batch."""
        return id(self.method), self.patches is not None and self.patches.pan is not None

    def given(self, first: int, last: int) -> tuple[Array | None, ...]:
        """What a method is given of the patches [first, last)."""
        assert self.patches is not None
        every = (self.patches.s2, self.patches.landsat, self.patches.pan, self.patches.context)
        return tuple(None if a is None else a[first:last] for a in every)


class _Work:
    """One tile in the making. Readers prepare dates ahead of the network, hands blend, encode and store behind it; the
    thread that runs this runs the network and waits for as little as it can."""

    def __init__(
        self,
        plan: Plan,
        store: Store,
        tile: Tile,
        harmonisation: Harmonisation,
        pairs: Sequence[Pair],
        offered: Sequence[Mapping[bool, Method]],
    ) -> None:
        self.plan, self.store, self.tile = plan, store, tile
        self.frame = frame_of(plan, tile)
        self.spent = {"read": 0.0, "predict": 0.0, "write": 0.0, "check": 0.0}
        self.patches = 0
        self._offered = {scene.items: found for scene, found in zip(plan.of("landsat8"), offered, strict=True)}
        self._reading = Reading(plan, store, self.frame.window, harmonisation, pairs)
        self._observed = {scene.items: index for index, scene in enumerate(plan.of("sentinel2"))}
        self._weights = blend(patch_side(plan), patch_side(plan) - plan.options.stride)
        self._readers = ThreadPoolExecutor(AHEAD, thread_name_prefix="ahead")
        self._hands = ThreadPoolExecutor(hands(), thread_name_prefix="behind")
        self._behind: deque[Future[None]] = deque()

    def run(self) -> tuple[dict[str, str], list[list[int]]]:
        """Make and store all dates; checksums by object name, and pixels by quality flag of each date."""
        try:
            sheets = self._made()
            checksums: dict[str, str] = {}
            for sheet in sheets:
                for entry, seconds in self._stored(sheet):
                    checksums |= entry
                    self.spent["check"] += seconds
        finally:
            # nothing of this tile may be written once its task has ended: another may be making it anew by then
            for pool in (self._readers, self._hands):
                pool.shutdown(wait=True, cancel_futures=True)
        return checksums, [count for sheet in sheets for count in sheet.counts]

    def _made(self) -> list[Sheet]:
        """All blocks of dates, handed to the hands date by date."""
        sheets: list[Sheet] = []
        batches: Calls[tuple[_Date, Sheet, int]] = Calls(self.plan.options.batch)
        dates = self._dates()
        for number, block in enumerate(cube.fused_blocks(self.plan)):
            # two blocks in memory: one in the network, one on its way to the store
            self._predict(batches.rest(before=number - 1))
            if number > 1:
                self._stored(sheets[number - 2])
            sheet = Sheet(self.store, self.tile, block, number)
            sheets.append(sheet)
            for k, scene in enumerate(self.plan.scenes[block]):
                if scene.sensor == "sentinel2":
                    self._submit(self._observe, scene, sheet, k)
                    continue
                date = self._timed("read", lambda: next(dates))
                if date.patches is None:
                    self._submit(self._finish, date, sheet, k)
                    continue
                self.patches += len(date.patches)
                self._predict(batches.add((date, sheet, k), date.kind, len(date.patches), number))
        self._predict(batches.rest())
        return sheets

    def _dates(self) -> Iterator[_Date]:
        """The Landsat dates in order, prepared ahead across the borders of blocks."""
        scenes = iter(self.plan.of("landsat8"))
        waiting = deque(self._readers.submit(self._prepared, scene) for scene in islice(scenes, AHEAD))
        while waiting:
            date = waiting.popleft().result()
            waiting.extend(self._readers.submit(self._prepared, scene) for scene in islice(scenes, 1))
            yield date

    def _predict(self, calls: Sequence[Call[tuple[_Date, Sheet, int]]]) -> None:
        """Run the network; dates that are complete go to the hands."""
        for call in calls:
            parts = [share.date[0].given(share.first, share.last) for share in call]
            given = [a[0] if len(a) == 1 or a[0] is None else np.concatenate(a) for a in zip(*parts, strict=True)]
            method = call[0].date[0].method
            try:
                made = self._timed("predict", lambda m=method, g=given: m.predict(*g))  # type: ignore[misc]
            except DeviceMemoryError as error:
                label = call[0].date[0].scene.label
                raise ClusterError(f"tile {self.tile.name}, {label}: {error}; the tile is not written") from error
            low = 0
            for share in call:
                date, sheet, k = share.date
                high = low + share.last - share.first
                date.made.append(made[low:high])
                low = high
                if date.patches is not None and share.last == len(date.patches):
                    self._submit(self._finish, date, sheet, k)

    def _submit(self, function: Callable[..., None], *arguments: Any) -> None:
        """Let the hands do it, once they have not too much to do; raise what they failed in."""
        while self._behind and (len(self._behind) >= BEHIND + hands() or self._behind[0].done()):
            self._timed("write", self._behind.popleft().result)
        self._behind.append(self._hands.submit(function, *arguments))

    def _stored(self, sheet: Sheet) -> list[tuple[dict[str, str], float]]:
        """Wait until a block that has all its dates is in the store; checksums and their seconds, layer by layer."""
        while self._behind and not sheet.stored:
            self._timed("write", self._behind.popleft().result)
        return [self._timed("write", stored.result) for stored in sheet.stored]

    def _timed(self, phase: str, function: Callable[[], T]) -> T:
        start = time.perf_counter()
        try:
            return function()
        finally:
            self.spent[phase] += time.perf_counter() - start

    def _observe(self, scene: Scene, sheet: Sheet, k: int) -> None:
        """Copy a Sentinel-2 date, in its turn: the run it lies in is at hand for the Landsat dates around it."""
        day = self._observed[scene.items]
        clear = self._reading.mask(day)[self.frame.inside]
        layers = sheet.blank(k)
        layers["quality"][clear == MASKED] = HIDDEN
        seen = clear == CLEAR
        if seen.any():
            layers["quality"][seen] = OBSERVED
            for name, values in zip(BANDS, self._reading.bands(day), strict=True):
                np.copyto(layers[name], values[self.frame.inside], where=seen)
        sheet.count(k)
        self._handed(sheet)

    def _prepared(self, scene: Scene) -> _Date:
        """What the network is given of a Landsat date, and what is needed of it afterwards."""
        method, patch = self._method(scene), patch_side(self.plan)
        inputs = self._reading.inputs(scene, both=method.both, pan=True in self._offered[scene.items])
        rows, cols = self.frame.inside
        coarse = tuple(slice(s.start // RATIO, s.stop // RATIO) for s in (rows, cols))
        mask = enlarged(inputs.clear[coarse])
        wanted = mask == CLEAR
        shape = inputs.reference.days_before.shape
        # copies: the window around the tile is not needed any longer
        date = _Date(
            scene, method, mask == MASKED, wanted, inputs.reference.age()[rows, cols].copy(),
            inputs.landsat[:, *coarse].copy(), None, (shape[0] + self.frame.pad[0], shape[1] + self.frame.pad[1]),
        )  # fmt: skip
        if not wanted.any():
            return date
        s2, landsat, pan = method.reference(inputs.reference), inputs.landsat, inputs.pan
        context = inputs.reference.context() if method.context else None
        within = np.zeros(shape, bool)
        within[rows, cols] = wanted
        if any(self.frame.pad):
            s2, context, within = (mirrored(a, self.frame.pad, 1) for a in (s2, context, within))
            landsat, pan = (mirrored(a, self.frame.pad, f) for a, f in ((landsat, 3), (pan, 1.5)))
        # a pixel to be made lies in no other patches than these
        needed = [
            (r, c) for r in self.frame.rows for c in self.frame.cols if within[r : r + patch, c : c + patch].any()
        ]
        date.patches = cut(s2, landsat, pan, context, needed, patch, holes=method.holes)
        return date

    def _finish(self, date: _Date, sheet: Sheet, k: int) -> None:
        """Blend the patches of a date and enter its pixels in its block."""
        layers = sheet.blank(k)
        layers["quality"][date.hidden] = HIDDEN
        if date.patches is not None:
            self._enter(date, date.patches, layers)
        sheet.count(k)
        self._handed(sheet)

    def _enter(self, date: _Date, patches: Patches, layers: Mapping[str, NDArray[Any]]) -> None:
        rows, cols = self.frame.inside
        made = blended(date.made, patches.offsets, date.shape, self._weights, patches.hole, patches.fill)
        fused, wanted, method = made[:, rows, cols], date.wanted, date.method
        if not (np.isfinite(fused).all(axis=0) | ~wanted).all():
            used = next((w.source for w in self.plan.weights if w.pan == (patches.pan is not None)), "the method")
            raise WeightsError(
                f"{used} gave values that are no numbers for tile {self.tile.name}, {date.scene.label}; the tile is "
                "not written. The weights diverge on these inputs: use others, or --method additive"
            )
        paired, flag = wanted & (date.age != FILL), FLAG[method.name]
        for name, values in zip(BANDS, fused, strict=False):
            np.copyto(layers[name], pack(values), where=wanted)
        np.copyto(layers["quality"], np.where(paired, np.uint8(flag), np.uint8(UPSAMPLED)), where=wanted)
        if flag != UPSAMPLED:
            np.copyto(layers["reference_age"], date.age, where=paired)
        if method.interval is not None:
            half = pack(fused[len(BANDS)] * np.float32(uncertainty.scale(self.plan, method.interval)))
            np.copyto(layers["uncertainty"], half, where=paired)
        with np.errstate(invalid="ignore"):
            residual = np.abs(degrade(np.where(wanted, fused[: len(BANDS)], np.nan)) - date.landsat).mean(0)
        layers["coherence"][...] = enlarged(pack(residual))

    def _handed(self, sheet: Sheet) -> None:
        """A part of a block is made; with the last one its layers go to the store, each by itself."""
        if sheet.whole():
            sheet.stored = [self._hands.submit(sheet.write, name) for name in LAYERS]

    def _method(self, scene: Scene) -> Method:
        """The method of a Landsat date: with pan where both it and the weights for it are there."""
        offered = self._offered[scene.items]
        found = offered.get(bool(scene.pan_items) and True in offered)
        if found is None:
            raise WeightsError(
                f"{scene.label} has no panchromatic band and the plan has no weights without it; plan anew with both"
            )
        return found


def hands() -> int:
    """Threads that blend, encode and store behind the network of one tile."""
    return max(2, min(8, (os.cpu_count() or 2) // 2))
