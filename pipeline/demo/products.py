"""A simulated year written as the products that agencies deliver: cloud-optimised GeoTIFFs and STAC items."""

from __future__ import annotations

import importlib.metadata
import json
import logging
import multiprocessing
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path

from marstfn.simulate import Acquisition, Simulation
from pipeline.demo import collections, landsat, sentinel
from pipeline.demo.raster import File, Raster, write_json, writing
from pipeline.demo.search import Json
from pipeline.errors import PlanError, StoreError
from pipeline.grid import Grid
from pipeline.plan import fingerprint

log = logging.getLogger(__name__)

FALSE_NORTHING = 10_000_000
"""Metres between northings of UTM south (327xx) and north (326xx) of one zone."""

WHOLE, PIECE = 3840, 1920
"""A scene up to WHOLE metres is rendered at once, so that its land is kept from one pass to the next; a larger one in
windows of PIECE metres, which keeps memory small. Multiples of all pixel sizes."""

MARGIN = 240
"""Metres by which every footprint reaches beyond the area: resampling and masks look over the edge."""

SIMULATION = "simulation.json"
NOTE = "SIMULATED: no satellite has seen this; pixels, clouds and metadata come from marstfn.simulate."

Progress = Callable[[int, int, str], None]
"""Called after each acquisition with how many are done, how many there are, and the name of this one."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a simulation is looked at: its own plane, and the UTM zone in which Sentinel-2 is delivered there.

    `bounds`: left, bottom, right, top of the area in metres of the simulation's plane. Landsat counts northings
    through the equator (326xx everywhere), Sentinel-2 does not: `southing` is added to y for its products.
    """

    bounds: tuple[float, float, float, float]
    epsg: int
    sentinel_epsg: int

    @property
    def southing(self) -> int:
        return FALSE_NORTHING if self.sentinel_epsg != self.epsg else 0

    @classmethod
    def of(cls, simulation: Simulation, area: Grid | tuple[float, float, float, float]) -> Place:
        """The place of a grid, or of bounds (left, bottom, right, top) in the simulation's plane.

        Raises PlanError where the grid lies in another zone than the simulation, or the bounds are empty.
        """
        if simulation.epsg > 32700:
            raise PlanError(
                f"EPSG:{simulation.epsg} counts northings from the south, as Landsat does not; nothing was written. "
                f"Simulate over EPSG:{simulation.epsg - 100} with negative northings"
            )
        if isinstance(area, Grid):
            left, bottom, right, top = area.geobox(10).boundingbox
            if area.epsg not in (simulation.epsg, simulation.epsg + 100):
                raise PlanError(
                    f"the grid lies in EPSG:{area.epsg}, the simulation in EPSG:{simulation.epsg}; "
                    f"nothing was written. Simulate over EPSG:32{600 + area.epsg % 100}"
                )
            shift = FALSE_NORTHING if area.epsg != simulation.epsg else 0
            return cls((left, bottom - shift, right, top - shift), simulation.epsg, area.epsg)
        left, bottom, right, top = area
        if not (left < right and bottom < top):
            raise PlanError(f"bounds {area} are empty; give left, bottom, right, top in metres")
        return cls((left, bottom, right, top), simulation.epsg, simulation.epsg + 100 * (top <= 0))

    def grown(self, margin: float) -> tuple[float, float, float, float]:
        """The bounds with `margin` metres on every side."""
        left, bottom, right, top = self.bounds
        return left - margin, bottom - margin, right + margin, top + margin


@dataclass(frozen=True, slots=True)
class Written:
    """What a catalogue holds: acquisitions of each mission, items of all collections, and how many had to be made."""

    folder: Path
    landsat: int
    sentinel: int
    items: int
    made: int


