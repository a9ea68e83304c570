"""Commands on a run or its finished cube: status, verify, ndvi, export."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from flows.session import Talk, out, talking
from pipeline.errors import PlanError


def status(store: str, *, talk: Talk | None = None) -> int:
    """Show how far a run has come: its plan, tiles done in each stage, and whether the cube is complete.

    Exit code 1 where the cube is not complete. For example:

    ```
    marstfn status hailar-2025
    ```

    Args:
        store: Folder or URL of the run, or its fused.zarr.
    """
    with talking(talk):
        from pipeline import status as states
        from pipeline.verify import store_of

        found = states.read(store_of(store))
        for line in found.lines:
            out(line)
        return 0 if found.complete else 1


def verify(store: str, *, talk: Talk | None = None) -> int:
    """Check a finished cube: every tile in the ledger, shards against their checksums, values, time axis, georeference.

    Exit code 1, and a list of what is wrong, where something is. For example:

    ```
    marstfn verify hailar-2025
    ```

    Args:
        store: Folder or URL of the run, or its fused.zarr.
    """
    with talking(talk) as display:
        from pipeline import verify as checks

        report = checks.verify(store, listener=display)
        for line in report.lines:
            out(line)
        return 0 if report.ok else 1


def ndvi(
    cube: str,
    *,
    point: Annotated[
        str | None, Parameter(allow_leading_hyphen=True, help="LON,LAT in degrees: print that pixel's year.")
    ] = None,
    plot: Annotated[Path | None, Parameter(help="PNG to draw the year at --point into.")] = None,
    out_: Annotated[
        str | None, Parameter(name="--out", help="Zarr folder to write the NDVI of the whole cube to.")
    ] = None,
    overwrite: Annotated[bool, Parameter(negative=(), help="Replace --out where it exists.")] = False,
    talk: Talk | None = None,
) -> None:
    """NDVI = (nir08 - red) / (nir08 + red) of a cube.

    For example:

    ```
    marstfn ndvi hailar-2025 --point 119.70,49.21
    marstfn ndvi hailar-2025 --point 119.70,49.21 --plot curve.png
    marstfn ndvi hailar-2025 --out ndvi.zarr
    ```

    Args:
        cube: The cube (fused.zarr), or the store that holds it.
    """
    if point is None and out_ is None:
        raise PlanError("ndvi needs --point LON,LAT or --out FOLDER.zarr; nothing was read")
    if plot is not None and point is None:
        raise PlanError("--plot draws the year at one place: give it with --point LON,LAT; nothing was read")
    if out_ is not None and "://" in out_:
        raise PlanError(
            f"--out {out_} is an address, and ndvi writes to a folder of this machine only; nothing was read"
        )
    place = None if point is None else _place(point)
    with talking(talk) as display:
        from pipeline import indices

        if place is not None:
            table = indices.ndvi_point(cube, *place)
            out(table.to_csv(float_format="%.4f").rstrip("\n"))
            if plot is not None:
                display.say(f"plot: {indices.plot(table, plot)}", always=True)
        if out_ is not None:
            with display.counting("ndvi") as progress:
                indices.write_ndvi(cube, out_, overwrite=overwrite, progress=progress)
            out(f"ndvi: {out_}")


def export(
    cube: str,
    folder: Annotated[Path, Parameter(name="--out")],
    *,
    dates: Annotated[
        list[str] | None,
        Parameter(
            name=["--date", "--dates"],
            negative=(),
            consume_multiple=True,
            help="Days to write, YYYY-MM-DD, separated by blanks; default: all.",
        ),
    ] = None,
    bands: Annotated[
        list[str] | None,
        Parameter(
            name=["--band", "--bands"],
            negative=(),
            consume_multiple=True,
            help="Bands to write, in this order; default: all six.",
        ),
    ] = None,
    source: Annotated[
        Literal["fused", "observed"] | None, Parameter(help="Only fused, or only observed, dates.")
    ] = None,
    dtype: Annotated[
        Literal["int16", "float32"], Parameter(help="int16 with scale 1e-4, or float32 reflectance.")
    ] = "int16",
    overwrite: Annotated[bool, Parameter(negative=(), help="Replace files that exist.")] = False,
    talk: Talk | None = None,
) -> None:
    """Write dates of a cube as cloud-optimised GeoTIFFs, one file a date.

    For example:

    ```
    marstfn export hailar-2025 --out tiffs --dates 2025-07-04 2025-07-20
    marstfn export hailar-2025 --out tiffs --source fused --bands red nir08 --dtype float32
    ```

    Args:
        cube: The cube (fused.zarr), or the store that holds it.
        folder: Where the files go.
    """
    with talking(talk) as display:
        from pipeline import export as files

        asked: set[Path] = set()
        with display.counting("export") as progress:

            def move(done: int, total: int, path: Path) -> None:
                asked.add(path)
                progress(done, total)

            written = files.export(
                cube,
                folder,
                dates=dates,
                bands=bands,
                source=source,
                dtype=dtype,
                overwrite=overwrite,
                progress=move,
            )
        for path in written:
            out(str(path))
        empty = len(asked) - len(written)
        left = f", {empty} without a known pixel" if empty else ""
        display.say(f"{len(asked)} dates, {len(written)} written{left}")


def _place(text: str) -> tuple[float, float]:
    try:
        lon, lat = (float(part) for part in text.split(","))
    except ValueError:
        raise PlanError(f"--point {text!r} is not LON,LAT in degrees, such as 119.70,49.21; nothing was read") from None
    return lon, lat
