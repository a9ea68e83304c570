"""The flow that trains: as Prefect runs and shows it, one task a stage."""

# no `from __future__ import annotations` here: Prefect reads the signature's types when the flow is served

from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal

from prefect import flow
from prefect.runtime import flow_run
from pydantic import Field

from flows.commands.lessons import learnt
from flows.fuse_year import heard, watched_step
from flows.learn import learn
from flows.session import new_run
from pipeline import lesson, overrides
from pipeline import request as requests
from pipeline.choices import CloudMaskName, Landsat, Nbar, Snow
from pipeline.errors import MarstfnError


@flow(name="train-year", persist_result=False, validate_parameters=True)
def train_year(
    aoi: str | dict[str, Any],
    year: Annotated[int | None, Field(ge=requests.FIRST_YEAR, le=2100)] = None,
    catalog: Annotated[str | None, Field(min_length=1)] = None,
    store: Annotated[str | None, Field(min_length=1)] = None,
    protocol: Literal["auto", "reduced", "cross-sensor"] | None = None,
    preset: Literal["cpu", "paper", "quick"] | None = None,
    weights: Annotated[str | None, Field(min_length=1)] = None,
    out: Annotated[str | None, Field(min_length=1)] = None,
    steps: Annotated[int | None, Field(ge=1)] = None,
    batch: Annotated[int | None, Field(ge=1, le=1024)] = None,
    rate: Annotated[float | None, Field(gt=0, le=0.1)] = None,
    seconds: Annotated[float | None, Field(gt=0)] = None,
    patience: Annotated[int | None, Field(ge=0)] = None,
    pan: bool | None = None,
    patch: Annotated[int | None, Field(ge=12, le=240, multiple_of=6)] = None,
    near_days: Annotated[int | None, Field(ge=0, le=30)] = None,
    max_reference_days: Annotated[int | None, Field(ge=1, le=366)] = None,
    min_clear: Annotated[float | None, Field(ge=50, le=100)] = None,
    max_samples: Annotated[int | None, Field(ge=1)] = None,
    seed: Annotated[int | None, Field(ge=0)] = None,
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
    scheduler: Annotated[str | None, Field(pattern=r"^(tcp|tls|ws|wss|ucx)://.+")] = None,
    tile: Annotated[int | None, Field(ge=60, le=1920, multiple_of=6)] = None,
    threads: Annotated[int | None, Field(ge=0, le=1024)] = None,
    device: Literal["auto", "cpu", "cuda", "mps"] | None = None,
    precision: Literal["auto", "float32", "bfloat16", "float16"] | None = None,
    store_root: Annotated[str | None, Field(min_length=1)] = None,
    base: str | None = None,
) -> str:
    """Weights of your own: MARSTFN trained on the clear pairs of an area and a year.

    Only the area of interest must be given. Scenes are searched, read and harmonised as fuse-year does, into the same
    store; samples are cut into training, validation and test so that they share neither ground nor dates. Run again
    with the same parameters to go on where a run stopped.

    Args:
        aoi: Area of interest: a GeoJSON file, an http(s) URL, inline GeoJSON, or a bundled name (hailar, dezhou).
        year: Calendar year to learn from. Default: the last complete year.
        catalog: planetary-computer (the default; anonymous, no pan), earth-search, usgs, cdse, dea, deafrica, a profile
            file, NAME@URL, NAME@items.json, or several joined by +.
        store: Folder of the inputs. Default: NAME-YEAR beside the AOI file, the same as fuse-year takes.
        protocol: reduced, cross-sensor, or auto (the default): cross-sensor where it gives enough samples.
        preset: cpu (the default), paper (Cheng et al. 2024), or quick, which only shows that all is in place.
        weights: Weights to begin from, whose network is kept: a file, marstfn-pan or marstfn-nopan.
        out: The weights file. Default: training/weights.safetensors in the store.
        steps: Steps of training. Default: by the preset.
        batch: Patches in a step. Default: by the preset.
        rate: Learning rate. Default: 1e-3.
        seconds: Stop training after so long; the same parameters go on.
        patience: Validations without progress before training ends; 0 never. Default: by the preset.
        pan: With or without the panchromatic band. Default: with it where there is one.
        patch: Side of the network's window in pixels, a multiple of 6. Default: 60, for quick 24.
        near_days: Most days between Landsat and the Sentinel-2 that is the truth. Default: 0, the same day.
        max_reference_days: Most days between Landsat and a Sentinel-2 reference. Default: 120.
        min_clear: Percent of a patch that must be clear in every image. Default: 90.
        max_samples: Samples kept at most. Default: 6000.
        seed: Of the cut and of training. Default: 0.
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
        scheduler: Address of a Dask scheduler that reads the scenes. Default: a cluster on the worker's machine.
        tile: Tile side in 10 m pixels, a multiple of 6. Default: by the size of the area.
        threads: Threads of training. Default: all cores.
        device: Where it trains. Default: auto, a CUDA device where there is one.
        precision: Of the forward pass. Default: auto, the preset's, on a CUDA device bfloat16.
        store_root: Folder in which NAME-YEAR is made when store is empty.
        base: Folder from which relative paths are read. Default: the one the worker was started in.

    Returns:
        Path of the weights.
    """
    logger, listener = heard("train-year")
    try:
        course = lesson.make(
            aoi=aoi,
            year=year,
            catalog=catalog,
            store=store,
            store_root=store_root,
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
            scheduler=scheduler,
            tile_px=tile,
            threads=threads,
            device=device,
            base=Path(base) if base else Path.cwd(),
            protocol=protocol,
            preset=preset,
            weights=weights,
            out=out,
            steps=steps,
            batch=batch,
            rate=rate,
            seconds=seconds,
            patience=patience,
            pan=pan,
            patch=patch,
            near_days=near_days,
            reach=max_reference_days,
            min_clear=min_clear,
            max_samples=max_samples,
            seed=seed,
            precision=precision,
        )
        taught = learn(course, str(flow_run.id or new_run()), listener, step=watched_step)
    except MarstfnError as error:
        logger.error("%s: %s", type(error).__name__, error)
        raise
    for line in learnt(taught):
        logger.info(line)
    return taught.weights