def write_catalogue(
    simulation: Simulation,
    area: Grid | tuple[float, float, float, float],
    folder: str | Path,
    *,
    acquisitions: Sequence[Acquisition] | None = None,
    margin: float = MARGIN,
    processes: int = 2,
    progress: Progress | None = None,
) -> Written:
    """Write every acquisition (or those given) over `area` into `folder`, ready for `pipeline.demo.server`.

    `area`: a grid, or left, bottom, right, top in metres of the simulation's plane. What an earlier call for the same
    simulation left finished stays. Raises PlanError for an area off the simulation's zone, StoreError where the folder
    holds something else or cannot be written.
    """
    root, place = Path(folder), Place.of(simulation, area)
    chosen = simulation.acquisitions() if acquisitions is None else tuple(acquisitions)
    if not chosen:
        raise PlanError("no acquisition was chosen; nothing was written. Give at least one")
    try:
        _claim(root, _identity(simulation, place, chosen, margin))
        todo = [acq for acq in chosen if not _written(root, acq)]
        for done, acq in enumerate(_all(simulation, todo, place, margin, root, processes), len(chosen) - len(todo) + 1):
            log.debug("simulated product %s written", acq.product_id)
            if progress is not None:
                progress(done, len(chosen), acq.scene_id)
        items = [json.loads(path.read_text()) for acq in chosen for path in _item_paths(root, acq)]
        collections.finish(root, items, ident="marstfn-simulated", title="A simulated year", note=NOTE, simulated=True)
    except OSError as error:
        raise StoreError(
            f"cannot write the simulated scenes to {root}: {error}; what is whole there stays. "
            "Make room, or choose a folder you may write to"
        ) from error
    count = sum(acq.landsat for acq in chosen)
    return Written(root, count, len(chosen) - count, len(items), len(todo))


def write_acquisition(
    simulation: Simulation, acq: Acquisition, place: Place, folder: Path, margin: float = MARGIN
) -> Acquisition:
    """Write the files of one acquisition window by window, then its items; memory does not grow with the area."""
    rasters = _rasters(acq, place.grown(margin), place)
    specs = simulation.assets(acq)
    scene = _landsat_pass(acq) if acq.landsat else _sentinel_pass(acq)
    files = {
        name: File(folder / scene.href(name), rasters[s.resolution], s.dtype, s.nodata, s.scale != 1)
        for name, s in specs.items()
    }
    shift = 0 if acq.landsat else place.southing
    with writing(files) as writers:
        for piece in _pieces(rasters):
            for name, spec in specs.items():
                row, column, shape = piece[spec.resolution]
                raster = rasters[spec.resolution]
                x0, y0 = raster.left + column * spec.resolution, raster.top - row * spec.resolution - shift
                values = simulation.render(acq, name, x0, y0, shape)
                writers.put(name, row, column, values)
    for item in _items(scene, rasters, folder):
        collections.write_item(folder, item)
    return acq


