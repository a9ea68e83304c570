"""What tests of all packages share: the real data, a small simulated season served over HTTP, servers and ports."""

from __future__ import annotations

import json
import os
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import zarr
from odc.geo.geom import polygon

from marstfn.simulate import Simulation
from pipeline import request
from pipeline.demo.faults import Fault
from pipeline.demo.products import write_catalogue
from pipeline.demo.server import Remote, serve
from pipeline.events import Event
from pipeline.grid import Grid
from pipeline.store import FUSED, INPUTS

SHARED = Path(os.environ.get("MARSTFN_SHARED", Path(__file__).parents[2] / "shared"))
REQUIRED = os.environ.get("MARSTFN_REQUIRE_SHARED") == "1"
"""Set where the real data must be there: a test that needs them and is skipped then fails."""
# no test waits for a measure of this machine, or leaves what it learned among the user's own
os.environ.setdefault("MARSTFN_CALIBRATE", "false")
os.environ.setdefault("MARSTFN_CACHE", tempfile.mkdtemp(prefix="marstfn-rates-"))
MUST = {
    "shared": ("MARSTFN_REQUIRE_SHARED", "the real data must be read"),
    "postgres": ("MARSTFN_REQUIRE_POSTGRES", "PostgreSQL must be there"),
    "validators": ("MARSTFN_REQUIRE_VALIDATORS", "the validators of deploy/ must be there"),
}
"""Marks whose tests fail where they are skipped, if a variable is 1."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report = yield
    for mark, (variable, why) in MUST.items():
        required = os.environ.get(variable) == "1"
        if required and report.skipped and not hasattr(report, "wasxfail") and item.get_closest_marker(mark):
            report.outcome = "failed"
            report.longrepr = f"skipped, although {why} ({variable}=1): {report.longrepr}"
    return report


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data: MARSTFN_SHARED, or ../shared beside the checkout."""
    if not (SHARED / "data").is_dir():
        reason = f"no real data at {SHARED}; set MARSTFN_SHARED"
        if REQUIRED:
            pytest.fail(reason)
        pytest.skip(reason)
    return SHARED


@dataclass(frozen=True)
class Served:
    """A simulated season as a running catalogue."""

    server: Remote
    folder: Path
    simulation: Simulation
    grid: Grid
    """120 x 120 px in 2 x 2 tiles, the lattice that `aoi` leads to."""
    aoi: Path
    """GeoJSON file."""

    @property
    def url(self) -> str:
        return self.server.url

    @property
    def catalog(self) -> str:
        """As the parameter `catalog` takes it."""
        return f"simulated@{self.url}"


SEASON = range(5, 9)
"""Months of the small season: 8 Landsat and 24 or 25 Sentinel-2 passes."""


@pytest.fixture(scope="session")
def season(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The small season, served by a process of its own for the whole session; take `catalogue` in a test."""
    folder = tmp_path_factory.mktemp("season")
    simulation = Simulation(seed=20, year=2023)
    grid = Grid(epsg=simulation.epsg, left=697_200, top=5_455_200, columns=20, rows=20, tile_px=60)
    passes = [acq for acq in simulation.acquisitions() if acq.time.month in SEASON]
    write_catalogue(simulation, grid, folder / "scenes", acquisitions=passes, processes=1)
    aoi = folder / "field.geojson"
    aoi.write_text(json.dumps(outline(grid)))
    with serve(folder / "scenes") as server:
        yield Served(server, folder / "scenes", simulation, grid, aoi)


@pytest.fixture
def catalogue(season: Served) -> Iterator[Served]:
    """The small season without faults and with an empty log."""
    season.server.faults.set()
    season.server.log.clear()
    yield season
    season.server.faults.set()


@pytest.fixture(scope="session")
def whole_year(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A whole year over a single tile, served like the season; take `year` in a test."""
    folder = tmp_path_factory.mktemp("year")
    simulation = Simulation(seed=20, year=2023)
    grid = Grid(epsg=simulation.epsg, left=697_200, top=5_455_200, columns=10, rows=10, tile_px=60)
    write_catalogue(simulation, grid, folder / "scenes", processes=2)
    aoi = folder / "field.geojson"
    aoi.write_text(json.dumps(outline(grid)))
    with serve(folder / "scenes") as server:
        yield Served(server, folder / "scenes", simulation, grid, aoi)


@pytest.fixture
def year(whole_year: Served) -> Iterator[Served]:
    """The whole year without faults and with an empty log."""
    whole_year.server.faults.set()
    whole_year.server.log.clear()
    yield whole_year
    whole_year.server.faults.set()


@pytest.fixture(scope="session")
def calm(whole_year: Served, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of a run over the whole year in which nothing went wrong."""
    store = tmp_path_factory.mktemp("calm") / "store"
    whole_run(whole_year, whole_year.catalog, store)
    return store


def whole_run(served: Served, catalog: str, store: Path) -> list[Event]:
    """All stages of a run over the area, as the command line does them, and what it told."""
    from flows import work  # brings Dask along, which most tests do without

    told: list[Event] = []
    asked = {"aoi": str(served.aoi), "year": 2023, "catalog": catalog, "store": str(store)}
    work.work(request.make(**asked, method="additive", threads=1, tile_px=60), "run", told.append)
    return told


def arrays(store: Path) -> dict[str, np.ndarray]:
    """Every array of both cubes of a store, by name."""
    found = {}
    for cube in (INPUTS, FUSED):
        for name, member in zarr.open_group(store / cube, mode="r").members(max_depth=None):
            if isinstance(member, zarr.Array):
                found[f"{cube}/{name}"] = np.asarray(member[...])
    return found


def assert_same_cubes(one: Path, other: Path) -> None:
    """Both stores hold the same arrays with the same values, and not nothing."""
    left, right = arrays(one), arrays(other)
    assert left.keys() == right.keys()
    for name in left:
        np.testing.assert_array_equal(left[name], right[name], err_msg=name)
    assert (left[f"{FUSED}/quality"] > 0).any((1, 2)).mean() > 0.9


@pytest.fixture
def server_factory() -> Iterator[Callable[..., Remote]]:
    """Start a server process for a catalogue's folder: `server_factory(folder, faults=[...])`; ended after the test."""
    with ExitStack() as stack:

        def start(folder: Path, *, faults: tuple[Fault, ...] | list[Fault] = (), **options: object) -> Remote:
            return stack.enter_context(serve(folder, faults=faults, **options))  # type: ignore[arg-type]

        yield start


@pytest.fixture
def free_port() -> int:
    """A port of 127.0.0.1 that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def outline(grid: Grid) -> dict[str, object]:
    """A GeoJSON feature a few metres inside the grid's edge, so that the grid covering it is this one."""
    box = grid.geobox(10).boundingbox
    inset = 5
    left, right, bottom, top = box.left + inset, box.right - inset, box.bottom + inset, box.top - inset
    ring = [(left, bottom), (right, bottom), (right, top), (left, top), (left, bottom)]
    geometry = polygon(ring, f"EPSG:{grid.epsg}").to_crs("EPSG:4326").json
    return {"type": "Feature", "properties": {"simulated": True}, "geometry": geometry}
