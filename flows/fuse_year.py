"""The flow: the main job as Prefect runs and shows it, one task a stage, Dask futures inside."""

# no `from __future__ import annotations` here: Prefect reads the signature's types when the flow is served

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.runtime import flow_run
from prefect.settings import get_current_settings
from pydantic import Field

from flows import exposure, work
from flows.artifacts import Board
from flows.commands.jobs import finished
from flows.expected import keep_in_words
from flows.outliving import outlive_worker
from flows.session import new_run
from pipeline import overrides
from pipeline import request as requests
from pipeline.choices import CloudMaskName, Landsat, Method, Nbar, Snow
from pipeline.errors import MarstfnError
from pipeline.events import Event, Listener, Note, StageDone, StageStarted, TileFailed
from pipeline.views import Truth

if os.environ.get("PREFECT__FLOW_RUN_ID"):  # Prefect's engine for one run: it writes a line before it calls the flow
    outlive_worker()


@dataclass(frozen=True)
class Companion:
    """Whoever runs the flow in this very process: hears what the Prefect page hears, may know the truth."""

    listener: Listener
    truth: Truth | None = None


_companion: ContextVar[Companion | None] = ContextVar("marstfn_companion", default=None)


@contextmanager
def accompanied(listener: Listener, truth: Truth | None = None) -> Iterator[None]:
    """Within this context a flow run in this process tells `listener` too, and draws its pictures with `truth`."""
    token = _companion.set(Companion(listener, truth))
    try:
        yield
    finally:
        _companion.reset(token)


@flow(name="fuse-year", persist_result=False, validate_parameters=True)
def fuse_year(
    aoi: str | dict[str, Any],
    year: Annotated[int | None, Field(ge=requests.FIRST_YEAR, le=2100)] = None,
    catalog: Annotated[str | None, Field(min_length=1)] = None,
    store: Annotated[str | None, Field(min_length=1)] = None,
    weights: str | list[str] | None = None,
    method: Method | None = None,
    scheduler: Annotated[str | None, Field(pattern=r"^(tcp|tls|ws|wss|ucx)://.+")] = None,
    start: date | None = None,
    end: date | None = None,
    max_cloud: Annotated[float | None, Field(ge=0, le=100)] = None,
    landsat: Landsat | None = None,
    snow: Snow | None = None,
    cirrus: bool = True,
    dilated_cloud: bool = False,
    cloud_mask: CloudMaskName | None = None,
    nbar: Nbar | None = None,
    radiometry: Annotated[list[Annotated[str, Field(pattern=overrides.PATTERN)]] | None, Field(max_length=1000)] = None,
    min_reference_days: Annotated[int | None, Field(ge=0, le=366)] = None,
    max_reference_days: Annotated[int | None, Field(ge=0, le=366)] = None,
    bandpass: bool = True,
    bandpass_file: Annotated[str | None, Field(min_length=1)] = None,
    scene_check: bool = True,
    registration: bool = True,
    tile: Annotated[int | None, Field(ge=60, le=1920, multiple_of=6)] = None,
    stride: Annotated[int | None, Field(ge=6, le=480, multiple_of=6)] = None,
    batch: Annotated[int | None, Field(ge=1, le=1024)] = None,
    threads: Annotated[int | None, Field(ge=0, le=1024)] = None,
    device: Literal["auto", "cpu", "cuda", "mps"] | None = None,
    precision: Literal["auto", "float32", "float16", "bfloat16"] | None = None,
    update: bool = False,
    store_root: Annotated[str | None, Field(min_length=1)] = None,
    base: str | None = None,
) -> str:
    """A dense 10 m annual reflectance series from Landsat 8 and Sentinel-2, fused with MARSTFN.

    Only the area of interest must be given. What is left empty comes from the worker's MARSTFN_... variables or its
    configuration file, else from the defaults named here. Run again with the same parameters to go on where a run
    stopped.

    Args:
        aoi: Area of interest: a GeoJSON file, an http(s) URL, inline GeoJSON, or a bundled name (hailar, dezhou).
        year: Calendar year of the series. Default: the last complete year.
        catalog: planetary-computer (the default; anonymous, no pan), earth-search, usgs, cdse, dea, deafrica, a profile
            file, NAME@URL, NAME@items.json, or several joined by +.
        store: Folder or object-store URL of this run. Default: NAME-YEAR beside the AOI file.
        weights: auto (the default), marstfn-pan, marstfn-nopan, or one or two safetensors files.
        method: auto (the default) is network, MARSTFN, except in seasons in which a free method is ahead on this very
            land; the others force one.
        scheduler: Address of a running Dask scheduler, tls://HOST:PORT. Default: a cluster on the worker's machine.
        start: First day, inside the year. Default: 1 January.
        end: Last day, inside the year. Default: 31 December.
        max_cloud: Leave out items that report more cloud, in percent of the whole item. Default: 100.
        landsat: Which Landsat is read: 8 (the default), 9, or both.
        snow: Whether snow is ground to be seen, keep (the default), or masked.
        cirrus: Mask cirrus.
        dilated_cloud: Mask the dilated cloud of Landsat's QA_PIXEL, too: it is wide.
        cloud_mask: What tells cloud and shadow: the product's own mask (the default), or omnicloudmask, a network that
            looks at the bands (marstfn[clouds] must be installed on the workers).
        nbar: Bring reflectance to a view from above. Default: auto, where every item tells its angles.
        radiometry: Where a catalogue is wrong: ITEM=SCALE,OFFSET, or boa-offset=-0.1 or boa-offset=0 for all
            Sentinel-2 items.
        min_reference_days: Least days between a Landsat date and its Sentinel-2 reference. Default: 0, the same day.
        max_reference_days: Most days between a Landsat date and its Sentinel-2 reference. Default: 120.
        bandpass: Bring Landsat to the Sentinel-2 MSI band-pass.
        bandpass_file: TOML file of scale and offset by platform and band that take the place of the default: HLS for
            Landsat, nothing for Sentinel-2.
        scene_check: Check each Landsat scene against clear Sentinel-2, and correct it within stated bounds.
        registration: Measure each Landsat scene's shift against Sentinel-2; correct it, or mask a scene far off.
        tile: Tile side in 10 m pixels, a multiple of 6. Default: by the size of the area.
        stride: Step between model windows in 10 m pixels, a multiple of 6. Default: four fifths of the window.
        batch: Model windows in one forward pass. Default: 2 on a processor, 8 on a GPU.
        threads: Threads of the fusing worker. Default: all cores.
        device: Where the network runs. Default: auto, a CUDA device where there is one.
        precision: In which the network computes. Default: auto, on CUDA what a short trial shows to be the fastest that
            is exact enough, else float32.
        update: Extend the series in the store by the scenes that have come into the catalogue since its plan; only they
            are read.
        store_root: Folder or URL in which NAME-YEAR is made when store is empty.
        base: Folder from which relative paths are read. Default: the one the worker was started in.

    Returns:
        Path or URL of the finished cube.
    """
    logger, shown = heard("fuse-year")
    companion = _companion.get()

    def listener(event: Event) -> None:
        shown(event)
        if companion is not None:
            companion.listener(event)

    try:
        request = requests.make(
            aoi=aoi,
            year=year,
            catalog=catalog,
            store=store,
            store_root=store_root,
            weights=weights,
            method=method,
            scheduler=scheduler,
            tile_px=tile,
            start=start,
            end=end,
            max_cloud=max_cloud,
            landsat=landsat,
            snow=snow,
            cirrus=cirrus,
            dilated_cloud=dilated_cloud,
            cloud_mask=cloud_mask,
            nbar=nbar,
            radiometry=radiometry,
            min_reference_days=min_reference_days,
            max_reference_days=max_reference_days,
            stride=stride,
            batch=batch,
            threads=threads,
            device=device,
            precision=precision,
            bandpass=bandpass,
            bandpass_file=bandpass_file,
            scene_check=scene_check,
            registration=registration,
            update=update,
            base=Path(base) if base else Path.cwd(),
        )
        truth = companion.truth if companion else None
        done = work.work(request, str(flow_run.id or new_run()), listener, step=watched_step, truth=truth)
    except MarstfnError as error:
        logger.error("%s: %s", type(error).__name__, error)
        raise
    for line in finished(done):
        logger.info(line)
    return done.cube


