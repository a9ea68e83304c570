"""The job itself on the command line: run and plan."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Group, Parameter

from flows.session import Talk, new_run, out, talking
from pipeline.choices import CloudMaskName, Landsat, Method, Nbar, Snow
from pipeline.errors import PlanError
from pipeline.events import Event, Listener, Note

if TYPE_CHECKING:
    import pystac

    from flows.console import Display
    from pipeline.aoi import AOI
    from pipeline.duration import Rates
    from pipeline.job import Summary
    from pipeline.plan import Plan
    from pipeline.request import Request

INPUT = Group("Input", sort_key=1)
METHOD = Group("Method", sort_key=2)
MACHINE = Group("Machine", sort_key=3)


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Choices:
    """The parameters of a run, as in `pipeline.request.Request`; None takes the default of the settings."""

    year: Annotated[int | None, Parameter(group=INPUT, help="Year of the series; default: the last complete year.")] = (
        None
    )
    catalog: Annotated[
        str | None,
        Parameter(
            group=INPUT,
            help="planetary-computer (default), earth-search, usgs, cdse, dea, deafrica, a profile file, NAME@URL, "
            "NAME@items.json, or several joined by +: each role comes from the first that serves it.",
        ),
    ] = None
    store: Annotated[
        str | None,
        Parameter(group=INPUT, help="Folder or URL of this run; default: NAME-YEAR beside the AOI file."),
    ] = None
    start: Annotated[date | None, Parameter(group=INPUT, help="First day, YYYY-MM-DD, inside the year.")] = None
    end: Annotated[date | None, Parameter(group=INPUT, help="Last day, YYYY-MM-DD, inside the year.")] = None
    max_cloud: Annotated[
        float | None,
        Parameter(group=INPUT, help="Leave out items that report more cloud, in percent of the whole item."),
    ] = None
    landsat: Annotated[
        Landsat | None, Parameter(group=INPUT, help="Which Landsat is read: 8 (default), 9, or both.")
    ] = None
    snow: Annotated[
        Snow | None, Parameter(group=INPUT, help="Whether snow is ground to be seen, keep (default), or masked.")
    ] = None
    cirrus: Annotated[bool, Parameter(group=INPUT, help="Mask cirrus.")] = True
    dilated_cloud: Annotated[
        bool, Parameter(group=INPUT, help="Mask the dilated cloud of Landsat's QA_PIXEL, too: it is wide.")
    ] = False
    cloud_mask: Annotated[
        CloudMaskName | None,
        Parameter(
            group=INPUT,
            help="What tells cloud and shadow: the product's own mask (default), or omnicloudmask, a network that "
            "looks at the bands (marstfn[clouds]).",
        ),
    ] = None
    nbar: Annotated[
        Nbar | None,
        Parameter(
            group=INPUT,
            help="Bring reflectance to a view from above: auto (default) where every item tells its angles.",
        ),
    ] = None
    radiometry: Annotated[
        list[str] | None,
        Parameter(
            group=INPUT,
            negative=(),
            help="Where a catalogue is wrong: ITEM=SCALE,OFFSET, or boa-offset=-0.1 or boa-offset=0 for all "
            "Sentinel-2 items; may be given several times.",
        ),
    ] = None
    method: Annotated[
        Method | None,
        Parameter(
            group=METHOD,
            help="auto (default) is network (MARSTFN) but where a free method is ahead on this very land; "
            "the others force one.",
        ),
    ] = None
    weights: Annotated[
        list[str] | None,
        Parameter(
            group=METHOD,
            negative=(),
            help="auto (default), marstfn-pan, marstfn-nopan, or a safetensors file; "
            "may be given twice (with and without pan).",
        ),
    ] = None
    min_reference_days: Annotated[
        int | None, Parameter(group=METHOD, help="Least days between a Landsat date and its reference; default 0.")
    ] = None
    max_reference_days: Annotated[
        int | None, Parameter(group=METHOD, help="Most days between a Landsat date and its reference; default 120.")
    ] = None
    stride: Annotated[int | None, Parameter(group=METHOD, help="Step between model windows in 10 m pixels.")] = None
    bandpass: Annotated[bool, Parameter(group=METHOD, help="Bring Landsat to the Sentinel-2 band-pass.")] = True
    bandpass_file: Annotated[
        str | None,
        Parameter(
            group=METHOD,
            help="TOML file of band-pass scale and offset by platform (sentinel-2c, landsat-8, ...) and band; default: "
            "HLS for Landsat, nothing for Sentinel-2.",
        ),
    ] = None
    scene_check: Annotated[bool, Parameter(group=METHOD, help="Check each Landsat scene against clear Sentinel-2.")] = (
        True
    )
    registration: Annotated[
        bool, Parameter(group=METHOD, help="Measure each Landsat scene's shift against Sentinel-2, and correct it.")
    ] = True
    scheduler: Annotated[
        str | None,
        Parameter(group=MACHINE, help="Dask scheduler, tls://HOST:PORT; default: a cluster on this machine."),
    ] = None
    tile: Annotated[
        int | None, Parameter(group=MACHINE, help="Tile side in 10 m pixels; default by the area's size.")
    ] = None
    batch: Annotated[int | None, Parameter(group=MACHINE, help="Model windows in one pass; default 2, on a GPU 8.")] = (
        None
    )
    threads: Annotated[
        int | None, Parameter(group=MACHINE, help="Threads of the fusing worker; default: all cores.")
    ] = None
    device: Annotated[
        Literal["auto", "cpu", "cuda", "mps"] | None,
        Parameter(group=MACHINE, help="Where the network runs; default auto."),
    ] = None
    precision: Annotated[
        Literal["auto", "float32", "float16", "bfloat16"] | None,
        Parameter(
            group=MACHINE, help="In which the network computes; default auto: float32, on CUDA by a short trial."
        ),
    ] = None


def run(
    aoi: str,
    *,
    choices: Choices | None = None,
    update: Annotated[
        bool,
        Parameter(
            negative=(),
            help="Extend the series in the store by what is new in the catalogue; `marstfn plan` tells it first.",
        ),
    ] = False,
    log: Annotated[Path | None, Parameter(help="Log file; default: logs/ in the store.")] = None,
    talk: Talk | None = None,
) -> None:
    """Fuse a year over an area: search, ingest, harmonise, fuse. Run it again to go on where it stopped.

    For example:

    ```
    marstfn run my-field.geojson
    marstfn run hailar --year 2024 --store /data/hailar-2024
    marstfn run my-field.geojson --catalog earth-search --scheduler tls://10.0.0.5:8786
    marstfn run my-field.geojson --year 2026 --update
    ```

    Args:
        aoi: A GeoJSON file, an http(s) URL, inline GeoJSON, or a bundled area (hailar, dezhou).
    """
    with talking(talk) as display:
        asked = request(aoi, choices or Choices(), update=update)
        from flows.work import work

        for line in finished(work(asked, new_run(), display, log_file=log)):
            out(line)


def plan(
    aoi: str,
    *,
    choices: Choices | None = None,
    out_: Annotated[Path | None, Parameter(name="--out", help="Write the plan as JSON to this file.")] = None,
    talk: Talk | None = None,
) -> None:
    """Search the catalogue and show what `run` would do with the same options; no pixel is read, no store touched.

    For example:

    ```
    marstfn plan my-field.geojson --year 2024
    marstfn plan hailar --out plan.json
    ```

    Args:
        aoi: A GeoJSON file, an http(s) URL, inline GeoJSON, or a bundled area (hailar, dezhou).
    """
    with talking(talk) as display:
        from pipeline import planner

        asked = request(aoi, choices or Choices())
        if out_ is not None and not out_.resolve().parent.is_dir():
            raise PlanError(
                f"--out {out_}: there is no folder {out_.resolve().parent}; nothing was searched. Make it first"
            )
        area = planner.read_area(asked)
        display.say(area.line)
        made, items = planner.make_plan(asked, area=area, listener=on_catalogue(display))
        store = planner.store_url(asked, area)
        rates, full = rates_of(made, asked, display), talk is not None and talk.level > 0
        for line in described(made, store, items, rates, full=full):
            out(line)
        for line in changed(asked, area, made, items):
            out(line)
        if made.options.device == "cuda" and asked.scheduler is None:
            from pipeline import cluster
            from pipeline.errors import ClusterError

            try:
                cluster.devices("cuda")
            except ClusterError as error:
                display.say(f"[yellow]note[/] `run` would fail here: {error}", always=True)
        if out_ is not None:
            from pipeline.store import Store

            # a link is followed: its name in the folder of what it leads to would be another file
            target = out_.resolve()
            Store(str(target.parent)).write(target.name, made.model_dump_json(indent=1).encode())
            out(f"plan: {out_}")


def request(aoi: str, choices: Choices, **more: Any) -> Request:
    """The request these options make, relative paths read from the current folder; `more`: fields beside them."""
    from pipeline import request as requests

    given: dict[str, Any] = {
        "tile_px" if name == "tile" else name: getattr(choices, name) for name in choices.__dataclass_fields__
    }
    if given["weights"] is not None and len(given["weights"]) == 1:
        given["weights"] = given["weights"][0]
    return requests.make(aoi=aoi, base=Path.cwd(), **given, **more)


def finished(summary: Summary) -> list[str]:
    """What a run has made, in a few lines, the cube last."""
    dates = f"{summary.landsat_dates} Landsat dates fused, {summary.sentinel2_dates} Sentinel-2 dates observed"
    lines = [f"{dates}, {summary.tiles} tiles, {summary.seconds:.0f} s"]
    store = Path(summary.store)
    pictures = [name for name in summary.files if name.endswith(".png")]
    lines += [f"{Path(name).stem}: {store / name}" for name in pictures if "://" not in summary.store]
    return [*lines, f"cube: {summary.cube}"]


def on_catalogue(display: Listener) -> Listener:
    """What a plan hears of the catalogue is told; the rest it says itself."""

    def hear(event: Event) -> None:
        if isinstance(event, Note) and event.kind in ("catalog", "warning"):
            display(event)

    return hear


def changed(asked: Request, area: AOI, plan: Plan, items: Iterable[pystac.Item]) -> list[str]:
    """What an update of the store would bring, where it holds a series of the same request; else nothing."""
    from pipeline import growth, planner
    from pipeline.errors import StoreError
    from pipeline.job import open_job
    from pipeline.store import PLAN, Store

    store = Store(planner.store_url(asked, area))
    since = store.written(PLAN)
    if since is None:
        return []
    try:
        old = open_job(store)
    except StoreError as error:
        return [f"store:     {error}"]
    if planner.contradictory_inputs(old.plan, asked, area):
        return ["store:     it holds another series; choose another --store to run this plan"]
    differing = growth.changes(old.plan, old.items, plan, {item.id: item for item in items})
    return [f"store:     {differing.text(since)}" + ("; run --update extends the series by them" if differing else "")]


def rates_of(plan: Plan, asked: Request, display: Display) -> Rates:
    """How fast the plan will be done: by earlier runs, by a short calibration where the settings allow it."""
    from pipeline import calibration, settings

    allowed = settings.load().calibrate
    return calibration.rates(plan, asked.scheduler or "", calibrate=allowed, say=display.say)


def described(
    plan: Plan, store: str = "", items: Iterable[pystac.Item] = (), rates: Rates | None = None, *, full: bool = False
) -> list[str]:
    """A plan as text: what was asked, and what it will cost and yield; `full`: scene by scene, item by item."""
    from pipeline import bandpass
    from pipeline.outlook import outlook, particulars

    weights = ", ".join(f"{w.source} ({'with' if w.pan else 'without'} pan)" for w in plan.weights)
    lines = outlook(plan, items, rates).lines()
    lines[0] += " (simulated)" if plan.simulated else ""
    facts = {
        "area": f"{plan.aoi_source}, EPSG:{plan.grid.epsg}",
        "catalogue": plan.catalog,
        "band-pass": bandpass.told(plan),
        "method": f"{plan.options.method} on {plan.options.device}" + (f", {weights}" if weights else ""),
        "store": store,
    }
    return [lines[0], *(f"{name + ':':<11}{fact}" for name, fact in facts.items() if fact), *lines[1:],
            *(particulars(plan, items) if full else ())]  # fmt: skip
