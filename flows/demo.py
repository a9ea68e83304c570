"""The main job on a simulated year, on this machine alone: scenes, catalogue, flow, cluster, score."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from odc.geo.geom import box
from rich.console import Console

from flows import console, processes, server
from flows.console import Display
from flows.processes import Process
from flows.session import activation, out
from marstfn.simulate import Simulation
from pipeline import indices, outputs, places, planner
from pipeline import request as requests
from pipeline.cube import open_cube
from pipeline.demo import products, score
from pipeline.demo.score import Row
from pipeline.demo.server import serve
from pipeline.errors import MarstfnError
from pipeline.grid import Grid
from pipeline.plan import Plan
from pipeline.store import PLAN, Store

SEED, YEAR = 20, 2023
GRID = Grid(32650, 696_000, 5_454_000, 40, 40, 120)
"""240 x 240 px near Hailar, 2 x 2 tiles."""

INSET = 5.0
"""Metres by which the outline stays inside its grid, so that rounding degrees adds no row of cells."""

TITLES = {"fusion": "fused", "bicubic": "Landsat", "copy": "S2 copied", "ceiling": "S2 perfect"}


def demo(folder: Path, display: Display) -> int:
    """Write and serve the scenes, run the flow, score and show what came of it; everything lies in `folder`."""
    folder = outputs.target(folder).resolve()
    simulation = Simulation(SEED, YEAR, GRID.epsg)
    store = Store(str(folder / f"demo-{YEAR}"))
    display.say("[bold]SIMULATED[/]: no satellite has seen these fields; scenes, clouds and truth are made up")
    with ExitStack() as stack:
        api, process = stack.enter_context(prefect_server())
        write_scenes(simulation, folder / "scenes", display)
        aoi = write_aoi(folder)
        url = stack.enter_context(catalogue(folder / "scenes", aoi, store, display))
        display.say(f"catalogue: {url} ({products.NOTE.split(':')[0].lower()})")
        server.await_answer(api, process)
        cube = run_flow(aoi, f"simulated@{url}", store, simulation, api, display)
    display.say("comparing with the truth")
    rows = score.score(store, simulation)
    score.write(store, rows)
    show(rows)
    report = Path(store.url) / "report"
    out(f"pictures: {report / 'quicklook.png'}")
    out(f"          {report / 'ndvi.png'}")
    out("next:")
    for command in next_commands(store, field(store)):
        out(f"  {command}")
    out(f"cube: {cube}")
    return 0


def write_scenes(simulation: Simulation, folder: Path, display: Display) -> None:
    """The year's scenes as files and STAC items, unless they are there."""
    with display.counting("scenes") as progress:
        written = products.write_catalogue(
            simulation,
            GRID,
            folder,
            processes=min(4, os.cpu_count() or 1),
            progress=lambda done, total, _: progress(done, total),
        )
    made = "written" if written.made else "there already"
    display.say(f"scenes: {written.landsat} Landsat 8 and {written.sentinel} Sentinel-2 passes of {YEAR} {made}")


def write_aoi(folder: Path, grid: Grid = GRID) -> Path:
    """The area of interest as GeoJSON."""
    left, bottom, right, top = grid.geobox(10).boundingbox
    outline = box(left + INSET, bottom + INSET, right - INSET, top - INSET, f"EPSG:{grid.epsg}").to_crs("EPSG:4326")
    feature = {
        "type": "Feature",
        "properties": {"name": "demo", "simulated": True},
        "geometry": json.loads(json.dumps(outline.json)),
    }
    path = folder / "demo.geojson"
    Store(str(folder)).write(path.name, json.dumps(feature, indent=1).encode())
    return path


@contextmanager
def prefect_server() -> Iterator[tuple[str, Process]]:
    """A Prefect server of the demo's own on loopback, gone with all it made at the end; gives its API's address.

    It is not awaited: it starts while the scenes are written. This process' Prefect is pointed at it, and never at
    the user's.
    """
    home = Path(tempfile.mkdtemp(prefix="marstfn-demo-"))
    token = uuid.uuid4().hex
    port = server.any_port()
    env = server.environment(port, token, home / "prefect")
    for name in [name for name in os.environ if name.startswith("PREFECT_")]:
        del os.environ[name]
    ours = {k: v for k, v in env.items() if k.startswith("PREFECT_")}
    os.environ |= ours | {"DO_NOT_TRACK": "1", "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL"}
    process = server.start(env, home / "server.log", tied=True)
    try:
        yield env["PREFECT_API_URL"], process
    finally:
        processes.stop([process], token)
        shutil.rmtree(home, ignore_errors=True)


@contextmanager
def catalogue(scenes: Path, aoi: Path, store: Store, display: Display) -> Iterator[str]:
    """Serve the scenes, at the address an earlier demo knows them by; where that cannot be gone on with, anew."""
    port, why = 0, ""
    if store.local is not None and store.local.is_dir():
        port, why = earlier_port(aoi, store)
        if why:
            display.say(f"fusing anew, for {why}")
            shutil.rmtree(store.local)
    with serve(scenes, port=port) as served:
        yield served.url


