"""One tile of a year, from the input cube to whole shards of the dense 10 m series."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from marstfn.bands import BANDS, FINE, RATIO
from marstfn.baselines import degrade
from marstfn.methods import NETWORK, Method
from marstfn.patches import fill_holes
from marstfn.predict import Predict, window
from pipeline import cube, ledger, uncertainty
from pipeline.cluster import require_gpu
from pipeline.cube import (
    CLEAR,
    FILL,
    HIDDEN,
    LAYERS,
    MASKED,
    NOTHING,
    OBSERVED,
    UPSAMPLED,
    pack,
)
from pipeline.encoding import FLAG, QUALITY
from pipeline.errors import WeightsError
from pipeline.frame import enlarged, frame_of, mirrored
from pipeline.grid import Tile
from pipeline.harmonise import Harmonisation
from pipeline.ingest import TileResult, ingest_fingerprint
from pipeline.inputs import Inputs, Reading
from pipeline.methods import methods, patch_side
from pipeline.pairing import Pair
from pipeline.plan import FORMAT, Plan, Scene, canonical, joined
from pipeline.store import FUSED, INPUTS, Store

Array = NDArray[np.float32]

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
        "methods": list(_chosen(plan, chosen)),
        "patch": patch_side(plan),
        "stride": options.stride,
        "batch": options.batch,
        "threads": options.threads,
        "device": options.device,
        "time_shard": options.time_shard,
        "pairs": [p.as_dict() for p in pairs],
        "harmonisation": harmonisation.fingerprint,
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

    `chosen`: the method of each Landsat date, by default that of the plan, for auto the network.
    `predicts`: by whether it takes pan, in place of the plan's weights or baseline, with the nearest reference.
    Raises WeightsError where the weights are not those of the plan or give anything but numbers, ClusterError on a
    Dask worker without the resource GPU.
    """
    require_gpu()
    began = time.perf_counter()
    offered = {pan: Method("network", predict) for pan, predict in (predicts or {}).items()}
    names = _chosen(plan, chosen)
    by_name = {name: offered or methods(plan, name) for name in set(names)}
    work = _Work(plan, store, tile, harmonisation, pairs, [by_name[name] for name in names])
    counts: list[list[int]] = []
    objects: list[str] = []
    with ThreadPoolExecutor(1, thread_name_prefix="ahead") as ahead:
        for block in cube.blocks(len(plan.scenes), plan.options.time_shard):
            counts += work.block(block, ahead)
    for name in LAYERS:
        objects += cube.shard_objects(plan, FUSED, name, len(plan.scenes), tile, FINE)
    start = time.perf_counter()
    checksums = ledger.checksum(store, objects)
    work.spent["check"] = time.perf_counter() - start
    seconds = time.perf_counter() - began
    timings = {k: round(v, 3) for k, v in work.spent.items()}
    record = ledger.Record(
        "fuse", tile.name, fuse_fingerprint(plan, tile, harmonisation, pairs, chosen), checksums,
        {"quality": counts, "patches": work.patches}, round(seconds, 3), timings,
    )  # fmt: skip
    ledger.write(store, record)
    return TileResult("fuse", tile.name, seconds, timings)


def _chosen(plan: Plan, chosen: Sequence[str] | None) -> Sequence[str]:
    method = NETWORK if plan.options.method == "auto" else plan.options.method
    return chosen or (method,) * len(plan.of("landsat8"))


