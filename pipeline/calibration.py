"""How fast this machine is, measured in a few seconds and kept in the user's cache folder."""

from __future__ import annotations

import json
import logging
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from marstfn.predict import window
from pipeline import settings
from pipeline.duration import SHARED, Rates, assumed
from pipeline.errors import MarstfnError
from pipeline.plan import Plan, fingerprint
from pipeline.store import Store

log = logging.getLogger(__name__)

NAME = "rates.json"
FORMAT = "1"
STALE_S = 86400.0
"""Age at which a calibration is made anew: what else a machine has to do changes."""
ENOUGH_S = 1.5
"""Seconds that each measure lasts at least, after one turn that does not count."""
QUICK = ("network", "additive", "additive-linear", "linear", "copy", "bicubic")
"""Methods that show their speed in that time; the others compile or search for longer, and an earlier run tells."""
RUNS = 5
"""Earlier runs of a kind that are remembered."""


def cache_folder() -> Path:
    """Where rates are kept: the folder the settings name, else the user's cache on Linux, macOS or Windows. It need not
    exist."""
    if (chosen := settings.load().cache) is not None:
        return Path(chosen).expanduser()
    if named := os.environ.get("XDG_CACHE_HOME"):
        base = Path(named)
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    elif sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    else:
        base = Path.home() / ".cache"
    return base.expanduser() / "marstfn"


def identity(plan: Plan) -> str:
    """Of all that the rates depend on: machine, versions, weights, method, tile side, threads, batch, device."""
    options = plan.options
    where = [platform.node(), platform.machine(), platform.processor(), os.cpu_count()]
    what = [[w.sha256 for w in plan.weights], options.method, plan.has_pan, plan.grid.tile_px]
    how = [options.threads, options.batch, options.device, options.stride]
    return fingerprint([where, what, how, dict(plan.versions)])


def rates(
    plan: Plan, cluster: str = "", *, calibrate: bool = True, say: Callable[[str], None] = lambda text: None
) -> Rates:
    """What is known of this machine's speed for `plan`: kept, or measured now (`calibrate`), and what earlier runs of
    its kind on `cluster` (address of a scheduler; empty: here) came to.

    A cache that is damaged or cannot be written costs only its use.
    """
    known = kept("calibrations", identity(plan))
    found = _understood(known) if known and _fresh(known.get("taken")) else None
    if found is None and calibrate:
        say("measuring this machine (a few seconds; MARSTFN_CALIBRATE=false leaves it out)")
        distracted = busy()
        found = measured(plan)
        if distracted:  # ten times slower than a run finds it, at worst: no figure to keep for a day
            found = replace(found, source=f"{found.source} while other work held its cores; it is measured again")
        else:
            keep("calibrations", identity(plan), {**asdict(found), "taken": time.time()})
    return replace(found or assumed(plan), **_learned(plan, cluster))


def busy() -> bool:
    """Whether other work of the last minute would have had use for all processors; False where the system does not
    tell."""
    try:
        return os.getloadavg()[0] > (os.cpu_count() or 1)
    except (AttributeError, OSError):
        return False


def measured(plan: Plan) -> Rates:
    """The rates of this machine, measured now: the plan's method on made-up patches, the codec, reads from a disk."""
    return Rates(_method(plan), _packing(), _reading(plan), source="measured on this machine")


def learn(plan: Plan, cluster: str, ingest_mb_s: float | None, fuse_px_s: float | None, run: str) -> None:
    """Remember what a run came to; the same `run` twice counts once."""
    known = kept("runs", _kind(plan, cluster)) or {}
    earlier = [r for r in _listed(known.get("runs")) if isinstance(r, dict) and r.get("run") != run]
    told = {"run": run, "ingest": ingest_mb_s, "fuse": fuse_px_s}
    keep("runs", _kind(plan, cluster), {"runs": [*earlier, told][-RUNS:]})


def kept(table: str, key: str) -> dict[str, Any] | None:
    """An entry of the cache, or None where there is none that can be read."""
    entry = _cache().get(table, {}).get(key)
    return entry if isinstance(entry, dict) else None


def keep(table: str, key: str, entry: dict[str, Any]) -> None:
    """Enter into the cache; where that cannot be written nothing happens but a line in the log."""
    found = _cache()
    found.setdefault(table, {})[key] = entry
    try:
        cache_folder().mkdir(parents=True, exist_ok=True)
        Store(str(cache_folder())).write(NAME, json.dumps({"format": FORMAT, **found}, indent=1).encode())
    except (OSError, RuntimeError, MarstfnError) as error:  # RuntimeError: nobody knows where home is
        log.info("rates are not kept: %s", error)


def _cache() -> dict[str, dict[str, Any]]:
    try:
        found = json.loads((cache_folder() / NAME).read_bytes())
        if found["format"] != FORMAT:
            return {}
        return {name: found[name] for name in ("calibrations", "runs") if isinstance(found.get(name), dict)}
    except (OSError, RuntimeError, ValueError, KeyError, TypeError):
        return {}


def _fresh(taken: Any) -> bool:
    return isinstance(taken, int | float) and time.time() - taken < STALE_S


def _listed(found: Any) -> list[Any]:
    return found if isinstance(found, list) else []