def heard(flow: str) -> tuple[logging.Logger | logging.LoggerAdapter[Any], Listener]:
    """The logger of the flow run this is called in, and a listener that tells its log and the Prefect page."""
    logger = get_run_logger()
    keep_in_words()
    outlive_worker()
    api = get_current_settings().api
    exposure.allowed_api(api.url, bool(api.auth_string or api.key))
    logging.getLogger("distributed").setLevel(logging.WARNING)  # its comings and goings are on the dashboard
    board = Board(flow)

    def listener(event: Event) -> None:
        tell(logger, event)
        board(event)

    return logger, listener


def tell(logger: logging.Logger | logging.LoggerAdapter[Any], event: Event) -> None:
    """What a reader of the run's log on the Prefect page wants to know."""
    match event:
        case StageStarted():
            logger.info("%s: %d %s, %d of them done before", event.stage, event.total, event.unit, event.skipped)
        case TileFailed():
            logger.error("%s: tile %s failed: %s", event.stage, event.tile, event.error)
        case StageDone():
            logger.info("%s: %d done, %d failed, %.0f s", event.stage, event.done, event.failed, event.seconds)
        case Note(kind="warning"):
            logger.warning(event.text)
        case Note(kind="dashboard" | "store" | "log" | "run"):
            logger.info("%s: %s", event.kind, event.text)
        case Note(
            kind="area"
            | "plan"
            | "update"
            | "catalog"
            | "pairs"
            | "gate"
            | "protocol"
            | "retries"
            | "samples"
            | "scores"
        ):
            logger.info(event.text)


def watched_step(name: str, stage: Callable[[], Any]) -> Any:
    """One stage as one Prefect task; its result stays in memory, for resuming is the ledger's work."""
    watched = task(name=name, task_run_name=name, cache_policy=NO_CACHE, persist_result=False, retries=0)(stage)
    return watched()