class _Work:
    """One tile in the making: open arrays, time spent."""

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
        self._offered = {scene.items: found for scene, found in zip(plan.of("landsat8"), offered, strict=True)}
        self.frame = frame_of(plan, tile)
        self.spent = {"read": 0.0, "predict": 0.0, "write": 0.0}
        self.patches = 0
        self._reading = Reading(plan, store, self.frame.window, harmonisation, pairs)
        self._observed = {scene.items: index for index, scene in enumerate(plan.of("sentinel2"))}
        self._out = {name: cube.array(store, FUSED, name, "r+") for name in LAYERS}

    def block(self, dates: slice, ahead: ThreadPoolExecutor) -> list[list[int]]:
        """Make and store one block of dates; pixels by quality flag for each."""
        scenes = self.plan.scenes[dates]
        shape = (len(scenes), *self.tile.shape(FINE))
        out = {name: np.full(shape, FILL, np.int16) for name in LAYERS if name != "quality"}
        quality = np.zeros(shape, np.uint8)
        landsat = [k for k, scene in enumerate(scenes) if scene.sensor == "landsat8"]
        # while one date is in the network the next is read
        waiting = {k: ahead.submit(self._inputs, scenes[k]) for k in landsat[:1]}
        self._observe(scenes, out, quality)
        for k in landsat:
            scene = scenes[k]
            start = time.perf_counter()
            inputs = waiting.pop(k).result()
            self.spent["read"] += time.perf_counter() - start
            following = [j for j in landsat if j > k][:1]
            waiting.update({j: ahead.submit(self._inputs, scenes[j]) for j in following})
            start = time.perf_counter()
            self._fuse(scene, inputs, k, out, quality)
            self.spent["predict"] += time.perf_counter() - start
        start = time.perf_counter()
        made: dict[str, NDArray[Any]] = {**out, "quality": quality}
        for name, values in made.items():
            cube.write_block(self._out[name], dates, self.tile, FINE, values)
        self.spent["write"] += time.perf_counter() - start
        return [[int((day == flag).sum()) for flag in range(len(QUALITY))] for day in quality]

    def _observe(self, scenes: Sequence[Scene], out: dict[str, NDArray[np.int16]], quality: NDArray[np.uint8]) -> None:
        """Copy the Sentinel-2 dates of a block: they follow one another on their own axis, too."""
        at = [k for k, scene in enumerate(scenes) if scene.sensor == "sentinel2"]
        if not at:
            return
        start = time.perf_counter()
        first = self._observed[scenes[at[0]].items]
        where = (slice(first, first + len(at)), *self.tile.roi(FINE))
        clear = np.asarray(cube.array(self.store, INPUTS, "sentinel2/clear")[where])
        quality[at] = np.select([clear == CLEAR, clear == MASKED], [OBSERVED, HIDDEN], NOTHING)
        for band in BANDS:
            values = np.asarray(cube.array(self.store, INPUTS, f"sentinel2/{band}")[where])
            out[band][at] = np.where(clear == CLEAR, values, np.int16(FILL))
        self.spent["read"] += time.perf_counter() - start

    def _fuse(
        self, scene: Scene, inputs: Inputs, k: int, out: dict[str, NDArray[np.int16]], quality: NDArray[np.uint8]
    ) -> None:
        rows, cols = self.frame.inside
        clear = inputs.clear[rows.start // RATIO : rows.stop // RATIO, cols.start // RATIO : cols.stop // RATIO]
        fine_clear = enlarged(clear)
        quality[k][fine_clear == MASKED] = HIDDEN
        wanted = fine_clear == CLEAR
        if not wanted.any():
            return
        fused = self._predicted(scene, inputs)[:, rows, cols]
        if not np.isfinite(fused[:, wanted]).all():
            used = next((w.source for w in self.plan.weights if w.pan == (inputs.pan is not None)), "the method")
            raise WeightsError(
                f"{used} gave values that are no numbers for tile {self.tile.name}, {scene.label}; the tile is not "
                "written. The weights diverge on these inputs: use others, or --method additive"
            )
        method = self._method(scene)
        stored = pack(fused[: len(BANDS)])
        age = inputs.reference.age()[rows, cols]
        paired, flag = wanted & (age != FILL), FLAG[method.name]
        for band, name in enumerate(BANDS):
            out[name][k][wanted] = stored[band][wanted]
        quality[k][wanted] = UPSAMPLED
        quality[k][paired] = flag
        if flag != UPSAMPLED:
            out["reference_age"][k][paired] = age[paired]
        if method.interval is not None:
            half = pack(fused[len(BANDS)] * np.float32(uncertainty.scale(self.plan, method.interval)))
            out["uncertainty"][k][paired] = half[paired]
        landsat = inputs.landsat[:, rows.start // RATIO : rows.stop // RATIO, cols.start // RATIO : cols.stop // RATIO]
        with np.errstate(invalid="ignore"):
            residual = np.abs(degrade(np.where(wanted, fused[: len(BANDS)], np.nan)) - landsat).mean(0)
        out["coherence"][k] = enlarged(pack(residual))

    def _method(self, scene: Scene) -> Method:
        """The method of a Landsat date: with pan where both it and the weights for it are there."""
        offered = self._offered[scene.items]
        found = offered.get(bool(scene.pan_items) and True in offered)
        if found is None:
            raise WeightsError(
                f"{scene.label} has no panchromatic band and the plan has no weights without it; plan anew with both"
            )
        return found

    def _inputs(self, scene: Scene) -> Inputs:
        return self._reading.inputs(scene, both=self._method(scene).both, pan=True in self._offered[scene.items])

    def _predicted(self, scene: Scene, inputs: Inputs) -> Array:
        """(6, H, W) on the window, from the patches that hold a pixel to be made; (7, H, W) with uncertainty."""
        patch, method = patch_side(self.plan), self._method(scene)
        s2, landsat, pan = method.reference(inputs.reference), inputs.landsat, inputs.pan
        context = inputs.reference.context() if method.context else None
        hole = np.asarray(np.isnan(s2).any(axis=0))
        height, width = hole.shape
        rows, cols = self.frame.inside
        wanted = np.zeros(hole.shape, bool)
        wanted[rows, cols] = enlarged(inputs.clear)[rows, cols] == CLEAR
        if any(self.frame.pad):
            fine = (s2, context, hole, wanted)
            s2, context, hole, wanted = (mirrored(a, self.frame.pad, 1) for a in fine)
            landsat, pan = (mirrored(a, self.frame.pad, f) for a, f in ((landsat, 3), (pan, 1.5)))
        cuts = [(slice(r, r + patch), slice(c, c + patch)) for r in self.frame.rows for c in self.frame.cols]
        needed = np.array([wanted[cut].any() for cut in cuts])
        holes = np.stack([hole[cut] for cut in cuts])
        self.patches += int(needed.sum())

        def sparse(fine: Array, coarse: Array, sharp: Array | None, around: Array | None) -> Array:
            # a pixel of the result lies in no patch but needed ones, so the others may stay as they are
            # without a reference a pixel stays what the hole was filled with: Landsat, enlarged
            more = [] if method.interval is None else [np.zeros_like(fine[:, :1])]
            made = np.concatenate([_filled(fine, coarse) if method.holes else fine, *more], axis=1)
            some = (None if a is None else a[needed] for a in (sharp, around))
            predicted = method.predict(fine[needed], coarse[needed], *some)
            made[needed] = np.where(holes[needed, None], made[needed], predicted)
            return made

        overlap = patch - self.plan.options.stride
        made = window(
            sparse, s2, landsat, pan, self.frame.rows, self.frame.cols, patch, overlap, context, holes=method.holes
        )
        return made[:, :height, :width]


def _filled(fine: Array, coarse: Array) -> Array:
    """Patches (n,6,p,p) whose holes hold Landsat (n,6,p/3,p/3), enlarged."""
    return np.stack([fill_holes(a, b)[0] for a, b in zip(fine, coarse, strict=True)])
