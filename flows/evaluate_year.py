"""The flow that compares methods: as Prefect runs and shows it, one task a stage."""

# no `from __future__ import annotations` here: Prefect reads the signature's types when the flow is served

from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal

from prefect import flow
from prefect.runtime import flow_run
from pydantic import Field

from flows.commands.comparisons import examined
from flows.examine import examine
from flows.fuse_year import heard, watched_step
from flows.session import new_run
from pipeline import examination
from pipeline import request as requests
from pipeline.choices import Landsat, Nbar, Snow
from pipeline.errors import MarstfnError


@flow(name="evaluate-year", persist_result=False, validate_parameters=True)
def evaluate_year(
    aoi: str | list[str],
    year: Annotated[int | None, Field(ge=requests.FIRST_YEAR, le=2100)] = None,
    catalog: Annotated[str | None, Field(min_length=1)] = None,
    store: Annotated[str | None, Field(min_length=1)] = None,
    methods: list[str] | None = None,
    against: Annotated[str | None, Field(min_length=1)] = None,
    protocol: Literal["auto", "paper", "other-day", "cross-sensor", "reduced"] | None = None,
    windows: Annotated[int | None, Field(ge=1, le=400)] = None,
    side: Annotated[int | None, Field(ge=36, le=3960, multiple_of=18)] = None,
    share: Annotated[float | None, Field(gt=0, le=1)] = None,
    printed: Literal["hailar", "dezhou"] | None = None,
    seed: Annotated[int | None, Field(ge=0)] = None,
    draws: Annotated[int | None, Field(ge=100, le=20_000)] = None,
    out: Annotated[str | None, Field(min_length=1)] = None,
    start: date | None = None,
    end: date | None = None,
    landsat: Landsat | None = None,
    snow: Snow | None = None,
    nbar: Nbar | None = None,
    radiometry: requests.Radiometry | None = None,
    scheduler: Annotated[str | None, Field(pattern=r"^(tcp|tls|ws|wss|ucx)://.+")] = None,
    tile: Annotated[int | None, Field(ge=60, le=1920, multiple_of=6)] = None,
    threads: Annotated[int | None, Field(ge=0, le=1024)] = None,
    device: Literal["auto", "cpu", "cuda", "mps"] | None = None,
    store_root: Annotated[str | None, Field(min_length=1)] = None,
    base: str | None = None,
) -> str:
    """Methods compared on the same pixels of an area and a year, or of scenes on disk: tables, figures and one page.

    Only the area of interest must be given. Scenes are searched, read and harmonised as fuse-year does, into the same
    store; the truth is Sentinel-2 of Landsat's own day, withheld from every method, or where there is none Landsat
    itself at reduced resolution.

    Args:
        aoi: Area of interest as for fuse-year, or other sources: simulated, a folder of GeoTIFFs by date, a file .npz,
            a store whose inputs are read, flanders:DATA, india:DATA, kranj:DATA.
        year: Calendar year of an area. Default: the last complete year.
        catalog: Of an area: planetary-computer (the default) or another, as for fuse-year.
        store: Folder of an area's inputs. Default: NAME-YEAR beside the AOI file, the same as fuse-year takes.
        methods: Names of methods, sets of weights, or weights files. Default: all methods there are.
        against: The method every other one is held against besides the best. Default: the first.
        protocol: Of an area cross-sensor or reduced; of a folder other-day, reduced or paper. Default: auto.
        windows: Windows drawn from an area and a year. Default: 4.
        side: Longest side of a case in its fine pixels, a multiple of 18. Default: 216, of folders 990.
        share: Of a folder's dates, the last share. Default: 1, all of them.
        printed: hailar or dezhou: the paper's tables for it stand beside. Default: by the name of a folder.
        seed: Of the draw of windows. Default: 0.
        draws: Of the bootstrap. Default: 2000.
        out: Folder of the report. Default: evaluation, in the store of an area, else in the caller's folder.
        start: First day, inside the year. Default: 1 January.
        end: Last day, inside the year. Default: 31 December.
        landsat: Of an area: which Landsat is read, 8 (the default), 9, or both.
        snow: Of an area: whether snow is kept (the default) or masked.
        nbar: Of an area: bring reflectance to a view from above. Default: auto.
        radiometry: Of an area: where a catalogue is wrong, as for fuse-year.
        scheduler: Address of a Dask scheduler that reads the scenes. Default: a cluster on the worker's machine.
        tile: Tile side in 10 m pixels, a multiple of 6. Default: by the size of the area.
        threads: Threads of networks. Default: all cores.
        device: Where networks run. Default: auto, a CUDA device where there is one.
        store_root: Folder in which NAME-YEAR is made when store is empty.
        base: Folder from which relative paths are read. Default: the one the worker was started in.

    Returns:
        Path of the report.
    """
    logger, listener = heard("evaluate-year")
    try:
        exam = examination.make(
            sources=(aoi,) if isinstance(aoi, str) else tuple(aoi),
            methods=None if methods is None else tuple(methods),
            against=against,
            protocol=protocol,
            windows=windows,
            side=side,
            share=share,
            printed=printed,
            seed=seed,
            draws=draws,
            out=out,
            threads=threads,
            device=device,
            base=Path(base) if base else Path.cwd(),
        )
        reading: dict[str, Any] = {
            "year": year,
            "catalog": catalog,
            "store": store,
            "store_root": store_root,
            "start": start,
            "end": end,
            "scheduler": scheduler,
            "tile_px": tile,
            "landsat": landsat,
            "snow": snow,
            "nbar": nbar,
            "radiometry": radiometry,
        }
        request = examination.request(exam, **reading)
        made = examine(exam, request, str(flow_run.id or new_run()), listener, step=watched_step)
    except MarstfnError as error:
        logger.error("%s: %s", type(error).__name__, error)
        raise
    for line in examined(made):
        logger.info(line)
    return made.page
