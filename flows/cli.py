"""The command line `marstfn`: the whole job on this machine, and what one does with a finished cube."""

from __future__ import annotations

import importlib.metadata
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from cyclopts import App, CycloptsError

from flows import session
from flows.commands import comparisons, cubes, jobs, lessons, tools
from pipeline.errors import AOIError, MarstfnError, PlanError, UnusableError, WeightsError

app = App(
    name="marstfn",
    version=lambda: importlib.metadata.version("marstfn"),
    help="A dense 10 m annual reflectance series from Landsat 8 and Sentinel-2, fused with MARSTFN.",
    help_epilogue="""
    Start here: `marstfn demo` fuses a simulated year, without account or network, in a few minutes.
    Then `marstfn run my-field.geojson` does the same with real scenes.

    Exit codes: 0 done, 1 the job or a check failed, 2 the input cannot be used, 130 interrupted.

    Defaults come from MARSTFN_... variables (MARSTFN_CATALOG, MARSTFN_YEAR, MARSTFN_STORE, ...)
    or ~/.config/marstfn/config.toml, whose tables are profiles (MARSTFN_PROFILE names one).
    """,
    help_format="markdown",
    version_flags=["--version"],
    suppress_keyboard_interrupt=False,  # 130 is ours to give, and with a word on what is kept
)
for _command in (
    tools.demo,
    jobs.run,
    jobs.plan,
    cubes.status,
    cubes.verify,
    cubes.ndvi,
    cubes.export,
    lessons.train,
    comparisons.evaluate,
    tools.up,
    tools.down,
    tools.catalogue,
):
    app.command(_command, help_epilogue="")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 failed, 2 bad input or usage, 130 interrupted."""
    signal.signal(signal.SIGTERM, _terminated)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # a shell may have it ignored
        signal.signal(signal.SIGINT, _interrupted)
    sys.exit(run(sys.argv[1:] if arguments is None else list(arguments)))


def _terminated(number: int, frame: object) -> NoReturn:
    """End as on an interrupt: what was started is stopped, what was made for the time being is removed."""
    sys.stderr.write("\nterminated; a run keeps its finished tiles, and the same command goes on from there\n")
    sys.exit(128 + number)


def _interrupted(number: int, frame: object) -> NoReturn:
    """Say at once that the key was heard: to end workers takes seconds."""
    sys.stderr.write("\nstopping ...\n")
    sys.stderr.flush()
    raise KeyboardInterrupt


def run(arguments: list[str]) -> int:
    """Run the command line and return its exit code."""
    session.verbosity = 0
    try:
        result = app(arguments, exit_on_error=False, result_action="return_value")
    except CycloptsError:
        return 2  # cyclopts has shown what is wrong
    except KeyboardInterrupt:
        sys.stderr.write("\ninterrupted; a run keeps its finished tiles, and the same command goes on from there\n")
        return 130
    except (BrokenPipeError, session.Unheard):
        # what is left in the buffer would be tried again, and complained about, when the interpreter ends
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115
        return 1
    except MarstfnError as error:
        _show(error, str(error))
        return 2 if isinstance(error, AOIError | PlanError | UnusableError | WeightsError) else 1
    except Exception as error:
        _show(error, f"unexpected {type(error).__name__}: {error} (with -v: where)")
        return 1
    return result if isinstance(result, int) else 0


def _show(error: BaseException, text: str) -> None:
    if session.verbosity > 0:
        traceback.print_exception(error)
    sys.stderr.write(f"error: {text}\n")


if __name__ == "__main__":
    main()