def _understood(entry: dict[str, Any]) -> Rates | None:
    try:
        found = Rates(**{k: v for k, v in entry.items() if k != "taken"})
    except TypeError:
        return None
    numbers = (found.method_px_s, found.pack_mb_s, found.reads_s)
    return found if all(n is None or (isinstance(n, float | int) and n > 0) for n in numbers) else None


def _kind(plan: Plan, cluster: str) -> str:
    """Runs of one kind: of these rates, on this cluster, from this catalogue wherever it is served."""
    return fingerprint([identity(plan), cluster, "+".join(part.partition("@")[0] for part in plan.catalog.split("+"))])


def _learned(plan: Plan, cluster: str) -> dict[str, Any]:
    """Fields of Rates as earlier runs of this kind have them: the middle one of each."""
    runs = _listed((kept("runs", _kind(plan, cluster)) or {}).get("runs"))
    out: dict[str, Any] = {}
    for name, field in (("ingest", "ingest_mb_s"), ("fuse", "fuse_px_s")):
        values = [r.get(name) for r in runs if isinstance(r, dict)]
        told = sorted(v for v in values if isinstance(v, float | int) and v > 0)
        if told:
            out[field] = told[len(told) // 2]
    if out:
        out["source"] = f"as {len(runs)} earlier run(s) of this kind had it"
    return out


def _method(plan: Plan) -> float | None:
    """10 m pixels of patches a second that the plan's method makes in a run, cut and blended as there; None where it is
    slow to start, or where this machine has no such device."""
    name = "network" if plan.options.method == "auto" else plan.options.method
    if name not in QUICK:
        return None
    from pipeline.methods import methods, patch_side

    try:
        offered = methods(plan, name)
        method = offered[plan.has_pan and True in offered]
    except (MarstfnError, RuntimeError, AssertionError, KeyError):
        return None
    patch, stride = patch_side(plan), plan.options.stride
    # as many patches as fill a few batches: a batch that is half empty costs as much as a full one
    across = max(2, round((2 * plan.options.batch) ** 0.5))
    at = tuple(range(0, across * stride, stride))
    side = at[-1] + patch
    rng = np.random.default_rng(0)
    s2, landsat, pan, around = (
        rng.uniform(0, 0.5, (bands, n, n)).astype(np.float32)
        for bands, n in ((6, side), (6, side // 3), (1, side * 2 // 3), (8, side))
    )
    context = around if method.context else None

    def once() -> None:
        window(method.predict, s2, landsat, pan if method.pan else None, at, at, patch, patch - stride, context)

    try:
        alone = len(at) ** 2 * patch**2 / _seconds(once)
    except RuntimeError as error:  # torch without the device, or out of its memory
        log.info("the speed of %s was not measured: %s", name, error)
        return None
    return alone / SHARED if plan.options.device == "cpu" else alone


def _packing() -> float:
    """Megabytes of int16 a second through the codec of the cubes, on one core."""
    from numcodecs import Blosc  # type: ignore[import-untyped]

    codec = Blosc(cname="zstd", clevel=3, shuffle=Blosc.BITSHUFFLE)
    rng = np.random.default_rng(0)
    season = 1500 + 1000 * np.sin(np.arange(46) / 8)[:, None, None]
    block = (season + rng.normal(0, 40, (46, 120, 120))).astype(np.int16)
    return block.nbytes / 1e6 / _seconds(lambda: codec.encode(block), 0.3)


def _reading(plan: Plan) -> float:
    """Files of one band a second, opened, warped onto a tile and closed by as many threads as a run uses."""
    import rasterio
    from rasterio.transform import from_origin
    from rasterio.vrt import WarpedVRT
    from rasterio.windows import Window

    side = min(plan.grid.tile_px, max(plan.grid.shape(10)))
    rng = np.random.default_rng(0)
    pixels = (2000 + rng.normal(0, 60, (side + 48, side + 48))).astype(np.uint16)
    threads = settings.load().io_threads
    with tempfile.TemporaryDirectory(prefix="marstfn-") as folder:
        path = Path(folder) / "band.tif"
        shape = {"driver": "GTiff", "height": side + 48, "width": side + 48, "count": 1, "dtype": "uint16"}
        blocks = {"tiled": True, "blockxsize": 512, "blockysize": 512, "compress": "deflate"}
        place = {"crs": f"EPSG:{plan.grid.epsg}", "transform": from_origin(0, 6e6, 10, 10)}
        with rasterio.open(path, "w", **shape, **blocks, **place) as made:
            made.write(pixels, 1)

        def read(_: int) -> None:
            # half a pixel off the lattice, as Landsat lies: every read is a warp
            target = from_origin(105, 6e6 - 105, 10, 10)
            with rasterio.open(path) as file, WarpedVRT(file, transform=target, width=side, height=side) as warped:
                warped.read(1, window=Window(0, 0, side, side), out_dtype="float32")

        with ThreadPoolExecutor(threads) as pool:
            return 2 * threads / _seconds(lambda: list(pool.map(read, range(2 * threads))), 0.5)


def _seconds(work: Callable[[], object], enough: float = ENOUGH_S) -> float:
    """Seconds of one turn of `work`: the middle one of those that `enough` seconds have room for, after one more."""
    work()
    taken: list[float] = []
    while sum(taken) < enough:
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return sorted(taken)[len(taken) // 2]