def earlier_port(aoi: Path, store: Store) -> tuple[int, str]:
    """The port of the catalogue that an earlier demo's plan names, or why this demo cannot go on with that plan."""
    try:
        plan = Plan.model_validate_json(store.read(PLAN) or b"")
        asked = requests.make(aoi=str(aoi), store=store.url, **asked_for(plan.catalog))
        differing = planner.contradictions(plan, asked, planner.read_area(asked))
    except (ValueError, MarstfnError):
        return 0, "what is there was not made by this version"
    port = urlsplit(plan.catalog.partition("@")[2]).port or 0
    if differing:
        return 0, f"the earlier demo was made otherwise ({differing[0]})"
    return (port, "") if port and server.free(port) else (0, f"port {port} of its catalogue is taken")


def asked_for(catalog: str) -> dict[str, Any]:
    """The parameters of the demo's run, besides where it reads and writes."""
    return {"year": YEAR, "catalog": catalog, "weights": "auto", "method": "network", "tile_px": GRID.tile_px}


def run_flow(aoi: Path, catalog: str, store: Store, simulation: Simulation, api: str, display: Display) -> str:
    """The flow that a Prefect worker would run, in this process."""
    # imports Prefect, which now finds the demo's own server
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    from flows.fuse_year import accompanied, fuse_year

    display.say(f"Prefect page: {api.removesuffix('/api')}")
    asked = asked_for(catalog)
    tile = asked.pop("tile_px")
    try:
        with accompanied(display, simulation.truth):
            return str(fuse_year(aoi=str(aoi), store=store.url, tile=tile, **asked))
    finally:
        # what is still on its way to the page would complain loudly once the server is gone
        APILogWorker.drain_all(timeout=5)
        EventsWorker.drain_all(timeout=5)


def show(rows: Sequence[Row]) -> None:
    """The table of scores on standard output."""
    table = []
    for row in rows:
        age = "" if row.reference_age is None else f"{row.reference} ({row.reference_age:+d} d)"
        clear = "<1" if row.scores and row.clear_percent < 0.5 else f"{row.clear_percent:.0f}"
        few = " few" if row.scores and row.scored_percent < score.ENOUGH else ""
        cells = {"Landsat date": row.date, "reference": age or "-", "clear %": clear + few}
        for name, title in TITLES.items():
            found = row.scores.get(name)
            cells[title] = f"{found.psnr:.1f} / {found.ssim:.3f}" if found else "-"
        table.append(cells)
    mean = score.means(rows)
    if mean:
        kept = sum(bool(row.scores) and row.scored_percent >= score.ENOUGH for row in rows)
        cells = {"Landsat date": "mean", "reference": f"{kept} dates", "clear %": ""}
        table.append(cells | {t: f"{mean[n].psnr:.1f} / {mean[n].ssim:.3f}" for n, t in TITLES.items()})
    title = "SIMULATED: PSNR in dB / SSIM against the exact truth"
    page = Console(width=None if Console().is_terminal else 120, highlight=False)
    page.print(console.table(title, table, right=frozenset({"clear %", *TITLES.values()})))
    enough = f"{score.ENOUGH:.0f} %"
    out("Higher is better, in both numbers.")
    out(f"scored: pixels clear to Landsat that a reference serves; few: under {enough} of all, and not in the mean")
    out("reference: the day that serves most pixels of that date; others may have another")
    out("Landsat: enlarged; S2 copied: the reference as it was")
    out("S2 perfect: Sentinel-2 without clouds on that day, with its own noise and its 20 m bands")


def field(store: Store) -> tuple[float, float]:
    """Longitude and latitude in degrees of a place inside a field of the finished cube: the first of ndvi.png."""
    cube = open_cube(store.url)
    index = indices.ndvi(cube[["red", "nir08"]]).values
    picked = places.pick(index)
    row, col = picked[0][1:] if picked else (index.shape[1] // 2, index.shape[2] // 2)
    return places.lon_lat(cube.odc.geobox, row, col)


def next_commands(store: Store, point: tuple[float, float]) -> list[str]:
    """What one may try now; `point` is the longitude and latitude of a place worth a curve."""
    lon, lat = point
    place = Path(os.path.relpath(store.url))
    folder = place.parent
    served = "http://127.0.0.1:8080"
    return [
        *activation(),
        f"marstfn verify {place}",
        f"marstfn ndvi {place} --point {lon:.5f},{lat:.5f} --plot {folder / 'ndvi-here.png'}",
        f"marstfn export {place} --out {folder / 'tiffs'} --source fused --bands red green blue",
        f"marstfn catalogue {folder / 'scenes'} --port 8080    # serves these scenes again; in another shell:",
        f"marstfn run {folder / 'demo.geojson'} --year {YEAR} --catalog simulated@{served} --store {folder / 'again'}",
        "marstfn plan hailar        # the real scenes of the last year, from the Planetary Computer",
        "marstfn up                 # a Prefect server and worker; then:",
        "prefect deployment run fuse-year --param aoi=hailar.geojson --watch",
    ]
