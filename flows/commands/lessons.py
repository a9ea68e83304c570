"""Training on the command line."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Group, Parameter

from flows.commands.jobs import INPUT, MACHINE
from flows.session import Talk, new_run, out, talking
from pipeline.choices import CloudMaskName, Landsat, Nbar, Snow

if TYPE_CHECKING:
    from pipeline.fitting import Taught

SAMPLES = Group("Samples", sort_key=2)
BUDGET = Group("Training", sort_key=2)


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Lessons:
    """The parameters of a training, as in `pipeline.lesson.Lesson` and `pipeline.request.Request`."""

    year: Annotated[int | None, Parameter(group=INPUT, help="Year to learn from; default: the last complete year.")] = (
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
        Parameter(
            group=INPUT,
            help="Folder of the inputs; default: NAME-YEAR beside the AOI file, the same as `marstfn run` takes, so "
            "that nothing is read twice.",
        ),
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
    protocol: Annotated[
        Literal["auto", "reduced", "cross-sensor"] | None,
        Parameter(
            group=SAMPLES,
            help="reduced: everything three times coarser, the real 30 m Landsat is the truth; any area. "
            "cross-sensor: Sentinel-2 of the same day is the truth. auto (default): cross-sensor from 300 training, "
            "60 validation and 60 test samples on, else reduced.",
        ),
    ] = None
    near_days: Annotated[
        int | None,
        Parameter(group=SAMPLES, help="Most days between Landsat and the Sentinel-2 that is the truth; default 0."),
    ] = None
    max_reference_days: Annotated[
        int | None, Parameter(group=SAMPLES, help="Most days between Landsat and a Sentinel-2 reference; default 120.")
    ] = None
    min_clear: Annotated[
        float | None, Parameter(group=SAMPLES, help="Percent of a patch that must be clear in every image; default 90.")
    ] = None
    patch: Annotated[
        int | None, Parameter(group=SAMPLES, help="Side of the network's window in pixels; default 60, for quick 24.")
    ] = None
    max_samples: Annotated[int | None, Parameter(group=SAMPLES, help="Samples kept at most; default 6000.")] = None
    preset: Annotated[
        Literal["cpu", "paper", "quick"] | None,
        Parameter(
            group=BUDGET,
            help="cpu (default): a network that one core trains in about an hour, 6000 steps of 4 patches. paper: "
            "Cheng et al. 2024, Adam 1e-3, batch 64, 100 epochs. quick: a tiny one, 60 steps, to try it all out.",
        ),
    ] = None
    weights: Annotated[
        str | None,
        Parameter(
            group=BUDGET, help="Weights to begin from, whose network is kept: a file, marstfn-pan or marstfn-nopan."
        ),
    ] = None
    pan: Annotated[
        bool | None, Parameter(group=BUDGET, help="With or without the panchromatic band; default: if there is one.")
    ] = None
    steps: Annotated[int | None, Parameter(group=BUDGET, help="Steps of training; default by the preset.")] = None
    batch: Annotated[int | None, Parameter(group=BUDGET, help="Patches in a step; default by the preset.")] = None
    rate: Annotated[float | None, Parameter(group=BUDGET, help="Learning rate; default 1e-3.")] = None
    seconds: Annotated[
        float | None, Parameter(group=BUDGET, help="Stop training after so long; the same command goes on.")
    ] = None
    patience: Annotated[
        int | None,
        Parameter(group=BUDGET, help="Validations without progress before it ends; default 10, for paper and quick 0."),
    ] = None
    seed: Annotated[int | None, Parameter(group=BUDGET, help="Of the cut and of training; default 0.")] = None
    scheduler: Annotated[
        str | None,
        Parameter(group=MACHINE, help="Dask scheduler that reads the scenes, tls://HOST:PORT; training runs here."),
    ] = None
    tile: Annotated[
        int | None, Parameter(group=MACHINE, help="Tile side in 10 m pixels; default by the area's size.")
    ] = None
    threads: Annotated[int | None, Parameter(group=MACHINE, help="Threads of training; default: all cores.")] = None
    device: Annotated[
        Literal["auto", "cpu", "cuda", "mps"] | None,
        Parameter(group=MACHINE, help="Where it trains; default auto, a CUDA device where there is one."),
    ] = None
    precision: Annotated[
        Literal["auto", "float32", "bfloat16", "float16"] | None,
        Parameter(group=MACHINE, help="Of the forward pass; default auto: the preset's, on a CUDA device bfloat16."),
    ] = None


def train(
    aoi: str,
    *,
    lessons: Lessons | None = None,
    out_: Annotated[
        Path | None, Parameter(name="--out", help="The weights file; default: training/weights.safetensors in --store.")
    ] = None,
    log: Annotated[Path | None, Parameter(help="Log file; default: logs/ in the store.")] = None,
    talk: Talk | None = None,
) -> None:
    """Train the network on an area and a year: search, ingest, harmonise, mine samples, train, score.

    The samples are cut into training, validation and test so that they share neither ground nor dates. At the end the
    weights stand beside the methods that need no training, on the test samples: believe that table. Run the command
    again to go on where it stopped.

    For example:

    ```
    marstfn train my-fields.geojson --year 2024 --preset quick
    marstfn train my-fields.geojson --year 2024 --steps 4000 --out mine.safetensors
    marstfn train hailar --year 2024 --preset paper --device cuda --seconds 3600
    marstfn run my-fields.geojson --year 2024 --weights mine.safetensors
    ```

    Args:
        aoi: A GeoJSON file, an http(s) URL, inline GeoJSON, or a bundled area (hailar, dezhou).
    """
    with talking(talk) as display:
        from flows.learn import learn
        from pipeline import lesson

        chosen = lessons or Lessons()
        given = {name: getattr(chosen, name) for name in chosen.__dataclass_fields__}
        given |= {"tile_px": given.pop("tile"), "reach": given.pop("max_reference_days")}
        course = lesson.make(aoi=aoi, base=Path.cwd(), out=None if out_ is None else str(out_), **given)
        for line in learnt(learn(course, new_run(), display, log_file=log)):
            out(line)


def learnt(taught: Taught) -> list[str]:
    """What a training has made, in a few lines, the weights last."""
    lines = [taught.mine.line, *taught.appraisal.lines]
    if taught.ended:
        lines.append(f"{taught.steps} of {taught.of} steps, {taught.seconds:.0f} s")
    else:
        lines.append(f"{taught.steps} of {taught.of} steps: the same command goes on from here")
    lines += [f"{Path(name).stem}: {name}" for name in taught.files if name.endswith(".png")]
    return [*lines, f"to use them: {taught.use}", f"weights: {taught.weights}"]
