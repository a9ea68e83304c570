"""The other commands: demo, up, down, catalogue."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter, validators

from flows.session import Talk, activation, out, talking

PORTS = validators.Number(gte=0, lte=65535)


def demo(
    *,
    out_: Annotated[Path, Parameter(name="--out", help="Folder for the scenes, the cube and the pictures.")] = Path(
        "demo"
    ),
    talk: Talk | None = None,
) -> int:
    """Fuse a simulated year on this machine and score it against the exact truth: no account, no network.

    Writes a year of simulated Landsat 8 and Sentinel-2 products, serves them as a STAC catalogue on loopback, runs the
    flow on a local Dask cluster, and prints what each method got right. Run it again to see it resume.

    For example:

    ```
    marstfn demo
    marstfn demo --out /tmp/demo
    ```
    """
    with talking(talk) as display:
        from flows.demo import demo as show

        return show(out_, display)


def up(
    *,
    port: Annotated[
        int | None, Parameter(validator=PORTS, help="Port of the server; default 4200, or a free one.")
    ] = None,
    talk: Talk | None = None,
) -> None:
    """Start a Prefect server and a worker on loopback, deploy the flows, and switch to a Prefect profile of its own.

    Your other profiles stay as they are; `marstfn down` takes everything back. Calling it twice does no harm.
    The worker sees the MARSTFN_... variables of this shell, and relative paths typed into the Prefect page are read
    from this folder.

    For example:

    ```
    marstfn up
    ```
    """
    with talking(talk) as display:
        import os

        from flows import services

        state = services.up(port=port, say=lambda text: display.say(text))
        for name in ("PREFECT_API_URL", "PREFECT_PROFILE", "PREFECT_PLUGINS_ENABLED"):
            if os.environ.get(name):
                display.say(
                    f"[yellow]note[/] {name} is set in this shell and wins over the profile: unset it", always=True
                )
        out(f"Prefect page: {state.ui}")
        out(f"logs:         {services.home() / 'logs'}")
        for command in (*activation(), "prefect deployment run fuse-year --param aoi=hailar.geojson --watch"):
            out(f"next:         {command}")
        out("stop:         marstfn down")


def down(
    *,
    keep_history: Annotated[bool, Parameter(negative=(), help="Keep the database of runs for the next `up`.")] = False,
    talk: Talk | None = None,
) -> None:
    """Stop the server and worker that `up` started and restore the Prefect profile that was active before.

    Only processes that `up` started are ended. Removes the server's database and logs as well; cubes stay.

    For example:

    ```
    marstfn down
    ```
    """
    with talking(talk) as display:
        from flows import services

        if not services.down(keep=keep_history, say=lambda text: display.say(text)):
            out("nothing was running")


def catalogue(
    folder: Path,
    *,
    port: Annotated[int, Parameter(validator=PORTS, help="Port on 127.0.0.1; 0 takes a free one.")] = 0,
    talk: Talk | None = None,
) -> None:
    """Serve a folder of scenes (such as demo/scenes) as a STAC catalogue on loopback, until interrupted.

    For example:

    ```
    marstfn catalogue demo/scenes --port 8080
    marstfn run demo/demo.geojson --year 2023 --catalog simulated@http://127.0.0.1:8080 --store demo/again
    ```

    Args:
        folder: A folder as `marstfn demo` writes it.
    """
    with talking(talk) as display:
        from contextlib import suppress
        from threading import Event

        from pipeline.demo.search import Catalogue
        from pipeline.demo.server import serve

        years = Catalogue.read(folder).years
        with suppress(KeyboardInterrupt), serve(folder, port=port) as server:
            out(f"catalogue: simulated@{server.url}")
            area, again = folder.parent / "demo.geojson", folder.parent / "again"
            for year in years:
                run = f"marstfn run {area if area.is_file() else 'AREA.geojson'} --year {year}"
                out(f"run:       {run} --catalog simulated@{server.url} --store {again}")
            Event().wait()
        display.say("stopped")
