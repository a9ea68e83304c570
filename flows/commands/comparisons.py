"""Evaluations on the command line."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Group, Parameter

from flows.commands.jobs import INPUT, MACHINE
from flows.session import Talk, new_run, out, talking
from pipeline.choices import Landsat, Nbar, Snow

if TYPE_CHECKING:
    from pipeline.examination import Examined

CASES = Group("Cases", sort_key=2)
REPORT = Group("Report", sort_key=3)


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Comparisons:
    """The parameters of an evaluation, as in `pipeline.examination.Examination` and `pipeline.request.Request`."""

    methods: Annotated[
        str | None,
        Parameter(
            help="Names with commas between them: network, marstfn-pan, marstfn-nopan, dstfn-nopan, additive, "
            "additive-linear, linear, sen2like, fsdaf, starfm-si, atprk, bicubic, copy, starfm, weights files; "
            "default: all of them.",
        ),
    ] = None
    against: Annotated[
        str | None, Parameter(help="Method that all others are held against, besides the best; default: the first.")
    ] = None
    protocol: Annotated[
        Literal["auto", "paper", "other-day", "cross-sensor", "reduced"] | None,
        Parameter(
            group=CASES,
            help="Of an area: cross-sensor (Sentinel-2 of the same day, withheld, is the truth) or reduced (everything "
            "three times coarser, Landsat is the truth); auto takes the first that gives a case. Of a folder: "
            "other-day (auto), reduced, or paper (auto for the paper's own data), whose truth is an input.",
        ),
    ] = None
    windows: Annotated[int | None, Parameter(group=CASES, help="Windows drawn from an area and year; default 4.")] = (
        None
    )
    side: Annotated[
        int | None,
        Parameter(group=CASES, help="Longest side of a case in pixels, a multiple of 18; default 216, of folders 990."),
    ] = None
    share: Annotated[
        float | None, Parameter(group=CASES, help="Of a folder's dates, the last share, 0.2 say; default: all.")
    ] = None
    seed: Annotated[int | None, Parameter(group=CASES, help="Of the draw of windows; default 0.")] = None
    printed: Annotated[
        Literal["hailar", "dezhou"] | None,
        Parameter(
            group=REPORT,
            help="Show the paper's tables for this data set beside; default: by the name of a folder.",
        ),
    ] = None
    draws: Annotated[int | None, Parameter(group=REPORT, help="Of the bootstrap, 100 or more; default 2000.")] = None
    year: Annotated[int | None, Parameter(group=INPUT, help="Of an area; default: the last complete year.")] = None
    catalog: Annotated[
        str | None,
        Parameter(group=INPUT, help="Of an area: planetary-computer (default) or another, as for `marstfn run`."),
    ] = None
    store: Annotated[
        str | None,
        Parameter(group=INPUT, help="Of an area: folder of the inputs; default: NAME-YEAR, as `marstfn run` has it."),
    ] = None
    start: Annotated[date | None, Parameter(group=INPUT, help="First day, YYYY-MM-DD, inside the year.")] = None
    end: Annotated[date | None, Parameter(group=INPUT, help="Last day, YYYY-MM-DD, inside the year.")] = None
    landsat: Annotated[
        Landsat | None, Parameter(group=INPUT, help="Of an area: which Landsat is read, 8 (default), 9, or both.")
    ] = None
    snow: Annotated[
        Snow | None, Parameter(group=INPUT, help="Of an area: whether snow is kept (default) or masked.")
    ] = None
    nbar: Annotated[
        Nbar | None, Parameter(group=INPUT, help="Of an area: bring reflectance to a view from above; default auto.")
    ] = None
    radiometry: Annotated[
        list[str] | None,
        Parameter(group=INPUT, negative=(), help="Of an area: as for `marstfn run`; may be given several times."),
    ] = None
    scheduler: Annotated[
        str | None, Parameter(group=MACHINE, help="Dask scheduler that reads an area's scenes, tls://HOST:PORT.")
    ] = None
    tile: Annotated[int | None, Parameter(group=MACHINE, help="Tile side in 10 m pixels; default by size.")] = None
    threads: Annotated[int | None, Parameter(group=MACHINE, help="Threads of networks; default: all cores.")] = None
    device: Annotated[
        Literal["auto", "cpu", "cuda", "mps"] | None,
        Parameter(group=MACHINE, help="Where networks run; default auto, a CUDA device where there is one."),
    ] = None


def evaluate(
    *sources: str,
    comparisons: Comparisons | None = None,
    out_: Annotated[
        Path | None,
        Parameter(
            name="--out", group=REPORT, help="Folder of the report; default: evaluation, in an area's store or here."
        ),
    ] = None,
    log: Annotated[Path | None, Parameter(help="Log file; default: of an area, logs/ in its store; else none.")] = None,
    talk: Talk | None = None,
) -> None:
    """Compare methods on the same pixels: tables with intervals, figures and one HTML page.

    All methods see the same inputs and are scored on one set of pixels, fixed by truth and masks before any of them
    runs; a pixel that a method leaves empty is scored with enlarged Landsat. Two that the interval cannot tell apart
    are shown as tied.

    For example:

    ```
    marstfn evaluate simulated
    marstfn evaluate my-fields.geojson --year 2024 --methods network,additive,fsdaf
    marstfn evaluate my-scenes --protocol other-day
    marstfn evaluate hailar-data --methods network,dstfn-nopan,fsdaf,starfm-si,atprk --share 0.2
    ```

    Args:
        sources: simulated; an area of interest (as `marstfn run` takes it); a folder of GeoTIFFs by date; a file .npz;
            a store whose inputs are read; flanders:DATA, india:DATA or kranj:DATA. Several may be given, except areas.
    """
    with talking(talk) as display:
        from flows.examine import examine
        from pipeline import examination

        chosen = comparisons or Comparisons()
        given = {name: getattr(chosen, name) for name in chosen.__dataclass_fields__}
        given["tile_px"] = given.pop("tile")
        reading = {name: given.pop(name) for name in examination.READING}
        given["methods"] = None if chosen.methods is None else tuple(m.strip() for m in chosen.methods.split(","))
        exam = examination.make(sources=sources, base=Path.cwd(), out=None if out_ is None else str(out_), **given)
        request = examination.request(exam, **reading)
        for line in examined(examine(exam, request, new_run(), display, log_file=log)):
            out(line)


def examined(made: Examined) -> list[str]:
    """What an evaluation has made, in a few lines, the page last."""
    lines = [*made.words, f"{made.methods} methods on {made.cases} cases, {made.seconds:.0f} s"]
    return [*lines, f"tables: {made.folder}", f"report: {made.page}"]