def _rasters(acq: Acquisition, bounds: tuple[float, float, float, float], place: Place) -> dict[int, Raster]:
    """The raster of each resolution, on the sensor's own grid."""
    if acq.landsat:
        main = Raster.covering(place.epsg, bounds, 30, 15)
        return {30: main, 15: landsat.pan_raster(main)}
    # tiles begin at multiples of 60 m north of the equator, whose image in the south is 40 modulo 60
    fine = Raster.covering(place.epsg, bounds, 10, 0, 60)
    top = fine.top + place.southing
    rows, columns = fine.shape
    return {
        10: Raster(place.sentinel_epsg, fine.left, top, 10, (rows, columns)),
        20: Raster(place.sentinel_epsg, fine.left, top, 20, (rows // 2, columns // 2)),
    }


def _pieces(rasters: Mapping[int, Raster]) -> Iterator[dict[int, tuple[int, int, tuple[int, int]]]]:
    """Windows of a scene: (row, column, shape) by resolution, the same ground in all of them."""
    coarse = rasters[max(rasters)]
    extent = [n * coarse.resolution for n in coarse.shape]
    side = WHOLE if max(extent) <= WHOLE else PIECE
    rows, columns = (-(-length // side) for length in extent)
    for i in range(rows):
        for j in range(columns):
            yield {resolution: _piece(raster, side, i, j) for resolution, raster in rasters.items()}


def _piece(raster: Raster, side: int, i: int, j: int) -> tuple[int, int, tuple[int, int]]:
    n = side // raster.resolution
    return i * n, j * n, (min(n, raster.shape[0] - i * n), min(n, raster.shape[1] - j * n))


def _items(
    scene: landsat.LandsatPass | sentinel.SentinelPass, rasters: Mapping[int, Raster], folder: Path
) -> list[Json]:
    if isinstance(scene, sentinel.SentinelPass):
        return [sentinel.earth_search_item(scene, rasters), sentinel.planetary_item(scene, rasters)]
    write_json(folder / scene.href("mtl.json"), landsat.level2_mtl(scene, rasters[30]))
    write_json(folder / scene.href("MTL.json"), landsat.level1_mtl(scene, rasters[30]))
    return [landsat.level2_item(scene, rasters[30]), landsat.level1_item(scene, rasters[30])]


def _landsat_pass(acq: Acquisition) -> landsat.LandsatPass:
    return landsat.LandsatPass(
        acq.product_id,
        acq.level1_id,
        acq.time,
        acq.sun_elevation,
        acq.sun_azimuth,
        acq.cloud_cover,
        {"simulated": True},
    )


def _sentinel_pass(acq: Acquisition) -> sentinel.SentinelPass:
    baseline = acq.product_id.split("_")[3][1:]
    return sentinel.SentinelPass(
        acq.scene_id,
        acq.product_id,
        acq.platform,
        acq.time,
        f"{baseline[:2]}.{baseline[2:]}",
        acq.sun_elevation,
        acq.sun_azimuth,
        acq.cloud_cover,
        {"simulated": True},
    )


def _item_paths(folder: Path, acq: Acquisition) -> list[Path]:
    if acq.landsat:
        ids = {landsat.LEVEL2: acq.scene_id, landsat.LEVEL1: acq.level1_id}
    else:
        ids = {sentinel.COLLECTION1: acq.scene_id, sentinel.L2A: acq.product_id}
    return [collections.item_path(folder, collection, name) for collection, name in ids.items()]


def _written(folder: Path, acq: Acquisition) -> bool:
    # items are written after their files, and the last item last
    return all(path.is_file() for path in _item_paths(folder, acq))


def _identity(simulation: Simulation, place: Place, chosen: Sequence[Acquisition], margin: float) -> Json:
    return {
        "simulated": True,
        "seed": simulation.seed,
        "year": simulation.year,
        "epsg": simulation.epsg,
        "style": asdict(simulation.style),
        "bounds": list(place.bounds),
        "sentinel_epsg": place.sentinel_epsg,
        "margin": margin,
        "acquisitions": fingerprint([acq.product_id for acq in chosen]),
        "version": importlib.metadata.version("marstfn"),
    }


def _claim(folder: Path, identity: Json) -> None:
    """Take an empty folder, or one that the same simulation was written to."""
    target = folder / SIMULATION
    if target.is_file():
        found = json.loads(target.read_text())
        expected = json.loads(json.dumps(identity))
        if found != expected:
            differing = sorted(k for k in {*found, *expected} if found.get(k) != expected.get(k))
            raise StoreError(
                f"{folder} holds another simulation (differs in {', '.join(differing)}); nothing was changed there. "
                "Choose another folder, or remove this one"
            )
        return
    if folder.is_dir() and any(folder.iterdir()):
        raise StoreError(
            f"{folder} is not empty and holds no simulation; nothing was changed there. Choose another folder"
        )
    write_json(target, identity)


def _small() -> None:
    """Keep GDAL's block cache at 64 MB, which it would else size by the machine."""
    os.environ["GDAL_CACHEMAX"] = "64"


def _all(
    simulation: Simulation, todo: Sequence[Acquisition], place: Place, margin: float, folder: Path, processes: int
) -> Iterator[Acquisition]:
    """Write all, giving each acquisition back as it is done."""
    if processes <= 1 or len(todo) < 2:
        for acq in todo:
            yield write_acquisition(simulation, acq, place, folder, margin)
        return
    # spawned, not forked: the caller may have threads and GDAL running
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(processes, len(todo)), spawn, _small) as pool:
        futures = [pool.submit(write_acquisition, simulation, acq, place, folder, margin) for acq in todo]
        try:
            for future in as_completed(futures):
                yield future.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
